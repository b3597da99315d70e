/** Sleepable read-copy-update: frees what readers may still look at, once they are gone. */
import { bugOn, finallyDo, type MaybePromise, warnOn } from "../base/index.ts";
import {
  type LockdepHold,
  lockdepAcquired,
  lockdepRelease,
  lockdepReleaseInnermost,
  lockdepTask,
  mightWaitFor,
} from "./lockdep.ts";

/**
 * Read sections that may `await`, and work that waits for them.
 *
 * Readers are counted under one of two indices. A grace period flips the index, so that new readers count elsewhere, and
 * ends when the old index is empty: a stream of overlapping readers cannot hold it up. Everything queued while one
 * grace period runs shares the next.
 * @linux include/linux/srcu.h struct srcu_struct
 */
export class Srcu {
  readonly #readers: [number, number] = [0, 0];
  #index: 0 | 1 = 0;
  /** Callbacks of the grace period that runs, and those that wait for the next. */
  #current: (() => void)[] = [];
  #next: (() => void)[] = [];
  #state: "idle" | "scheduled" | "draining" = "idle";

  /** Whether any read section is open. */
  get hasReaders(): boolean {
    return this.#readers[0] + this.#readers[1] > 0;
  }

  /** Enters a read section; never waits. Give what it returns to {@link readUnlock}. @linux include/linux/srcu.h srcu_read_lock */
  readLock(): number {
    lockdepAcquired("srcu", this);
    this.#readers[this.#index]++;
    return this.#index;
  }

  /**
   * Leaves a read section.
   * @throws BugError I-SYNC-7 when none is open under the index.
   * @linux include/linux/srcu.h srcu_read_unlock
   */
  readUnlock(index: number): void {
    bugOn(!(this.#readers[index as 0 | 1] > 0), "I-SYNC-7", () => `no SRCU read section is open under index ${index}`);
    lockdepReleaseInnermost("srcu", this);
    this.#leave(index as 0 | 1);
  }

  /** Runs `section` inside a read section that ends with it, or with its promise. Synchronous when `section` is. */
  read<T>(section: () => MaybePromise<T>): MaybePromise<T> {
    const index = this.#index;
    this.#readers[index]++;
    let hold: LockdepHold | undefined;
    const leave = (): void => {
      lockdepRelease(hold);
      this.#leave(index);
    };
    return finallyDo(
      () =>
        lockdepTask("srcu read section", () => {
          hold = lockdepAcquired("srcu", this);
          return section();
        }),
      leave,
    );
  }

  /**
   * Runs the callback after all read sections that are open now have ended: once, later, never inside this call. One
   * that throws is reported (I-SYNC-6) and does not stop the others.
   * @linux kernel/rcu/srcutree.c call_srcu
   */
  call(callback: () => void): void {
    this.#next.push(callback);
    this.#schedule();
  }

  /**
   * Resolves when all read sections that are open now have ended.
   * @throws BugError I-SYNC-4 (lockdep) inside a read section, which would wait for itself.
   * @linux kernel/rcu/srcutree.c synchronize_srcu
   */
  async synchronize(): Promise<void> {
    mightWaitFor("srcu");
    await new Promise<void>((resolve) => this.call(resolve));
  }

  /**
   * Resolves when every callback that was queued before has run.
   * @throws BugError I-SYNC-4 (lockdep) inside a read section.
   * @linux kernel/rcu/srcutree.c srcu_barrier
   */
  barrier(): Promise<void> {
    // Callbacks run in the order of their queueing, so one more that resolves is behind all of them.
    return this.synchronize();
  }

  #leave(index: 0 | 1): void {
    this.#readers[index]--;
    if (this.#state === "draining" && index !== this.#index && this.#readers[index] === 0) {
      this.#defer(() => this.#finish());
    }
  }

  #schedule(): void {
    if (this.#state === "idle") {
      this.#state = "scheduled";
      this.#defer(() => this.#begin());
    }
  }

  #begin(): void {
    this.#current = this.#next;
    this.#next = [];
    const old = this.#index;
    this.#index = old === 0 ? 1 : 0;
    this.#state = "draining";
    if (this.#readers[old] === 0) {
      this.#finish();
    }
  }

  #finish(): void {
    const callbacks = this.#current;
    this.#current = [];
    this.#state = "idle";
    for (const callback of callbacks) {
      try {
        callback();
      } catch (error) {
        warnOn(true, "I-SYNC-6", () => `an SRCU callback threw: ${String(error)}`);
      }
    }
    if (this.#next.length > 0) {
      this.#schedule();
    }
  }

  /** Own turn, so that neither call() nor the end of a read section runs callbacks on its caller's stack. */
  #defer(work: () => void): void {
    queueMicrotask(work);
  }
}
