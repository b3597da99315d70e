/** A device's subscription to one address space. */
import { bugOn, invariant, KernelError, type LedgerEntry, ledgerTrack, type MaybePromise } from "../base/index.ts";
import type { AddressSpace } from "../mm/index.ts";
import {
  inNotifierCallback,
  type MmuNotifierRange,
  mmuNotifierGetLocked,
  mmuNotifierPut,
} from "../mmu-notifier/index.ts";
import { type Held, lockdepTask, type MmapWrite, type WaitOptions } from "../sync/index.ts";
import { type Hmm, hmmNotifierOps } from "./hmm.ts";

/** What a driver does when CPU page tables change. @linux include/linux/hmm.h struct hmm_mirror_ops (5.4) */
export interface HmmMirrorOps {
  /** For messages. */
  readonly name: string;
  /**
   * Before CPU entries in the update change, whether or not the device has any there: under the driver's update lock,
   * remove (or restrict) the device's entries and return when the device can no longer use them. EAGAIN only when
   * the update is not blockable and it would have to wait.
   *
   * Locks: mirrorsSem, read. Do not unregister the mirror in here.
   */
  syncCpuDevicePagetables(mirror: HmmMirror, update: MmuNotifierRange): MaybePromise<0 | "EAGAIN">;
  /**
   * The address space exits: on return no device access is in progress or can start. The mirror stays registered until
   * the driver unregisters it, which it must not do in here but later.
   *
   * Locks: mirrorsSem, read.
   */
  release?(mirror: HmmMirror): MaybePromise<void>;
}

/**
 * One device's view of one address space, once registered.
 * @linux include/linux/hmm.h struct hmm_mirror (5.4)
 */
export class HmmMirror {
  readonly ops: HmmMirrorOps;
  #hmm: Hmm | undefined;
  #ledger: LedgerEntry | undefined;
  #registered = false;

  constructor(ops: HmmMirrorOps) {
    this.ops = ops;
  }

  /** What all mirrors of the space share. Kept after unregistration. @throws BugError I-HMM-8 before registration */
  get hmm(): Hmm {
    invariant(this.#hmm !== undefined, "I-HMM-8", () => `mirror ${this.ops?.name} was never registered`);
    return this.#hmm;
  }

  get isRegistered(): boolean {
    return this.#registered;
  }

  /** The mirrored space. Its structure is valid while the mirror is registered. */
  get mm(): AddressSpace {
    return this.hmm.mm;
  }

  /**
   * Subscribes to `mm`, of which the caller holds a user. Callbacks may come before this resolves.
   *
   * Locks: takes `mm.mmapLock` for writing.
   * @throws KernelError as {@link registerLocked}
   */
  async register(mm: AddressSpace, options?: WaitOptions): Promise<void> {
    checkArguments(this.ops, mm);
    await lockdepTask("HmmMirror.register", async () => {
      using lock = await mm.mmapLock.write(options);
      await this.registerLocked(lock, mm, options);
    });
  }

  /**
   * {@link register} for a caller that holds the mmap lock.
   *
   * Locks: `mm.mmapLock`, write, throughout.
   * @throws KernelError EINVAL without ops or mm; ENOMEM; EOVERFLOW; EINTR, EBUSY while it waited
   * @throws BugError I-SYNC-2 without the lock; I-HMM-8 when registered already
   * @linux mm/hmm.c hmm_mirror_register (5.4)
   */
  async registerLocked(lock: MmapWrite, mm: AddressSpace, options?: WaitOptions): Promise<void> {
    checkArguments(this.ops, mm);
    bugOn(this.#registered, "I-HMM-8", () => `mirror ${this.ops.name} is registered twice`);
    const hmm = await mmuNotifierGetLocked(hmmNotifierOps, mm, lock, options);
    let guard: Held<"mirrors", "write">;
    try {
      guard = hmm.mirrorsSem.tryWrite() ?? (await hmm.mirrorsSem.write(options));
    } catch (error) {
      mmuNotifierPut(hmm);
      throw error;
    }
    hmm.mirrors.unshift(this);
    this.#hmm = hmm;
    this.#registered = true;
    this.#ledger = ledgerTrack("mirror");
    guard.release();
  }

  /**
   * Ends the subscription: waits for callbacks of the space's mirrors that run, and on return none of this one's comes any
   * more. All its ranges must have been unregistered. What the mirrors share is freed later; `mmuNotifierSynchronize()`
   * waits for that.
   * @throws BugError I-HMM-3 inside a sync or release callback, which it would wait for; I-HMM-8 when not registered
   * @linux mm/hmm.c hmm_mirror_unregister (5.4)
   */
  async unregister(): Promise<void> {
    bugOn(inNotifierCallback(), "I-HMM-3", () => {
      return `mirror ${this.ops.name} is unregistered in a callback, which it would wait for: do it later`;
    });
    bugOn(!this.#registered, "I-HMM-8", () => `mirror ${this.ops.name} is not registered`);
    this.#registered = false;
    const { hmm } = this;
    const guard = hmm.mirrorsSem.tryWrite() ?? (await hmm.mirrorsSem.write());
    hmm.mirrors.splice(hmm.mirrors.indexOf(this), 1);
    guard.release();
    this.#ledger?.end();
    mmuNotifierPut(hmm);
  }
}

function checkArguments(ops: HmmMirrorOps | undefined, mm: AddressSpace | undefined): void {
  if (ops === undefined || mm === undefined) {
    throw new KernelError("EINVAL", "HmmMirror.register", "a mirror needs an ops table and an address space");
  }
}
