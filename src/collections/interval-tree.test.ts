import fc from "fast-check";
import { expect, test } from "vitest";
import { BugError } from "../base/index.ts";
import { type IntervalNode, IntervalTree } from "./interval-tree.ts";

function overlaps<T>(tree: IntervalTree<T>, start: number, end: number): T[] {
  const found: T[] = [];
  tree.forEachOverlap(start, end, (value) => found.push(value));
  return found;
}

test("touching intervals do not overlap", () => {
  const tree = new IntervalTree<string>();
  tree.insert(10, 20, "a");
  expect(overlaps(tree, 0, 10)).toEqual([]);
  expect(overlaps(tree, 20, 30)).toEqual([]);
  expect(overlaps(tree, 19, 20)).toEqual(["a"]);
  expect(overlaps(tree, 0, 11)).toEqual(["a"]);
});

test("finds exactly what a naive list finds, by rising start, after any inserts and removals", () => {
  const step = fc.oneof(
    fc.record({ op: fc.constant("insert" as const), start: fc.nat(60), length: fc.integer({ min: 1, max: 25 }) }),
    fc.record({ op: fc.constant("remove" as const), pick: fc.nat() }),
    fc.record({ op: fc.constant("query" as const), start: fc.nat(70), length: fc.integer({ min: 1, max: 20 }) }),
  );
  fc.assert(
    fc.property(fc.array(step, { maxLength: 120 }), (steps) => {
      // Above 2^40, where 32-bit arithmetic would show.
      const base = 2 ** 41;
      const tree = new IntervalTree<number>();
      let naive: IntervalNode<number>[] = [];
      let next = 0;
      for (const s of steps) {
        if (s.op === "insert") {
          naive.push(tree.insert(base + s.start, base + s.start + s.length, next++));
        } else if (s.op === "remove" && naive.length > 0) {
          const victim = naive[s.pick % naive.length];
          expect(tree.remove(victim)).toBe(true);
          expect(tree.remove(victim)).toBe(false);
          naive = naive.filter((node) => node !== victim);
        } else if (s.op === "query") {
          const start = base + s.start;
          const end = start + s.length;
          const starts: number[] = [];
          const found: number[] = [];
          tree.forEachOverlap(start, end, (value, from, to) => {
            starts.push(from);
            found.push(value);
            expect(from < end && to > start).toBe(true);
          });
          const expected = naive.filter((n) => n.start < end && n.end > start).map((n) => n.value);
          expect(found.toSorted((a, b) => a - b)).toEqual(expected.toSorted((a, b) => a - b));
          expect(starts).toEqual(starts.toSorted((a, b) => a - b));
        }
        expect(tree.size).toBe(naive.length);
      }
      expect([...tree].toSorted((a, b) => a - b)).toEqual(naive.map((n) => n.value).toSorted((a, b) => a - b));
    }),
  );
});

test("stays shallow when intervals arrive in order", () => {
  const tree = new IntervalTree<number>();
  for (let i = 0; i < 50_000; i++) {
    tree.insert(i * 2, i * 2 + 1, i);
  }
  // An unbalanced tree would be a list, and this search a recursion of 50,000 levels.
  expect(overlaps(tree, 60_000, 60_005)).toEqual([30_000, 30_001, 30_002]);
});

test("I-COLL-1: a search that changes the tree is reported", () => {
  const tree = new IntervalTree<number>();
  const node = tree.insert(0, 10, 1);
  expect(() => tree.forEachOverlap(0, 10, () => tree.insert(1, 2, 2))).toThrow(BugError);
  expect(() => tree.forEachOverlap(0, 10, () => tree.remove(node))).toThrow("I-COLL-1");
  expect(tree.remove(node)).toBe(true);
});

test("I-COLL-2: empty intervals and handles of another tree are refused", () => {
  const tree = new IntervalTree<number>();
  expect(() => tree.insert(5, 5, 0)).toThrow("I-COLL-2");
  const other = new IntervalTree<number>();
  expect(() => other.remove(tree.insert(1, 2, 0))).toThrow("I-COLL-2");
});
