import { expect, test } from "vitest";
import { PAGES_PER_BLOCK } from "../../base/index.ts";
import { ReadAhead } from "./read-ahead.ts";

/** Blocks that are asked for when an access is at a page. */
function asked(ahead: ReadAhead, page: number, limit = Number.POSITIVE_INFINITY, brings = true): number[] {
  const blocks: number[] = [];
  for (let from = ahead.next(page, limit); from >= 0; from = ahead.next(page, limit)) {
    blocks.push(from / PAGES_PER_BLOCK);
    if (brings) {
      ahead.brought();
    }
  }
  return blocks;
}

test("an access in order has more and more blocks on their way, each asked for once", () => {
  const ahead = new ReadAhead();
  expect(asked(ahead, 16)).toEqual([1, 2]);
  expect(asked(ahead, 80)).toEqual([3, 4]);
  expect(asked(ahead, 100)).toEqual([5, 6, 7, 8]);
  expect(asked(ahead, 200)).toEqual([]);
  expect(asked(ahead, PAGES_PER_BLOCK)).toEqual([9]);
  expect(asked(ahead, 2 * PAGES_PER_BLOCK + 3)).toEqual([10]);
});

test("where nothing is on a device it stays at two blocks, and at the end there is nothing", () => {
  const ahead = new ReadAhead();
  expect(asked(ahead, 0, 4 * PAGES_PER_BLOCK, false)).toEqual([1, 2]);
  expect(asked(ahead, 1, 4 * PAGES_PER_BLOCK, false)).toEqual([]);
  expect(asked(ahead, PAGES_PER_BLOCK, 4 * PAGES_PER_BLOCK, false)).toEqual([3]);
  expect(asked(ahead, 3 * PAGES_PER_BLOCK, 4 * PAGES_PER_BLOCK, false)).toEqual([]);
});

test("another access begins anew, also before where the last one was", () => {
  const ahead = new ReadAhead();
  asked(ahead, 0);
  asked(ahead, 1);
  ahead.restart();
  expect(asked(ahead, 5)).toEqual([1, 2]);
  ahead.restart();
  expect(asked(ahead, 40 * PAGES_PER_BLOCK)).toEqual([41, 42]);
  expect(asked(ahead, 60 * PAGES_PER_BLOCK)).toEqual([61, 62, 63, 64]);
});
