/** After each test: a WARN fails the test that caused it unless the test took it, and nothing may be left in the leak ledger. */
import { afterEach, beforeEach, expect } from "vitest";
import { ledgerCounts, setBugHandler } from "../base/index.ts";
import { bugs } from "./bugs.ts";

let before: ReturnType<typeof ledgerCounts> = {};

setBugHandler((bug) => bugs.push(bug));

beforeEach(() => {
  bugs.length = 0;
  before = ledgerCounts();
});

afterEach(() => {
  expect(
    bugs.map((bug) => bug.message),
    "BugError reports that the test did not expect",
  ).toEqual([]);
  expect(ledgerCounts(), "the leak ledger must be back where the test started").toEqual(before);
});
