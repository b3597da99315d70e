/** Properties whose runs take long: over devices, and with tasks that may fail differently each time. */
import fc from "fast-check";

/** How long something smaller is looked for that fails, too: a failure is to be told before the test's time is over. */
const SHRINK_MS = 45_000;

/**
 * As `fc.assert`, but the example that failed is made smaller for a short time only, and is told as it is when it does not
 * fail again.
 */
export async function assertProperty<T>(
  property: fc.IAsyncProperty<T>,
  parameters: fc.Parameters<T>,
  shrinkMs = SHRINK_MS,
): Promise<void> {
  const found = await fc.check(property, { ...parameters, endOnFailure: true });
  if (!found.failed) {
    return;
  }
  const { seed, counterexamplePath } = found;
  const again = { seed, path: counterexamplePath ?? "", numRuns: 1, skipAllAfterTimeLimit: shrinkMs };
  const smaller = await fc.check(property, { ...parameters, ...again });
  const told = smaller.failed && smaller.counterexample !== null ? smaller : found;
  throw new Error(await fc.asyncDefaultReportMessage(told), { cause: told.errorInstance });
}
