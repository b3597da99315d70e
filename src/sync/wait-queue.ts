/** Waiting for a condition that somebody else makes true. */
import { throwIfAborted } from "../base/index.ts";
import { armWait, interrupted, type WaitOptions } from "./wait-options.ts";

interface Waiter {
  wake(): void;
}

/**
 * Tasks that wait until a condition holds. Whoever may have made one true calls {@link wakeAll}.
 * @linux include/linux/wait.h struct wait_queue_head
 */
export class WaitQueue {
  readonly #waiters = new Set<Waiter>();

  /** How many wait. */
  get size(): number {
    return this.#waiters.size;
  }

  /**
   * Waits until the condition holds. True when it does; false when `timeoutMs` passed first. The condition held when the
   * wait ended: it may not any more when the caller goes on.
   * @throws KernelError EINTR when the signal fires first.
   * @linux include/linux/wait.h wait_event_timeout
   */
  async wait(condition: () => boolean, options?: WaitOptions): Promise<boolean> {
    throwIfAborted(options?.signal, "wait");
    if (condition()) {
      return true;
    }
    return new Promise((resolve, reject) => {
      const end = (finish: () => void): void => {
        disarm();
        this.#waiters.delete(waiter);
        finish();
      };
      const waiter: Waiter = {
        wake: () => {
          try {
            if (condition()) {
              end(() => resolve(true));
            }
          } catch (error) {
            end(() => reject(error));
          }
        },
      };
      const disarm = armWait(
        options,
        (signal) => end(() => reject(interrupted("wait", signal))),
        () => end(() => resolve(false)),
      );
      this.#waiters.add(waiter);
    });
  }

  /** Lets each waiter look at its condition again. @linux include/linux/wait.h wake_up_all */
  wakeAll(): void {
    for (const waiter of [...this.#waiters]) {
      waiter.wake();
    }
  }
}
