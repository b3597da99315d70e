import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { addrOf, PAGE_SIZE, vpnOf } from "../../base/index.ts";
import { BASE } from "../../testing/spaces.ts";
import { Extent, PageState } from "./extent.ts";
import type { OwnedBuffer } from "./gpu-buffer.ts";

function extentOf(bits: readonly number[]): Extent {
  const range = { start: BASE, end: BASE + bits.length * PAGE_SIZE } as unknown as Extent;
  const extent = new Extent(range, {} as OwnedBuffer, 0);
  extent.state.set(bits);
  return extent;
}

const states = fc.array(fc.constantFrom(0, 1, 2, 3, 4, 5, 6, 7), { minLength: 1, maxLength: 23 });
/** Long enough for steps of 32 pages. */
const alike = fc
  .tuple(states, fc.nat(150), fc.constantFrom(0, 7))
  .map(([some, count, bits]) => [...Array.from({ length: count }, () => bits), ...some]);

describe("an extent's scans", () => {
  test("agree with a page-by-page search, wherever they begin and end", () => {
    fc.assert(
      fc.property(alike, fc.nat(180), fc.nat(180), fc.constantFrom(1, 2, 3, 4, 5, 7), (bits, a, b, mask) => {
        const extent = extentOf(bits);
        const end = Math.min(bits.length, Math.max(a, b));
        const page = Math.min(end, Math.min(a, b));
        const pages = Array.from({ length: end - page }, (_, i) => page + i);
        const lacks = (p: number) => (bits[p] & mask) !== mask;
        expect(extent.firstWithout(page, end, mask)).toBe(pages.find(lacks) ?? end);
        const runs = extent.runsWithout(page, end, mask);
        const inRuns = runs.flatMap((first, i) =>
          i % 2 === 0 ? pages.filter((p) => first <= p && p < runs[i + 1]) : [],
        );
        expect(inRuns).toEqual(pages.filter(lacks));
        expect(runs.filter((p, i) => i > 0 && p <= runs[i - 1])).toEqual([]);
        const bit = mask & -mask;
        expect(extent.firstWith(page, end, bit)).toBe(pages.find((p) => bits[p] & bit) ?? end);
      }),
    );
  });

  test("find pages that are device-private and hidden", () => {
    fc.assert(
      fc.property(states, fc.nat(22), (bits, from) => {
        const extent = extentOf(bits.map(() => 0));
        bits.forEach((b, p) => {
          if (b & PageState.Owned) {
            extent.own(p, p + 1, {} as never, 0);
            extent.update(p, p + 1, 0, b & PageState.Valid ? 0 : PageState.Valid);
          }
        });
        const page = Math.min(from, bits.length);
        const hidden = bits.findIndex((b, p) => p >= page && (b & 3) === PageState.Owned);
        expect(extent.firstHidden(page, bits.length)).toBe(hidden < 0 ? bits.length : hidden);
      }),
    );
  });
});

test("what an extent lacks is known without looking through it, whatever became of its pages", () => {
  const steps = fc.array(
    fc.record({
      kind: fc.constantFrom("show", "drop", "drop", "own", "disown", "complete"),
      page: fc.nat(19),
      count: fc.integer({ min: 1, max: 6 }),
    }),
    { maxLength: 40 },
  );
  fc.assert(
    fc.property(steps, (list) => {
      const extent = extentOf(Array.from({ length: 20 }, () => PageState.Valid));
      expect(extent.isComplete(0, 20)).toBe(true);
      for (const { kind, page, count } of list) {
        const end = Math.min(20, page + count);
        const naive = extent.runsWithout(page, end, PageState.Valid);
        switch (kind) {
          case "show":
            extent.update(page, end, PageState.Valid, 0);
            break;
          case "drop":
            extent.update(page, end, 0, PageState.Valid);
            break;
          case "own":
            extent.own(page, end, {} as never, 0);
            break;
          case "disown":
            extent.disown(page, end);
            break;
          default:
            expect(extent.isComplete(page, end)).toBe(naive.length === 0);
        }
        for (const [from, to] of [
          [page, end],
          [0, 20],
        ]) {
          const lacking = extent
            .lacking(from, to)
            .flatMap((first, i, runs) =>
              i % 2 === 0 ? Array.from({ length: runs[i + 1] - first }, (_, k) => first + k) : [],
            );
          const without = Array.from({ length: to - from }, (_, i) => from + i).filter(
            (p) => !(extent.state[p] & PageState.Valid),
          );
          expect(lacking).toEqual(without);
        }
      }
    }),
  );
});

test("an invalidation of scattered pages drops those and leaves the others, in an extent that has some of them", () => {
  const extent = extentOf([1, 1, 1, 1, 1, 1, 1, 1]);
  const at = (page: number) => addrOf(vpnOf(extent.start) + page);
  const parts = Float64Array.from([-8, -7, -1, 1, 3, 4, 7, 10, 20, 21].map(at));
  extent.drop({ start: at(-8), end: at(21), parts });
  expect([...extent.state]).toEqual([0, 1, 1, 0, 1, 1, 1, 0]);
  extent.drop({ start: at(2), end: at(21) });
  expect([...extent.state]).toEqual([0, 1, 0, 0, 0, 0, 0, 0]);
});
