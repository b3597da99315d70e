export { Held, type LockMode, type MmapRead, type MmapWrite } from "./guard.ts";
export { LOCK_ORDER, type LockClass, lockRank } from "./lock-order.ts";
export {
  type LockdepContext,
  type LockdepHold,
  type LockdepTask,
  lockdepDetached,
  lockdepHolds,
  lockdepReset,
  lockdepTask,
  mightWaitFor,
  setLockdepContext,
} from "./lockdep.ts";
export { Mutex } from "./mutex.ts";
export { RwSemaphore } from "./rw-semaphore.ts";
export { Srcu } from "./srcu.ts";
export { assertWait, type WaitOptions } from "./wait-options.ts";
export { WaitQueue } from "./wait-queue.ts";
