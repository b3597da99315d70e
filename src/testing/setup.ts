/**
 * Runs before each test file: a WARN fails the test that caused it unless the test took it with `takeBugs()`, and lockdep
 * watches every task.
 */
import { afterEach, beforeEach, expect } from "vitest";
import { type BugError, ledgerCounts, setBugHandler } from "../base/index.ts";
import { createLockdepContext } from "../platform/node/lockdep-context.ts";
import { setLockdepContext } from "../sync/index.ts";
import { bugs } from "./bugs.ts";

let before: ReturnType<typeof ledgerCounts> = {};

setBugHandler((bug: BugError) => bugs.push(bug));
setLockdepContext(createLockdepContext());

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
