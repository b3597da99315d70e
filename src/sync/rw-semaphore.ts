/** A read/write lock that may be held across `await`. */
import { BugError, KernelError, throwIfAborted, trace, traceNow, traceOn } from "../base/index.ts";
import { Held, type LockMode, type LockOwner } from "./guard.ts";
import type { LockClass } from "./lock-order.ts";
import { type LockdepHold, lockdepAcquire, lockdepAcquired, lockdepRelease } from "./lockdep.ts";
import { armWait, interrupted, type WaitOptions } from "./wait-options.ts";

interface Waiter {
  readonly mode: LockMode;
  grant(): void;
}

/**
 * Many readers or one writer, first come first served: a waiting writer stops new readers, so that it gets its turn.
 * Taking a free lock with `tryRead` / `tryWrite` runs no microtask.
 * @linux include/linux/rwsem.h struct rw_semaphore
 */
export class RwSemaphore<C extends LockClass> implements LockOwner {
  readonly cls: C;
  #readers = 0;
  #writing = false;
  /** In order of arrival; a Set, so that one that gives up leaves at once. */
  readonly #queue = new Set<Waiter>();

  constructor(cls: C) {
    this.cls = cls;
  }

  get isHeld(): boolean {
    return this.#writing || this.#readers > 0;
  }

  /** Takes the lock for reading if that needs no wait. @linux kernel/locking/rwsem.c down_read_trylock */
  tryRead(): Held<C, "read"> | undefined {
    if (this.#writing || this.#queue.size > 0) {
      return undefined;
    }
    this.#readers++;
    return new Held(this, this.cls, "read", lockdepAcquired(this.cls, this));
  }

  /** Takes the lock for writing if that needs no wait. @linux kernel/locking/rwsem.c down_write_trylock */
  tryWrite(): Held<C, "write"> | undefined {
    if (this.isHeld || this.#queue.size > 0) {
      return undefined;
    }
    this.#writing = true;
    return new Held(this, this.cls, "write", lockdepAcquired(this.cls, this));
  }

  /**
   * Takes the lock for reading.
   * @throws KernelError EINTR when the signal fires first; EBUSY when `timeoutMs` passes first.
   * @linux kernel/locking/rwsem.c down_read_interruptible
   */
  async read(options?: WaitOptions): Promise<Held<C, "read">> {
    throwIfAborted(options?.signal, `read lock ${this.cls}`);
    lockdepAcquire(this.cls, this);
    return this.tryRead() ?? this.#wait("read", options);
  }

  /**
   * Takes the lock for writing.
   * @throws KernelError EINTR when the signal fires first; EBUSY when `timeoutMs` passes first.
   * @linux kernel/locking/rwsem.c down_write_killable
   */
  async write(options?: WaitOptions): Promise<Held<C, "write">> {
    throwIfAborted(options?.signal, `write lock ${this.cls}`);
    lockdepAcquire(this.cls, this);
    return this.tryWrite() ?? this.#wait("write", options);
  }

  /** @throws BugError I-SYNC-2 when nobody holds the lock. @linux include/linux/rwsem.h rwsem_assert_held */
  assertHeld(op: string): void {
    if (!this.isHeld) {
      throw new BugError("I-SYNC-2", `${op}: the ${this.cls} lock must be held`);
    }
  }

  /** @throws BugError I-SYNC-2 when nobody holds the lock for writing. @linux include/linux/rwsem.h rwsem_assert_held_write */
  assertHeldWrite(op: string): void {
    if (!this.#writing) {
      throw new BugError("I-SYNC-2", `${op}: the ${this.cls} lock must be held for writing`);
    }
  }

  /** @throws BugError I-SYNC-2 when the guard was released or belongs to another lock. */
  assertGuard(guard: Held<LockClass, LockMode>, op: string): void {
    if (guard.owner !== this || !guard.isHeld) {
      const why = guard.isHeld ? "belongs to another lock" : "was released";
      throw new BugError("I-SYNC-2", `${op}: the guard of the ${this.cls} lock ${why}`);
    }
  }

  /** @internal */
  releaseGuard(mode: LockMode): void {
    if (mode === "write") {
      this.#writing = false;
    } else {
      this.#readers--;
    }
    this.#grant();
  }

  /** @internal */
  downgradeGuard(): void {
    this.#writing = false;
    this.#readers++;
    this.#grant();
  }

  #wait<M extends LockMode>(mode: M, options: WaitOptions | undefined): Promise<Held<C, M>> {
    // The hold belongs to the task that asks, not to the one whose release grants it. Until then it is not live.
    const hold: LockdepHold | undefined = lockdepAcquired(this.cls, this);
    const since = traceNow();
    if (hold !== undefined) {
      hold.live = false;
    }
    return new Promise((resolve, reject) => {
      const leave = (error: KernelError): void => {
        disarm();
        this.#queue.delete(waiter);
        lockdepRelease(hold);
        reject(error);
        this.#grant();
      };
      const disarm = armWait(
        options,
        (signal) => leave(interrupted(`${mode} lock ${this.cls}`, signal)),
        () =>
          leave(
            new KernelError("EBUSY", `${mode} lock ${this.cls}`, `not free within ${options?.timeoutMs} ms; try again`),
          ),
      );
      const waiter: Waiter = {
        mode,
        grant: () => {
          disarm();
          if (hold !== undefined) {
            hold.live = true;
          }
          if (traceOn) {
            trace("sync.wait", { lock: this.cls, mode }, since);
          }
          const guard = new Held<C, M>(this, this.cls, mode, hold);
          resolve(guard);
        },
      };
      this.#queue.add(waiter);
    });
  }

  /** Lets in whoever stands at the head of the queue, as far as the present holders allow. */
  #grant(): void {
    for (const waiter of this.#queue) {
      if (this.#writing || (waiter.mode === "write" && this.#readers > 0)) {
        return;
      }
      this.#queue.delete(waiter);
      if (waiter.mode === "write") {
        this.#writing = true;
      } else {
        this.#readers++;
      }
      waiter.grant();
    }
  }
}
