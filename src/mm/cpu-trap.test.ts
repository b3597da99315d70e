import fc from "fast-check";
import { expect, test } from "vitest";
import { PAGE_SIZE } from "../base/index.ts";
import { testMmu } from "../testing/mmu.ts";
import {
  AddressSpace,
  findShowable,
  forEachReadOnly,
  MemoryObject,
  PageFlag,
  PhysicalMemory,
  serveCpuFault,
} from "./index.ts";

const PAGES = 32;

test("the quick answer to a fault is the one that the full one gives, or none", async () => {
  const mm = AddressSpace.create({ memory: new PhysicalMemory(testMmu()) });
  const flags = fc.constantFrom(
    0,
    PageFlag.Uptodate,
    PageFlag.Uptodate | PageFlag.Dirty,
    PageFlag.Busy,
    PageFlag.Poisoned,
  );
  await fc.assert(
    fc.asyncProperty(
      fc.array(flags, { minLength: PAGES, maxLength: PAGES }),
      fc.nat(PAGES - 1),
      fc.constantFrom(1, 4, 16),
      fc.constantFrom("r", "rw", "none"),
      fc.boolean(),
      async (pageFlags, page, host, prot, twice) => {
        const object = new MemoryObject(mm.memory, { pages: PAGES });
        object.reserve(0, PAGES);
        const length = (PAGES - 3) * PAGE_SIZE;
        const mapped = { object, length, shared: true, offset: PAGE_SIZE };
        const mapping = await mm.mmap({ ...mapped, prot: prot as "r" });
        const second = twice ? await mm.mmap({ ...mapped, prot: "rw" }) : undefined;
        for (const [p, set] of pageFlags.entries()) {
          object.updateFlags(p, p + 1, set, 0xff);
        }
        const span = { page: -1, end: -1 };
        if (findShowable(object, page, host, span)) {
          expect(serveCpuFault(object, page, { host, device: 1 })).toEqual({ ...span, error: undefined });
          expect(twice).toBe(false);
        } else {
          expect(span).toEqual({ page: -1, end: -1 });
        }
        object.updateFlags(0, PAGES, 0, 0xff);
        await mapping.munmap();
        await second?.munmap();
        await object.put();
      },
    ),
    { numRuns: 200 },
  );
  await mm[Symbol.asyncDispose]();
});

test("read-only is what is mapped, and by nobody writable", async () => {
  const mm = AddressSpace.create({ memory: new PhysicalMemory(testMmu()) });
  const object = new MemoryObject(mm.memory, { pages: PAGES });
  const map = (from: number, to: number, prot: "r" | "rw") =>
    mm.mmap({ object, offset: from * PAGE_SIZE, length: (to - from) * PAGE_SIZE, shared: true, prot });
  await map(2, 10, "r");
  await map(12, 20, "r");
  await map(4, 6, "rw");
  await map(18, 24, "rw");
  const runs: [number, number][] = [];
  forEachReadOnly(object, 3, PAGES, (page, end) => runs.push([page, end]));
  expect(runs).toEqual([
    [3, 4],
    [6, 10],
    [12, 18],
  ]);
  await object.put();
  await mm[Symbol.asyncDispose]();
});
