/** Guards: proof that a lock is held, asked for by every `…Locked` function. */
import { BugError } from "../base/index.ts";
import type { LockClass } from "./lock-order.ts";
import { type LockdepHold, lockdepRelease } from "./lockdep.ts";

/** How a lock is held. */
export type LockMode = "read" | "write";

/** What a guard gives back to its lock. */
export interface LockOwner {
  /** @internal */
  releaseGuard(mode: LockMode): void;
  /** @internal */
  downgradeGuard(): void;
}

/**
 * A held lock of class `C`. Dispose releases it; doing so twice is harmless. The class is nominal: only a lock makes one.
 * Bind it with `using`, so that a throw releases it too.
 */
export class Held<C extends LockClass, M extends LockMode> implements Disposable {
  readonly cls: C;
  readonly mode: M;
  readonly owner: LockOwner;
  #hold: LockdepHold | undefined;
  #live = true;

  /** @internal */
  constructor(owner: LockOwner, cls: C, mode: M, hold: LockdepHold | undefined) {
    this.owner = owner;
    this.cls = cls;
    this.mode = mode;
    this.#hold = hold;
  }

  /** Whether the lock is still held through this guard. */
  get isHeld(): boolean {
    return this.#live;
  }

  /** @throws BugError I-SYNC-2 when the guard was released. */
  assertHeld(): void {
    if (!this.#live) {
      throw new BugError("I-SYNC-2", `a ${this.mode} guard of the ${this.cls} lock is used after its release`);
    }
  }

  /** Gives the lock back. Idempotent. */
  release(): void {
    if (this.#live) {
      this.#live = false;
      lockdepRelease(this.#hold);
      this.owner.releaseGuard(this.mode);
    }
  }

  [Symbol.dispose](): void {
    this.release();
  }

  /**
   * Turns a write guard into a read guard without letting another writer in between; this guard ends.
   * @throws BugError I-SYNC-2 when the guard was released.
   * @linux kernel/locking/rwsem.c downgrade_write
   */
  downgrade(this: Held<C, "write">): Held<C, "read"> {
    this.assertHeld();
    this.#live = false;
    const read = new Held<C, "read">(this.owner, this.cls, "read", this.#hold);
    this.#hold = undefined;
    this.owner.downgradeGuard();
    return read;
  }
}

/** The mmap lock of a space, held at least for reading: a writer may do what a reader may. */
export type MmapRead = Held<"mmap", "read"> | MmapWrite;
/** The mmap lock of a space, held for writing. */
export type MmapWrite = Held<"mmap", "write">;
