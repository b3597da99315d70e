import fc from "fast-check";
import { expect, test } from "vitest";
import { type RangeEntry, RangeMap } from "./range-map.ts";

class NaiveMap {
  list: RangeEntry<number>[] = [];

  insert(start: number, end: number, value: number): boolean {
    if (this.list.some((e) => e.start < end && e.end > start)) {
      return false;
    }
    this.list = [...this.list, { start, end, value }].toSorted((a, b) => a.start - b.start);
    return true;
  }

  gap(
    length: number,
    low: number,
    high: number,
    align: number,
    placement: "top-down" | "bottom-up",
  ): number | undefined {
    const fits: number[] = [];
    for (let s = Math.ceil(low / align) * align; s + length <= high; s += align) {
      if (!this.list.some((e) => e.start < s + length && e.end > s)) {
        fits.push(s);
      }
    }
    return placement === "top-down" ? fits.at(-1) : fits[0];
  }
}

const bounds = { start: fc.nat(400), length: fc.integer({ min: 1, max: 12 }) };
const step = fc.oneof(
  { weight: 4, arbitrary: fc.record({ op: fc.constant("insert" as const), ...bounds }) },
  fc.record({ op: fc.constant("delete" as const), pick: fc.nat() }),
  fc.record({
    op: fc.constant("resize" as const),
    pick: fc.nat(),
    by: fc.integer({ min: -6, max: 6 }),
    end: fc.integer({ min: -6, max: 6 }),
  }),
  fc.record({ op: fc.constant("look" as const), at: fc.nat(420) }),
  fc.record({
    op: fc.constant("gap" as const),
    length: fc.integer({ min: 1, max: 40 }),
    low: fc.nat(200),
    high: fc.integer({ min: 200, max: 430 }),
    align: fc.constantFrom(1, 2, 8),
    placement: fc.constantFrom("top-down" as const, "bottom-up" as const),
  }),
);

test("answers as a naive sorted list does after any inserts, deletions and resizes", () => {
  fc.assert(
    fc.property(fc.array(step, { maxLength: 150 }), (steps) => {
      const map = new RangeMap<number>();
      const naive = new NaiveMap();
      steps.forEach((s, i) => {
        switch (s.op) {
          case "insert":
            if (naive.insert(s.start, s.start + s.length, i)) {
              map.insert(s.start, s.start + s.length, i);
            } else {
              expect(() => map.insert(s.start, s.start + s.length, i)).toThrow("I-COLL-3");
            }
            break;
          case "delete": {
            const victim = naive.list[s.pick % naive.list.length];
            expect(map.delete(victim?.start ?? -5)).toBe(victim?.value);
            naive.list = naive.list.filter((e) => e !== victim);
            break;
          }
          case "resize": {
            const victim = naive.list[s.pick % naive.list.length];
            if (victim !== undefined) {
              const start = victim.start + s.by;
              const end = victim.end + s.end;
              const rest = naive.list.filter((e) => e !== victim);
              if (
                start < end &&
                !rest.some((e) => e.start < end && e.end > start) &&
                keepsOrder(naive.list, victim, start, end)
              ) {
                map.resize(victim.start, start, end);
                naive.list = [...rest, { start, end, value: victim.value }].toSorted((a, b) => a.start - b.start);
              } else {
                expect(() => map.resize(victim.start, start, end)).toThrow("I-COLL-3");
              }
            }
            break;
          }
          case "look":
            expect(map.find(s.at)).toBe(naive.list.find((e) => e.start <= s.at && e.end > s.at)?.value);
            expect(map.findNext(s.at)).toBe(naive.list.find((e) => e.end > s.at)?.value);
            expect([...map.entries(s.at)]).toEqual(naive.list.filter((e) => e.end > s.at));
            break;
          case "gap":
            expect(map.findGap(s.length, s.low, s.high, s.align, s.placement)).toBe(
              naive.gap(s.length, s.low, s.high, s.align, s.placement),
            );
            break;
        }
        expect(map.size).toBe(naive.list.length);
      });
      expect([...map]).toEqual(naive.list.map((e) => e.value));
    }),
  );
});

function keepsOrder(
  list: readonly RangeEntry<number>[],
  victim: RangeEntry<number>,
  start: number,
  end: number,
): boolean {
  const i = list.indexOf(victim);
  return (
    start >= (list[i - 1]?.end ?? Number.NEGATIVE_INFINITY) && end <= (list[i + 1]?.start ?? Number.POSITIVE_INFINITY)
  );
}

test("keeps thousands of ranges in order through many chunks, and empties again", () => {
  const map = new RangeMap<number>();
  const base = 2 ** 42;
  // 7919 is prime to 20,000: every slot once, in a scattered order.
  for (let i = 0; i < 20_000; i++) {
    const slot = (i * 7919) % 20_000;
    map.insert(base + slot * 10, base + slot * 10 + 8, slot);
  }
  expect([...map]).toEqual(Array.from({ length: 20_000 }, (_, slot) => slot));
  expect(map.find(base + 123_457)).toBe(12_345);
  expect(map.find(base + 123_458)).toBeUndefined();
  expect(map.findGap(3, base, base + 200_000, 1)).toBeUndefined();
  expect(map.findGap(2, base, base + 200_000, 1)).toBe(base + 199_998);
  expect(map.findGap(2, base, base + 200_000, 1, "bottom-up")).toBe(base + 8);
  for (let i = 0; i < 20_000; i++) {
    const slot = (i * 4801) % 20_000;
    expect(map.delete(base + slot * 10)).toBe(slot);
  }
  expect(map.size).toBe(0);
  expect(map.findGap(100, base, base + 1000, 1)).toBe(base + 900);
});

test("iteration survives deletion of what it stands on", () => {
  const map = new RangeMap<string>();
  for (const [i, name] of ["a", "b", "c", "d"].entries()) {
    map.insert(i * 10, i * 10 + 10, name);
  }
  const seen: string[] = [];
  for (const { start, value } of map.entries(5)) {
    seen.push(value);
    map.delete(start);
  }
  expect(seen).toEqual(["a", "b", "c", "d"]);
});

test("I-COLL-3: empty ranges are refused", () => {
  const map = new RangeMap<number>();
  expect(() => map.insert(4, 4, 0)).toThrow("I-COLL-3");
  expect(() => map.resize(4, 4, 5)).toThrow("I-COLL-3");
});
