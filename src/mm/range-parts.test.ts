import fc from "fast-check";
import { expect, test } from "vitest";
import { PAGE_SIZE, type VirtAddr } from "../base/index.ts";
import { TestHooks } from "../testing/mm.ts";
import { testMmu } from "../testing/mmu.ts";
import { AddressSpace, changesIn, forEachPart, MemoryObject, PhysicalMemory, validateMm } from "./index.ts";
import { coversParts, firstPartBehind } from "./range-parts.ts";
import { announceRuns } from "./rmap.ts";

/** Some of the numbers below 40 as runs: starts and ends, in order. */
const someRuns = fc.uniqueArray(fc.nat(39), { minLength: 1, maxLength: 20 }).map((pages) => {
  const runs: number[] = [];
  for (const page of pages.sort((a, b) => a - b)) {
    if (runs.at(-1) === page) {
      runs[runs.length - 1] = page + 1;
    } else {
      runs.push(page, page + 1);
    }
  }
  return runs;
});

function ranged(runs: readonly number[], parted: boolean) {
  const [start, end] = [runs[0] as VirtAddr, runs[runs.length - 1] as VirtAddr];
  return { start, end, parts: parted ? Float64Array.from(runs) : undefined };
}

test("a part is found wherever one looks", () => {
  fc.assert(
    fc.property(someRuns, fc.boolean(), fc.nat(45), fc.integer({ min: 1, max: 8 }), (runs, parted, start, length) => {
      const range = ranged(runs, parted);
      const changed = new Set<number>();
      forEachPart(range, (from, to) => {
        for (let at: number = from; at < to; at++) {
          changed.add(at);
        }
      });
      const inside = Array.from({ length }, (_, i) => start + i);
      expect(changesIn(range, start, start + length)).toBe(inside.some((at) => changed.has(at)));
      if (range.parts !== undefined) {
        const behind = runs.findIndex((at, i) => i % 2 === 1 && at > start);
        expect(firstPartBehind(range.parts, start)).toBe(behind < 0 ? runs.length : behind - 1);
      }
    }),
  );
});

test("who was told of some parts knows nothing of others in between", () => {
  const told = ranged([1, 2, 8, 9], true);
  expect(coversParts(told, ranged([1, 2, 8, 9], true))).toBe(true);
  expect(coversParts(told, ranged([1, 3, 8, 9], true))).toBe(false);
  expect(coversParts(told, ranged([4, 5], true))).toBe(false);
  expect(coversParts(told, ranged([1, 9], false))).toBe(false);
  expect(coversParts(ranged([1, 9], false), told)).toBe(true);
  expect(coversParts(ranged([2, 9], false), told)).toBe(false);
});

test("runs of pages are announced once for each mapping, with the parts that it maps", async () => {
  const mm = AddressSpace.create({ memory: new PhysicalMemory(testMmu()) });
  const hooks = TestHooks.on(mm);
  await fc.assert(
    fc.asyncProperty(someRuns, fc.nat(30), fc.integer({ min: 1, max: 10 }), async (runs, first, pages) => {
      const object = new MemoryObject(mm.memory, { pages: 40 });
      const map = (offset: number, count: number) =>
        mm.mmap({ object, shared: true, offset: offset * PAGE_SIZE, length: count * PAGE_SIZE });
      const mappings = [await map(0, 40), await map(first, pages)];
      hooks.told.length = 0;
      let changes = 0;
      await announceRuns(object, runs, "clear", () => {
        changes++;
        expect(hooks.open.size).toBe(hooks.told.length);
      });
      expect([changes, hooks.open.size]).toEqual([1, 0]);
      const told = hooks.told.flatMap((range) => {
        const found: number[] = [];
        forEachPart(range, (start, end) => {
          expect(start >= range.start && end <= range.end).toBe(true);
          for (let at: number = start; at < end; at += PAGE_SIZE) {
            found.push(at);
          }
        });
        return found;
      });
      const expected = mappings.flatMap(({ start }, i) => {
        const [from, to] = i === 0 ? [0, 40] : [first, first + pages];
        const changed: number[] = [];
        for (let at = 0; at < runs.length; at += 2) {
          for (let p = Math.max(from, runs[at]); p < Math.min(to, runs[at + 1]); p++) {
            changed.push(start + (p - from) * PAGE_SIZE);
          }
        }
        return changed;
      });
      const byNumber = (a: number, b: number) => a - b;
      expect(told.sort(byNumber)).toEqual(expected.sort(byNumber));
      expect(hooks.told.length).toBeLessThanOrEqual(2);
      for (const mapping of mappings) {
        await mapping.munmap();
      }
      await object.put();
    }),
    { numRuns: 100 },
  );
  validateMm(mm);
  await mm[Symbol.asyncDispose]();
});

test("who maps the pages while others are being told is told too, also between the parts that they were told of", async () => {
  const mm = AddressSpace.create({ memory: new PhysicalMemory(testMmu()) });
  const hooks = TestHooks.on(mm);
  const object = new MemoryObject(mm.memory, { pages: 8 });
  const length = 8 * PAGE_SIZE;
  const before = await mm.mmap({ object, shared: true, length });
  let later: { readonly start: number; munmap(): Promise<void> } | undefined;
  hooks.delay = async ({ event }) => {
    if (event === "clear" && later === undefined) {
      // Over the middle of the first mapping, so that what was told surrounds it.
      const addr = before.start + 3 * PAGE_SIZE;
      hooks.delay = undefined;
      later = await mm.mmap({ object, shared: true, length: PAGE_SIZE, addr, fixed: true });
    }
  };
  let changes = 0;
  await announceRuns(object, [0, 1, 7, 8], "clear", () => {
    changes++;
  });
  const clears = hooks.told.filter(({ event }) => event === "clear").map(({ start, end }) => [start, end]);
  expect(clears[0]).toEqual([before.start, before.start + length]);
  expect(clears).toContainEqual([before.start + 3 * PAGE_SIZE, before.start + 4 * PAGE_SIZE]);
  expect(changes).toBe(1);
  await mm.munmap(before.start, length);
  await object.put();
  await mm[Symbol.asyncDispose]();
});
