/**
 * Runs before each test file in Chromium, as src/testing/setup.ts does in Node: a WARN fails the test that caused it, and
 * nothing may be left in the leak ledger. Without lockdep: a browser does not tell which task goes on after an `await`.
 */
import { afterEach, beforeEach, expect } from "vitest";
import { ledgerCounts, setBugHandler } from "../../src/base/index.ts";
import { bugs } from "../../src/testing/bugs.ts";

// What the tests give way with: after the tasks that are waiting, as in Node.
const channel = new MessageChannel();
const waiting: (() => void)[] = [];
channel.port1.onmessage = () => waiting.shift()?.();
Object.assign(globalThis, {
  setImmediate: (task: () => void) => {
    waiting.push(task);
    channel.port2.postMessage(0);
  },
});

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
