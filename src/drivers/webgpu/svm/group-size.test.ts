import { expect, test } from "vitest";
import { GroupSize } from "./group-size.ts";

/** Rounds of as many as it says, of `all`; `turns` and `crowded` say how `count` of them do. Returns the counts. */
function run(all: number, rounds: number, turns: (count: number) => number, crowded: (count: number) => boolean) {
  const size = new GroupSize(all);
  return Array.from({ length: rounds }, () => {
    const count = Math.min(all, size.most);
    size.note(count, turns(count), crowded(count));
    return count;
  });
}

test("those that come back to pages of their own end up as many as fit", () => {
  // Three fit: each does a hundred turns then, and one when they do not.
  const counts = run(
    256,
    400,
    (n) => (n <= 3 ? n * 100 : 4),
    (n) => n > 3,
  );
  expect(counts.slice(200).filter((n) => n > 3).length).toBeLessThan(40);
});

test("those that use the same pages stay together, however much they miss", () => {
  const counts = run(
    4096,
    400,
    (n) => n,
    () => true,
  );
  expect(counts.slice(200).filter((n) => n < 4096).length).toBeLessThan(40);
});

test("when nobody comes further there are half as many, down to one", () => {
  const size = new GroupSize(Number.POSITIVE_INFINITY);
  size.halve(7);
  expect(size.most).toBe(3);
  size.halve(3);
  size.halve(1);
  expect(size.most).toBe(1);
});

test("few that go well become more again", () => {
  const size = new GroupSize(Number.POSITIVE_INFINITY);
  size.halve(2);
  for (let round = 0; round < 100; round++) {
    size.note(size.most, size.most, false);
  }
  expect(size.most).toBeGreaterThan(64);
});

test("a few to begin with become all where that pays, and stay few where it does not", () => {
  const sizes = [(n: number) => n, (n: number) => Math.min(n, 1.1)].map((turns) => {
    const size = new GroupSize(1);
    for (let round = 0; round < 200; round++) {
      const count = Math.min(4096, size.most);
      size.note(count, turns(count), false);
    }
    return size.most;
  });
  expect(sizes[0]).toBeGreaterThanOrEqual(4096);
  expect(sizes[1]).toBeLessThanOrEqual(4);
});
