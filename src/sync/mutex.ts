/** A lock with one holder. */
import type { Held } from "./guard.ts";
import type { LockClass } from "./lock-order.ts";
import { RwSemaphore } from "./rw-semaphore.ts";
import type { WaitOptions } from "./wait-options.ts";

/**
 * One holder at a time, first come first served; may be held across `await`.
 * @linux include/linux/mutex.h struct mutex
 */
export class Mutex<C extends LockClass> {
  readonly #sem: RwSemaphore<C>;

  constructor(cls: C) {
    this.#sem = new RwSemaphore(cls);
  }

  get isHeld(): boolean {
    return this.#sem.isHeld;
  }

  /** Takes the lock if that needs no wait. @linux kernel/locking/mutex.c mutex_trylock */
  tryLock(): Held<C, "write"> | undefined {
    return this.#sem.tryWrite();
  }

  /**
   * Takes the lock.
   * @throws KernelError EINTR when the signal fires first; EBUSY when `timeoutMs` passes first.
   * @linux kernel/locking/mutex.c mutex_lock_killable
   */
  lock(options?: WaitOptions): Promise<Held<C, "write">> {
    return this.#sem.write(options);
  }

  /** @throws BugError I-SYNC-2 when nobody holds the lock. @linux include/linux/lockdep.h lockdep_assert_held */
  assertHeld(op: string): void {
    this.#sem.assertHeldWrite(op);
  }
}
