/** Lockdep's context on Node: the running task follows `await` through AsyncLocalStorage. */
import { AsyncLocalStorage } from "node:async_hooks";
import type { LockdepContext, LockdepTask } from "../../sync/index.ts";

/** For `setLockdepContext`, in development and tests. */
export function createLockdepContext(): LockdepContext {
  const storage = new AsyncLocalStorage<LockdepTask>();
  return {
    current: () => storage.getStore(),
    run: (task, body) => storage.run(task, body),
  };
}
