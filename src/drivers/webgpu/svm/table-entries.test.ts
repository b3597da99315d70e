import { expect, test } from "vitest";
import { TableEntries } from "./table-entries.ts";

test("an entry is that of the page's state, whether the device has it yet or not", () => {
  const state = [5, 6, 7];
  const entries = new TableEntries((page) => state[page]);
  expect(entries.at(1)).toBe(0);
  entries.grow(3);
  entries.noteChange(1);
  expect([-1, 0, 1, 2, 3].map((page) => entries.at(page))).toEqual([0, 0, 6, 0, 0]);
  state[1] = 8;
  expect(entries.at(1)).toBe(8);
  const written: number[][] = [];
  entries.flush((words, first, end) => written.push([first, end, ...words]));
  expect(written).toEqual([[1, 2, 0, 8, 0]]);
  expect(entries.at(1)).toBe(8);
  state[1] = 9;
  entries.noteChange(1);
  expect(entries.at(1)).toBe(9);
});
