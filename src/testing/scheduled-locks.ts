/** Locks whose turns fast-check chooses. */
import type fc from "fast-check";

/** A method that waits. */
type Async = (...args: never[]) => Promise<unknown>;

/** Makes whoever takes one of the locks wait for its turn in the schedule first. With `slow` no try succeeds: all go the long way. */
export function scheduleLocks(s: fc.Scheduler, locks: readonly object[], slow: boolean): void {
  for (const lock of locks as readonly Record<string, Async>[]) {
    for (const method of ["read", "write", "lock"].filter((name) => typeof lock[name] === "function")) {
      schedule(s, lock, method);
    }
    if (slow) {
      (lock as { tryLock: unknown }).tryLock = () => undefined;
    }
  }
}

function schedule(s: fc.Scheduler, target: Record<string, Async>, method: string): void {
  const original = target[method].bind(target) as (...args: unknown[]) => Promise<unknown>;
  target[method] = (async (...args: unknown[]) => {
    await s.schedule(Promise.resolve(), method);
    return await original(...args);
  }) as Async;
}
