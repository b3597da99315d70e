/**
 * The order of all lock classes, outermost first, as data. Lockdep reports a task that takes a class while it holds one
 * that stands further down, even when nobody has yet taken them the other way round.
 */

/**
 * - `validity`: nobody holds it; {@link mightWaitFor} names it where a driver waits for a range to become valid. It is
 *   outermost, so that this wait is reported under any lock.
 * - `mmap`: `mm.mmapLock`.
 * - `srcu`: a read section, which never blocks; waiting for its grace period does.
 * - `mirrors`: `hmm.mirrorsSem`. `update`: the lock a driver takes in its sync callback and around valid + commit.
 */
export const LOCK_ORDER = ["validity", "mmap", "srcu", "mirrors", "update"] as const;

/**
 * The class of a lock: what lockdep orders. A driver's further locks are named `x-…`; they have no fixed place, lockdep
 * learns it from the first order it sees.
 */
export type LockClass = (typeof LOCK_ORDER)[number] | `x-${string}`;

const ranks: ReadonlyMap<LockClass, number> = new Map(LOCK_ORDER.map((cls, rank) => [cls, rank]));

/** The place in {@link LOCK_ORDER}, or undefined for a class of a driver's own. */
export function lockRank(cls: LockClass): number | undefined {
  return ranks.get(cls);
}
