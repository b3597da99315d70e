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
  predictor.note([...pages(0, 8), ...pages(100, 108, true)], 16);
  expect(ranges(predictor)).toEqual([]);
  predictor.note([...pages(8, 16), ...pages(107, 116, true)], 17);
  expect(ranges(predictor)).toEqual([...pages(16, 24).map((p) => p.page), ...pages(116, 125).map((p) => -p.page)]);
});

test("a slice of another size asks for as much more or less", () => {
  const predictor = new SequencePredictor();
  predictor.note(pages(0, 8), 8);
  predictor.note(pages(8, 16), 8);
  expect(ranges(predictor, 0.5)).toEqual([16, 17, 18, 19]);
});

test("scattered pages predict nothing, and a wrong prediction ends the predicting", () => {
  const predictor = new SequencePredictor();
  predictor.note(
    [3, 90, 17, 40].map((page) => ({ page, write: false })),
    4,
  );
  predictor.note(
    [5, 91, 18, 44].map((page) => ({ page, write: false })),
    4,
  );
  expect(ranges(predictor)).toEqual([]);
  predictor.note(pages(0, 8), 8);
  predictor.note(pages(8, 16), 8);
  expect(ranges(predictor)).toHaveLength(8);
  predictor.note([...pages(16, 24), ...pages(60, 68)], 8);
  expect(ranges(predictor)).toEqual([]);
});
