import { expect, test } from "vitest";
import { MmuIntervalNotifier } from "../mmu-notifier/index.ts";
import { fault, fixed, setUp } from "../testing/ranges.ts";
import { BASE, begin, invalidation } from "../testing/spaces.ts";

const P = 4096;

/** Pages 2, 3 and 8 of what is mapped at {@link BASE}, in one invalidation. */
const parted = (mm: Parameters<typeof invalidation>[0]) =>
  invalidation(mm, 2, 9, { parts: Float64Array.of(BASE + 2 * P, BASE + 4 * P, BASE + 8 * P, BASE + 9 * P) });

const PLACES: readonly (readonly [page: number, end: number, changes: boolean])[] = [
  [0, 2, false],
  [0, 3, true],
  [3, 4, true],
  [4, 8, false],
  [5, 12, true],
  [8, 9, true],
  [9, 12, false],
  [0, 12, true],
];

test("an invalidation of scattered pages invalidates the ranges that have one of them, and no others", async () => {
  await using s = await setUp();
  await s.mm.mmap(fixed(0, 12));
  const ranges = PLACES.map(([page, end]) => s.range(page, end, { defaultFlags: 1 }));
  for (const range of ranges) {
    await fault(s, range);
  }
  expect(ranges.map(({ valid }) => valid)).toEqual(PLACES.map(() => true));
  const end = begin(parted(s.mm));
  expect(ranges.map(({ valid }) => !valid)).toEqual(PLACES.map(([, , changes]) => changes));
  await end();
  expect(ranges.map(({ valid }) => !valid)).toEqual(PLACES.map(([, , changes]) => changes));
});

test("a range that is registered meanwhile waits if it has one of the pages", async () => {
  await using s = await setUp();
  await s.mm.mmap(fixed(0, 12));
  const end = begin(parted(s.mm));
  const ranges = PLACES.map(([page, to]) => s.range(page, to, { defaultFlags: 1 }));
  const outcomes: unknown[] = [];
  for (const range of ranges) {
    outcomes.push(await fault(s, range));
  }
  expect(outcomes.map((outcome) => outcome === "EBUSY")).toEqual(PLACES.map(([, , changes]) => changes));
  await end();
  for (const range of ranges) {
    expect(await fault(s, range)).not.toBe("EBUSY");
  }
});

test("interval notifiers that watch one of the pages are called, and no others", async () => {
  await using s = await setUp();
  const called: string[] = [];
  const watching: MmuIntervalNotifier[] = [];
  for (const [page, end] of PLACES) {
    const notifier = new MmuIntervalNotifier({
      name: `${page} to ${end}`,
      invalidate(self, _range, seq) {
        self.setSeq(seq);
        called.push(`${page} to ${end}`);
        return true;
      },
    });
    await notifier.insert(s.mm, BASE + page * P, (end - page) * P);
    watching.push(notifier);
  }
  await begin(parted(s.mm))();
  const expected = PLACES.filter(([, , changes]) => changes).map(([page, end]) => `${page} to ${end}`);
  expect(called.sort()).toEqual(expected.sort());
  for (const notifier of watching) {
    await notifier.remove();
  }
});
