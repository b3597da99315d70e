import { expect, test } from "vitest";
import { ReadAhead } from "./read-ahead.ts";

const K = 1024;

test("a read that continues no other gets what it asks for", () => {
  const ahead = new ReadAhead(64 * K, 1024 * K);
  for (const start of [0, 400 * K, 100 * K, 12 * K, 404 * K + 1]) {
    expect(ahead.extend(start, start + 4 * K)).toBe(start + 4 * K);
  }
});

test("a sequence fetches a window that doubles up to the most, renewed when half of it is read", () => {
  const ahead = new ReadAhead(64 * K, 256 * K);
  const fetched: number[] = [];
  for (let at = 0; at < 1024 * K; at += 32 * K) {
    fetched.push(ahead.extend(at, at + 32 * K) / K);
  }
  expect([...new Set(fetched)]).toEqual([32, 64, 224, 416, 544, 672, 800, 928, 1056, 1184]);
});

test("a short sequence, such as the pages of a cluster, fetches nothing ahead", () => {
  const ahead = new ReadAhead(64 * K, 256 * K);
  for (let at = 0; at < 64 * K; at += 4 * K) {
    expect(ahead.extend(at, at + 4 * K)).toBe(at + 4 * K);
  }
  expect(ahead.extend(64 * K, 68 * K)).toBe(196 * K);
});

test("reads longer than the window double it from their own length", () => {
  const ahead = new ReadAhead(64 * K, 4096 * K);
  expect(ahead.extend(0, 512 * K)).toBe(512 * K);
  expect(ahead.extend(512 * K, 1024 * K)).toBe(2048 * K);
});

test("eight sequences are followed at the same time, and of more the latest eight", () => {
  const ahead = new ReadAhead(4 * K, 1024 * K);
  const starts = Array.from({ length: 8 }, (_, i) => i * 2 ** 30);
  for (const start of starts) {
    ahead.extend(start, start + 4 * K);
  }
  for (const start of starts) {
    expect(ahead.extend(start + 4 * K, start + 8 * K)).toBe(start + 16 * K);
  }
  ahead.extend(2 ** 40, 2 ** 40 + 4 * K);
  expect(ahead.extend(2 ** 30 + 8 * K, 2 ** 30 + 12 * K)).toBe(2 ** 30 + 28 * K);
  expect(ahead.extend(8 * K, 12 * K), "the ninth has pushed out the first").toBe(12 * K);
});

test("nothing is fetched ahead when the most is 0", () => {
  const ahead = new ReadAhead(64 * K, 0);
  for (let at = 0; at < 128 * K; at += 4 * K) {
    expect(ahead.extend(at, at + 4 * K)).toBe(at + 4 * K);
  }
});
