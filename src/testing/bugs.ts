import type { BugError } from "../base/index.ts";

/** Reports since the last {@link takeBugs}. */
export const bugs: BugError[] = [];

/** Takes the reports that a test provoked; returns their invariant ids in order. */
export function takeBugs(): string[] {
  return bugs.splice(0).map((bug) => bug.invariant);
}
