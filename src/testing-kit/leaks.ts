/** Nothing may be left of what a test made, and nothing may go wrong when memory runs out. */
import { KernelError, ledgerCounts, setBugHandler } from "../base/index.ts";
import type { PhysicalMemory } from "../mm/index.ts";

/**
 * Runs `body`, and fails when something that it made is still there afterwards (references, frames, buffers, subscriptions),
 * or when a broken invariant was reported meanwhile.
 * @throws Error that names what is left, or the first report
 */
export async function withoutLeaks<T>(body: () => Promise<T>): Promise<T> {
  const before = ledgerCounts();
  const bugs: Error[] = [];
  const former = setBugHandler((bug) => bugs.push(bug));
  let result: T;
  try {
    result = await body();
  } finally {
    setBugHandler(former);
  }
  const [bug] = bugs;
  if (bug !== undefined) {
    throw bug;
  }
  const after = ledgerCounts();
  const kinds = Object.keys({ ...before, ...after }) as (keyof typeof after)[];
  const left = kinds
    .map((kind) => ({ kind, more: (after[kind] ?? 0) - (before[kind] ?? 0) }))
    .filter(({ more }) => more !== 0)
    .map(({ kind, more }) => `${more} x ${kind}`);
  if (left.length > 0) {
    throw new Error(`left at the end: ${left.join(", ")}`);
  }
  return result;
}

/**
 * Runs `body` again and again: the first time its first allocation fails, then its second, and so on, until it succeeds.
 * `body` makes and gives back everything itself. Returns how many allocations it made.
 * @throws Error when it fails with anything but ENOMEM, or never succeeds
 */
export async function failEachAllocation(memory: PhysicalMemory, body: () => Promise<unknown>): Promise<number> {
  for (let n = 0; n < 10_000; n++) {
    memory.failAfter(n);
    try {
      await body();
      return n;
    } catch (error) {
      if (!(error instanceof KernelError) || error.code !== "ENOMEM") {
        throw error;
      }
    } finally {
      memory.failAfter();
    }
  }
  throw new Error("it does not succeed even with 10,000 allocations");
}
