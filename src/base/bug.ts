/** Broken invariants: the library's own mistakes and contract violations by drivers. */

/** An invariant does not hold. Names it as in INVARIANTS.md. */
export class BugError extends Error {
  override readonly name = "BugError";
  readonly invariant: string;

  constructor(invariantId: string, message: string) {
    super(`${invariantId}: ${message}`);
    this.invariant = invariantId;
  }
}

/** What becomes of a report that the program survives. */
export type BugHandler = (bug: BugError) => void;

const reportOnConsole: BugHandler = (bug) => console.error(bug);
let handler: BugHandler = reportOnConsole;

/** Replaces what happens to a {@link warnOn} report; returns the former handler. The default prints to the console. */
export function setBugHandler(next: BugHandler | undefined): BugHandler {
  const former = handler;
  handler = next ?? reportOnConsole;
  return former;
}

/**
 * Reports a broken contract and lets the caller carry on. Returns the condition.
 * @linux include/asm-generic/bug.h WARN_ON
 */
export function warnOn(condition: boolean, invariantId: string, message: () => string): boolean {
  if (condition) {
    handler(new BugError(invariantId, message()));
  }
  return condition;
}

/**
 * Throws where carrying on would corrupt memory.
 * @linux include/asm-generic/bug.h BUG_ON
 */
export function bugOn(condition: boolean, invariantId: string, message: () => string): asserts condition is false {
  if (condition) {
    throw new BugError(invariantId, message());
  }
}

/** {@link bugOn} with the condition that must hold. */
export function invariant(condition: boolean, invariantId: string, message: () => string): asserts condition {
  if (!condition) {
    throw new BugError(invariantId, message());
  }
}
