/**
 * Lockdep: finds lock orders that can deadlock, from runs in which they did not.
 *
 * A *task* is what a kernel thread is in Linux: the locks it holds are held in order. Which task is running comes through
 * an injected port, because the only thing that follows a task across `await` is Node's AsyncLocalStorage. Without a
 * context (browsers, production) every function here returns at once.
 */
import { BugError } from "../base/index.ts";
import { type LockClass, lockRank } from "./lock-order.ts";

/** A class that a task holds. Shared with the tasks that inherited it, so that a release is seen by all. */
export interface LockdepHold {
  readonly cls: LockClass;
  readonly lock: object;
  live: boolean;
}

/** A flow of control and what it holds. */
export interface LockdepTask {
  readonly name: string;
  readonly held: Set<LockdepHold>;
}

/** Finds the running task, across `await`. */
export interface LockdepContext {
  current(): LockdepTask | undefined;
  run<T>(task: LockdepTask, body: () => T): T;
}

interface Edge {
  readonly task: string;
  readonly stack: string;
}

let context: LockdepContext | undefined;
/** `after.get(a)?.has(b)`: somebody took b while holding a. */
const after = new Map<LockClass, Map<LockClass, Edge>>();

/** Switches lockdep on (with a context) or off (undefined); returns the former context. */
export function setLockdepContext(next: LockdepContext | undefined): LockdepContext | undefined {
  const former = context;
  context = next;
  return former;
}

/** Forgets all orders learnt. For tests that teach wrong ones. */
export function lockdepReset(): void {
  after.clear();
}

/**
 * Runs `body` as a task of its own. It inherits what its caller holds, as a called function would; branches that run
 * side by side (`Promise.all`) each need a task, or they seem to hold each other's locks.
 */
export function lockdepTask<T>(name: string, body: () => T): T {
  if (context === undefined) {
    return body();
  }
  const inherited = [...(context.current()?.held ?? [])].filter((hold) => hold.live);
  return context.run({ name, held: new Set(inherited) }, body);
}

/** Runs `body` as a task that nobody waits for: it holds nothing of what its caller holds. */
export function lockdepDetached<T>(name: string, body: () => T): T {
  return context === undefined ? body() : context.run({ name, held: new Set() }, body);
}

/** Whether the running task holds the class. Always false while lockdep is off or outside of a task. */
export function lockdepHolds(cls: LockClass): boolean {
  for (const hold of context?.current()?.held ?? []) {
    if (hold.live && hold.cls === cls) {
      return true;
    }
  }
  return false;
}

/**
 * To be called before waiting for a lock.
 * @throws BugError I-SYNC-4 when this task holds the class already; I-SYNC-3 when the order can deadlock.
 */
export function lockdepAcquire(cls: LockClass, lock: object): void {
  const task = context?.current();
  if (task === undefined) {
    return;
  }
  for (const hold of task.held) {
    if (!hold.live) {
      task.held.delete(hold);
    } else if (hold.cls === cls) {
      throw new BugError("I-SYNC-4", describeRecursion(task, cls, hold.lock === lock));
    } else {
      checkOrder(task, hold.cls, cls);
    }
  }
}

/** Records that the running task now holds the class. Undefined when nothing is tracked. */
export function lockdepAcquired(cls: LockClass, lock: object): LockdepHold | undefined {
  const task = context?.current();
  if (task === undefined) {
    return undefined;
  }
  const hold: LockdepHold = { cls, lock, live: true };
  task.held.add(hold);
  return hold;
}

/** Records a release, from any task. */
export function lockdepRelease(hold: LockdepHold | undefined): void {
  if (hold !== undefined) {
    hold.live = false;
    context?.current()?.held.delete(hold);
  }
}

/** Records that the running task left the innermost section of a class it holds, where no hold was kept to name it. */
export function lockdepReleaseInnermost(cls: LockClass, lock: object): void {
  const holds = [...(context?.current()?.held ?? [])];
  lockdepRelease(holds.findLast((hold) => hold.live && hold.cls === cls && hold.lock === lock));
}

/**
 * Says that the running task may now wait for whoever is inside `cls` to leave it: checked as taking it and giving it back.
 * @throws BugError I-SYNC-4 or I-SYNC-3, as {@link lockdepAcquire}.
 * @linux include/linux/lockdep.h might_lock
 */
export function mightWaitFor(cls: LockClass): void {
  if (context !== undefined) {
    lockdepAcquire(cls, context);
  }
}

function describeRecursion(task: LockdepTask, cls: LockClass, sameLock: boolean): string {
  return sameLock
    ? `task "${task.name}" takes a ${cls} lock that it holds: it deadlocks as soon as a writer waits in between; pass the guard down instead`
    : `task "${task.name}" takes a second lock of class ${cls}: nothing orders the two; give the inner one a class of its own`;
}

function checkOrder(task: LockdepTask, held: LockClass, wanted: LockClass): void {
  const known = after.get(held);
  if (known?.has(wanted) === true) {
    return;
  }
  const heldRank = lockRank(held);
  const wantedRank = lockRank(wanted);
  if (heldRank !== undefined && wantedRank !== undefined && wantedRank < heldRank) {
    throw new BugError(
      "I-SYNC-3",
      `task "${task.name}" takes ${wanted} under ${held}, against the order of LOCK_ORDER`,
    );
  }
  const path = findPath(wanted, held, new Set());
  if (path !== undefined) {
    const taught = path.map(([from, to, edge]) => `${from} -> ${to}, seen in task "${edge.task}":\n${edge.stack}`);
    throw new BugError(
      "I-SYNC-3",
      `task "${task.name}" takes ${wanted} under ${held}, but the other way round was seen before:\n${taught.join("\n")}`,
    );
  }
  const edge: Edge = { task: task.name, stack: new Error(`${held} -> ${wanted}`).stack ?? "" };
  if (known === undefined) {
    after.set(held, new Map([[wanted, edge]]));
  } else {
    known.set(wanted, edge);
  }
}

type Step = readonly [from: LockClass, to: LockClass, edge: Edge];

function findPath(from: LockClass, to: LockClass, seen: Set<LockClass>): Step[] | undefined {
  seen.add(from);
  for (const [next, edge] of after.get(from) ?? []) {
    const rest = next === to ? [] : seen.has(next) ? undefined : findPath(next, to, seen);
    if (rest !== undefined) {
      return [[from, next, edge], ...rest];
    }
  }
  return undefined;
}
