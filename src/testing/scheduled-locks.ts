/** Locks whose turns fast-check chooses. */
import type fc from "fast-check";

/** A method that waits. */
export type Async = (...args: never[]) => Promise<unknown>;

/** Makes a method wait for its turn in the schedule before it begins. */
export function schedule<K extends string>(s: fc.Scheduler, target: Record<K, Async>, method: K): void {
  const original = target[method].bind(target) as (...args: unknown[]) => Promise<unknown>;
  target[method] = (async (...args: unknown[]) => {
    await s.schedule(Promise.resolve(), method);
    return await original(...args);
  }) as Async;
}
