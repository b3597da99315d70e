/** After each test: a WARN fails the test that caused it unless the test took it, and nothing may be left in the leak ledger. */
import { afterEach, beforeEach, expect } from "vitest";
import { ledgerCounts, ledgerKeepStacks, ledgerStacks, setBugHandler } from "../base/index.ts";
import { bugs } from "./bugs.ts";

/** `LEAK_STACKS=1`: a test that leaks says where each object that is left was made. A stack an object is slow. */
const keepsStacks = Boolean(process.env.LEAK_STACKS);
let before: ReturnType<typeof ledgerCounts> = {};

setBugHandler((bug) => bugs.push(bug));

beforeEach(() => {
  bugs.length = 0;
  before = ledgerCounts();
  ledgerKeepStacks(keepsStacks);
});

afterEach(() => {
  expect(
    bugs.map((bug) => bug.message),
    "BugError reports that the test did not expect",
  ).toEqual([]);
  const made = ledgerStacks().map(({ stack }) => stack);
  const hint = keepsStacks ? made.join("\n") : "LEAK_STACKS=1 tells where they were made";
  expect(ledgerCounts(), `the leak ledger must be back where the test started. ${hint}`).toEqual(before);
});
