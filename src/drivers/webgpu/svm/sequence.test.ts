import { expect, test } from "vitest";
import { SequencePredictor } from "./sequence.ts";

const pages = (start: number, end: number, write = false) =>
  Array.from({ length: end - start }, (_, i) => ({ page: start + i, write }));

const ranges = (predictor: SequencePredictor, ratio = 1) => {
  const found = predictor.predict(ratio);
  return found.map(({ page, write }) => (write ? -page : page));
};

test("two slices of a stream predict the third, for each array that is streamed", () => {
  const predictor = new SequencePredictor();
  predictor.note([...pages(0, 8), ...pages(100, 108, true)], 0, 16);
  expect(ranges(predictor)).toEqual([]);
  predictor.note([...pages(8, 16), ...pages(107, 116, true)], 0, 17);
  expect(ranges(predictor)).toEqual([...pages(16, 24).map((p) => p.page), ...pages(116, 125).map((p) => -p.page)]);
});

test("a slice of another size asks for as much more or less", () => {
  const predictor = new SequencePredictor();
  predictor.note(pages(0, 8), 0, 8);
  predictor.note(pages(8, 16), 0, 8);
  expect(ranges(predictor, 0.5)).toEqual([16, 17, 18, 19]);
});

test("the slice after the next one is predicted, and that a prediction was right is known", () => {
  const predictor = new SequencePredictor();
  predictor.note(pages(0, 8), 0, 8);
  predictor.note(pages(8, 16), 0, 8);
  expect(predictor.wasRight).toBe(false);
  expect(predictor.pages).toBe(8);
  expect(predictor.predict(0.5, 1).map(({ page }) => page)).toEqual([24, 25, 26, 27]);
  predictor.note(pages(16, 25), 8, 1);
  expect(predictor.wasRight).toBe(true);
  predictor.note(pages(25, 36), 8, 3);
  expect(predictor.wasRight).toBe(false);
  expect(predictor.pages).toBe(0);
});

test("scattered pages predict nothing, and a wrong prediction ends the predicting", () => {
  const predictor = new SequencePredictor();
  predictor.note(
    [3, 90, 17, 40].map((page) => ({ page, write: false })),
    0,
    4,
  );
  predictor.note(
    [5, 91, 18, 44].map((page) => ({ page, write: false })),
    0,
    4,
  );
  expect(ranges(predictor)).toEqual([]);
  predictor.note(pages(0, 8), 0, 8);
  predictor.note(pages(8, 16), 0, 8);
  expect(ranges(predictor)).toHaveLength(8);
  predictor.note([...pages(16, 24), ...pages(60, 68)], 8, 8);
  expect(ranges(predictor)).toEqual([]);
});

test("a stream goes on over what a prefetch brought, and a step over what nobody brought is none", () => {
  const predictor = new SequencePredictor();
  // The slice uses 10 pages; those behind the first 7 of each were brought beside them.
  const isThere = (page: number) => [7, 8, 9, 14, 15, 18, 19].includes(page);
  predictor.note(pages(0, 7), 0, 7, isThere);
  predictor.note([...pages(10, 14), ...pages(16, 18)], 0, 6, isThere);
  expect(ranges(predictor)).toEqual(pages(18, 29).map(({ page }) => page));
  const stepping = new SequencePredictor();
  stepping.note(pages(0, 7), 0, 7);
  stepping.note(pages(10, 18), 0, 8, (page) => page === 7);
  expect(ranges(stepping)).toEqual([]);
});
