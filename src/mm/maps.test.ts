import { describe, expect, it } from "vitest";
import { PAGE_SIZE } from "../base/index.ts";
import { SoftwareMmu } from "../platform/software/cpu-mmu.ts";
import { AddressSpace, PhysicalMemory } from "./index.ts";
import { formatMaps, formatSmaps } from "./maps.ts";

describe("the text of an address space", () => {
  it("has a line for each mapping, and says what is present in it", async () => {
    await using mm = AddressSpace.create({ memory: new PhysicalMemory(new SoftwareMmu()) });
    const a = await mm.mmap({ length: 3 * PAGE_SIZE, name: "first" });
    await mm.mmap({ length: PAGE_SIZE, name: "second", prot: "r" });
    await a.write(PAGE_SIZE, Uint8Array.of(1));
    await a.read(0, 1);
    const [line, ...rest] = formatMaps(mm).trimEnd().split("\n");
    expect(line).toBe(
      `${a.start.toString(16).padStart(12, "0")}-${(a.start + 3 * PAGE_SIZE).toString(16).padStart(12, "0")} rw-p 00000000 first`,
    );
    expect(rest).toEqual([expect.stringMatching(/ r--p 00000000 second$/)]);
    const figures = formatSmaps(mm).split("\n").slice(1, 4).join();
    expect(figures).toMatch(/^Size: +12 kB,Present: +8 kB,Writable: +4 kB$/);
    expect(mm.stats()).toEqual({
      mappings: 2,
      pages: { mapped: 4, present: 2, writable: 1, device: 0, migrating: 0, poisoned: 0 },
      pageTableBytes: 2048,
    });
  });
});
