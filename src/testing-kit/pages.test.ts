import { expect, test } from "vitest";
import { KernelError, ledgerCount, PAGE_SIZE, warnOn } from "../base/index.ts";
import { AddressSpace, PhysicalMemory } from "../mm/index.ts";
import { SoftwareMmu } from "../platform/software/cpu-mmu.ts";
import { BASE } from "../testing/spaces.ts";
import { drawEntries, drawMaps, failEachAllocation, withoutLeaks } from "./index.ts";

test("mappings and entries are drawn one character a page", async () => {
  await using mm = AddressSpace.create({ memory: new PhysicalMemory(new SoftwareMmu()) });
  const a = await mm.mmap({ addr: BASE, length: 3 * PAGE_SIZE, fixed: true });
  await mm.mmap({ addr: BASE + 4 * PAGE_SIZE, length: PAGE_SIZE, fixed: true, prot: "r" });
  await mm.mmap({ addr: BASE + 5 * PAGE_SIZE, length: PAGE_SIZE, fixed: true, prot: "none" });
  await a.read(0, 1);
  await a.write(PAGE_SIZE, Uint8Array.of(1));
  expect(drawMaps(mm, BASE, 7)).toBe("AAA.b-.");
  expect(drawEntries(mm, BASE, 7)).toBe("rW.....");
});

test("what is left, and what was reported, fails", async () => {
  await expect(withoutLeaks(async () => ledgerCount("lease", 1))).rejects.toThrow("left at the end: 1 x lease");
  ledgerCount("lease", -1);
  await expect(withoutLeaks(async () => void warnOn(true, "I-MN-4", () => "broken"))).rejects.toThrow("I-MN-4");
  expect(await withoutLeaks(async () => 3)).toBe(3);
});

test("each allocation fails once, and another error is passed on", async () => {
  const memory = new PhysicalMemory(new SoftwareMmu());
  let runs = 0;
  const body = async () => {
    runs++;
    memory.charge("vma");
    memory.charge("vma");
  };
  expect(await failEachAllocation(memory, body)).toBe(2);
  expect(runs).toBe(3);
  const wrong = async () => {
    throw new KernelError("EIO", "test", "not a matter of memory");
  };
  await expect(failEachAllocation(memory, wrong)).rejects.toThrow("EIO");
});
