/**
 * Interval notifiers: a subscription to one range of an address space, with a sequence number that tells a reader
 * whether what it read there may have changed meanwhile.
 *
 *     driver                                            invalidation
 *     seq = sub.readBegin()      waits for those under way
 *     read page tables (hmmRangeFault)
 *     update lock {                                     update lock {
 *       sub.readRetry(seq)?  start over                   sub.setSeq(curSeq)
 *       program the device                                take the device's entries away
 *     }                                                 }
 *
 * Whoever takes the update lock second sees what the first did: the reader that its sequence is old, or the callback the
 * new entries.
 */
import {
  addLength,
  bugOn,
  chain,
  formatAddr,
  formatRange,
  invariant,
  KernelError,
  type LedgerEntry,
  ledgerTrack,
  type MaybePromise,
  type VirtAddr,
  type VirtRange,
  virtAddr,
  warnOn,
} from "../base/index.ts";
import type { IntervalNode } from "../collections/index.ts";
import type { AddressSpace, MmuNotifierRange } from "../mm/index.ts";
import { type MmapWrite, mightWaitFor, type WaitOptions } from "../sync/index.ts";
import type { IntervalSubscriptions } from "./interval-subscriptions.ts";
import { inNotifierCallback } from "./notifier.ts";
import { Subscriptions } from "./subscriptions.ts";

/** The second pass of an invalidation: waits until what the first one began is done. */
export type IntervalFinish = () => MaybePromise<void>;

/** What a kind of interval notifier does. @linux include/linux/mmu_notifier.h struct mmu_interval_notifier_ops */
export interface MmuIntervalNotifierOps {
  /** For messages. */
  readonly name: string;
  /**
   * Before entries in the range, which overlaps the subscription, change. Under the lock that its readers test
   * {@link MmuIntervalNotifier.readRetry} under: calls `setSeq(curSeq)`, always, and takes the device's entries away.
   *
   * `true`: done. A function: begun; it is called when all others have begun too, and says when it is done, so that many
   * devices are waited for at once. `false`, only when the range is not blockable: it would have to wait; nothing
   * was done.
   */
  invalidate(
    notifier: MmuIntervalNotifier,
    range: MmuNotifierRange,
    curSeq: number,
  ): MaybePromise<boolean | IntervalFinish>;
}

/**
 * One subscription to `[start, end)` of one address space, whose structure (not its mappings) it keeps alive. At the
 * space's exit `invalidate` is called with the event `release` over the whole space.
 * @linux include/linux/mmu_notifier.h struct mmu_interval_notifier
 */
export class MmuIntervalNotifier implements VirtRange {
  readonly ops: MmuIntervalNotifierOps;
  #mm: AddressSpace | undefined;
  #start = 0 as VirtAddr;
  #end = 0 as VirtAddr;
  #seq = 0;
  #ledger: LedgerEntry | undefined;
  #removing = false;
  /** @internal Its place in the tree; undefined while it is not there, or not yet. */
  node: IntervalNode<MmuIntervalNotifier> | undefined;

  constructor(ops: MmuIntervalNotifierOps) {
    this.ops = ops;
  }

  get start(): VirtAddr {
    return this.#start;
  }

  /** Exclusive. */
  get end(): VirtAddr {
    return this.#end;
  }

  /** @throws BugError I-MN-12 when it is not inserted */
  get mm(): AddressSpace {
    invariant(this.#mm !== undefined, "I-MN-12", () => `interval notifier ${this.ops.name} is not inserted`);
    return this.#mm;
  }

  get isInserted(): boolean {
    return this.#mm !== undefined;
  }

  /**
   * Subscribes to `[start, start + length)`, of whose space the caller holds a user. Callbacks may come before it returns
   * a promise's value. Does not wait for invalidations: one that is under way is not told, and {@link readBegin} waits
   * for it.
   *
   * Locks: takes `mm.mmapLock` for writing, for the first subscription of a space only.
   * @throws KernelError EOVERFLOW the length is 0, or the range leaves the address space; EINVAL not an address, or the
   *   space has exited (reported too, I-MN-5); ENOMEM; EINTR, EBUSY while it waited for the lock
   * @throws BugError I-MN-12 when it is inserted
   * @linux mm/mmu_notifier.c mmu_interval_notifier_insert
   */
  insert(mm: AddressSpace, start: number, length: number, options?: WaitOptions): MaybePromise<void> {
    const range = this.#check(mm, start, length);
    if (mm.notifiers !== undefined) {
      return this.#insert(mm, range);
    }
    return mm.mmapLock.write(options).then((lock) => {
      using _ = lock;
      this.#insert(mm, this.#check(mm, start, length));
    });
  }

  /**
   * {@link insert} for a caller that holds the mmap lock.
   *
   * Locks: `mm.mmapLock`, write.
   * @throws KernelError, BugError as {@link insert}; I-SYNC-2 without the lock
   * @linux mm/mmu_notifier.c mmu_interval_notifier_insert_locked
   */
  insertLocked(lock: MmapWrite, mm: AddressSpace, start: number, length: number): void {
    mm.mmapLock.assertGuard(lock, "MmuIntervalNotifier.insertLocked");
    mm.mmapLock.assertHeldWrite("MmuIntervalNotifier.insertLocked");
    this.#insert(mm, this.#check(mm, start, length));
  }

  #check(mm: AddressSpace, start: number, length: number): VirtRange {
    const op = "MmuIntervalNotifier.insert";
    bugOn(this.isInserted, "I-MN-12", () => `interval notifier ${this.ops.name} is inserted twice`);
    const from = virtAddr(start, op);
    const end = addLength(from, length);
    if (!(length > 0) || end === undefined || !Number.isSafeInteger(length)) {
      const why = `${length} bytes from ${formatAddr(from)} are no range of the address space: use 1 byte up to 2^48`;
      throw new KernelError("EOVERFLOW", op, why);
    }
    if (warnOn(mm.users <= 0, "I-MN-5", () => `${op}: the address space has exited; hold a user of it`)) {
      throw new KernelError("EINVAL", op, "the address space has exited: open a new one");
    }
    return { start: from, end };
  }

  #insert(mm: AddressSpace, { start, end }: VirtRange): void {
    mm.memory.charge("notifier");
    mm.notifiers ??= new Subscriptions(mm);
    this.#mm = mm;
    this.#start = start;
    this.#end = end;
    this.#ledger = ledgerTrack("notifier");
    mm.mmgrab();
    this.#seq = intervalsOf(mm).insert(this);
  }

  /**
   * Ends the subscription: waits for an invalidation that may be calling it; on return no callback runs or comes.
   *
   * Locks: none that a callback takes may be held.
   * @throws BugError I-MN-12 when it is not inserted; I-MN-11 inside a callback, which it would wait for
   * @linux mm/mmu_notifier.c mmu_interval_notifier_remove
   */
  remove(): MaybePromise<void> {
    const { mm } = this;
    bugOn(inNotifierCallback(), "I-MN-11", () => {
      return `${this.ops.name}: remove inside a notifier callback would wait for itself: do it later`;
    });
    bugOn(this.#removing, "I-MN-12", () => `interval notifier ${this.ops.name} is removed twice`);
    mightWaitFor("validity");
    this.#removing = true;
    return chain(intervalsOf(mm).remove(this), () => {
      this.#removing = false;
      this.#mm = undefined;
      this.#ledger?.end();
      mm.mmdrop();
    });
  }

  /**
   * Begins to read the range: waits while it is being invalidated, and returns the sequence for {@link readRetry}.
   *
   * Locks: none that a callback takes may be held, nor the mmap lock.
   * @throws KernelError EINTR, EBUSY as the options say
   * @throws BugError I-MN-12 when it is not inserted; I-SYNC-3 (lockdep) under such a lock
   * @linux mm/mmu_notifier.c mmu_interval_read_begin
   */
  readBegin(options?: WaitOptions): MaybePromise<number> {
    const intervals = intervalsOf(this.mm);
    mightWaitFor("validity");
    const seq = this.#seq;
    return intervals.isCurrent(seq) ? this.#waitWhile(intervals, seq, options) : seq;
  }

  async #waitWhile(intervals: IntervalSubscriptions, seq: number, options?: WaitOptions): Promise<number> {
    if (!(await intervals.wq.wait(() => !intervals.isCurrent(seq), options))) {
      throw new KernelError(
        "EBUSY",
        "readBegin",
        `${formatRange(this)} is being invalidated for ${options?.timeoutMs} ms: try again later`,
      );
    }
    return seq;
  }

  /**
   * True when an invalidation has begun since {@link readBegin} gave `seq`: start over. False is reliable until the lock is
   * released.
   *
   * Locks: the one under which `invalidate` calls {@link setSeq}.
   * @linux include/linux/mmu_notifier.h mmu_interval_read_retry
   */
  readRetry(seq: number): boolean {
    return this.#seq !== seq;
  }

  /**
   * {@link readRetry} without a lock: true is reliable, false is a guess.
   * @linux include/linux/mmu_notifier.h mmu_interval_check_retry
   */
  checkRetry(seq: number): boolean {
    return this.#seq !== seq;
  }

  /**
   * From here on readers that began before have to start over. For `invalidate`, under the driver's lock.
   * @linux include/linux/mmu_notifier.h mmu_interval_set_seq
   */
  setSeq(curSeq: number): void {
    this.#seq = curSeq;
  }
}

function intervalsOf(mm: AddressSpace): IntervalSubscriptions {
  const { notifiers } = mm;
  invariant(notifiers instanceof Subscriptions, "I-MN-12", () => "the address space has no subscriptions");
  return notifiers.intervals;
}
