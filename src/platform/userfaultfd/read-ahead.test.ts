import { expect, test } from "vitest";
import { PAGES_PER_BLOCK } from "../../base/index.ts";
import { ReadAhead, Streams } from "./read-ahead.ts";

/** Blocks that are asked for when an access is at a page. */
function asked(ahead: ReadAhead, page: number, limit = Number.POSITIVE_INFINITY, brings = true): number[] {
  const blocks: number[] = [];
  for (let from = ahead.next(page, limit); from >= 0; from = ahead.next(page, limit)) {
    for (let block = from / PAGES_PER_BLOCK; block < ahead.end / PAGES_PER_BLOCK; block++) {
      blocks.push(block);
    }
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
  expect(asked(ahead, PAGES_PER_BLOCK)).toEqual([]);
  expect(asked(ahead, 2 * PAGES_PER_BLOCK + 3)).toEqual([9, 10]);
  expect(asked(ahead, 6 * PAGES_PER_BLOCK + 3)).toEqual([11, 12, 13, 14]);
});

test("blocks come two at a time once the access has gone on for long", () => {
  const ahead = new ReadAhead();
  for (const page of [0, 1, 2]) {
    asked(ahead, page);
  }
  expect([ahead.next(4 * PAGES_PER_BLOCK, 10 * PAGES_PER_BLOCK), ahead.end]).toEqual([9, 11].map((b) => b * 512));
});

test("accesses that go on by turns are told apart, and those that were met longest ago are forgotten", () => {
  const streams = new Streams();
  const pages = Array.from({ length: 8 }, (_, i) => 1000 * i);
  for (const page of pages) {
    streams.begin(page);
  }
  const known = pages.map((page) => streams.find(page));
  expect(new Set(known).size).toBe(8);
  expect(known).not.toContain(undefined);
  expect(streams.find(1)).toBeUndefined();
  streams.begin(1);
  expect(pages.map((page) => streams.find(page))).toEqual([undefined, ...known.slice(1)]);
  expect(streams.find(1)).toBeDefined();
});

test("an access goes on behind the pages that were shown, whoever had them shown", () => {
  const streams = new Streams();
  streams.begin(16);
  const known = streams.find(16);
  streams.passed(0, 16, { firstHidden: () => 99 });
  expect(streams.find(16)).toBe(known);
  streams.passed(16, 64, { firstHidden: (page) => page + 48 });
  expect([streams.find(16), streams.find(64)]).toEqual([undefined, known]);
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
