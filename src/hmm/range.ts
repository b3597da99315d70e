/** One range of a mirrored address space: what its CPU page tables say, and whether that is still true. */
import {
  addrOf,
  bugOn,
  formatAddr,
  formatRange,
  invariant,
  isPageAligned,
  KernelError,
  type LedgerEntry,
  ledgerTrack,
  type MaybePromise,
  PAGE_SIZE,
  type VirtAddr,
  virtAddr,
  vpnOf,
} from "../base/index.ts";
import type { IntervalNode } from "../collections/index.ts";
import type { AddressSpace } from "../mm/index.ts";
import { type MmapRead, mightWaitFor, type WaitOptions } from "../sync/index.ts";
import { faultRangeIn, type HmmTryAgain } from "./fault-loop.ts";
import type { Hmm } from "./hmm.ts";
import type { HmmMirror } from "./mirror.ts";
import {
  checkPfnFormat,
  DEFAULT_PFN_FLAGS,
  DEFAULT_PFN_SHIFT,
  DEFAULT_PFN_VALUES,
  type HmmPfnFlags,
  type HmmPfnValues,
} from "./pfns.ts";
import { clearTail, collect, type WalkedRange, type WalkStop } from "./walk.ts";

/** How long {@link HmmRange.waitUntilValid} waits unless told otherwise. @linux include/linux/hmm.h HMM_RANGE_DEFAULT_TIMEOUT */
export const HMM_RANGE_DEFAULT_TIMEOUT = 1000;

/**
 * What a range is made of.
 *
 * The request for page i is `(pfns[i] & pfnFlagsMask) | defaultFlags`. For one request for all pages, set `defaultFlags` and
 * leave the mask 0; for one a page, set the mask to all ones and fill `pfns` before every fault.
 */
export interface HmmRangeOptions {
  /** Page aligned. */
  readonly start: number;
  /** Exclusive, page aligned. */
  readonly end: number;
  /** Room for an entry a page; made when absent. */
  readonly pfns?: Uint32Array;
  readonly flags?: HmmPfnFlags;
  readonly values?: HmmPfnValues;
  readonly pfnShift?: number;
  readonly defaultFlags?: number;
  readonly pfnFlagsMask?: number;
  /** Owner of the `DevicePagemap` whose pages this driver reads in place; pages of others are brought home by a fault. */
  readonly devicePrivateOwner?: object | undefined;
}

/** How {@link HmmRange.faultLocked} is asked. */
export interface HmmFaultOptions {
  /** The fault may drop the mmap lock rather than wait under it; it then answers EAGAIN. @linux HMM_FAULT_ALLOW_RETRY */
  readonly allowRetry?: boolean;
  /** Fault nothing, wait for nothing. @linux HMM_FAULT_SNAPSHOT */
  readonly snapshot?: boolean;
  /** Leaves `pfns` as they are when the fault succeeds: for a driver that copies pages and maps none. */
  readonly noEntries?: boolean;
  /**
   * Only these pages must grant what is requested: runs of them, in order, of each the first and one past the last, counted
   * from the range's start. Default: all.
   */
  readonly parts?: readonly number[] | undefined;
  readonly signal?: AbortSignal | undefined;
}

/**
 * A range for one fault or snapshot, or for many.
 *
 * `valid` is a generation, not the flag of 5.4: an invalidation that begins *and ends* after the last fault leaves the
 * range invalid, where the flag would be true again and stale entries would be used.
 * @linux include/linux/hmm.h struct hmm_range (5.4)
 */
export class HmmRange implements WalkedRange, AsyncDisposable {
  readonly start: VirtAddr;
  readonly end: VirtAddr;
  readonly pfns: Uint32Array;
  readonly flags: HmmPfnFlags;
  readonly values: HmmPfnValues;
  readonly pfnShift: number;
  readonly devicePrivateOwner: object | undefined;
  defaultFlags: number;
  pfnFlagsMask: number;
  #hmm: Hmm | undefined;
  #node: IntervalNode<HmmRange> | undefined;
  #ledger: LedgerEntry | undefined;
  /** Overlapping invalidations between start and end. */
  #blocked = 0;
  /** Overlapping invalidations that ever began. */
  #generation = 0;
  /** The generation that `pfns` tell of; -1 for none. */
  #seen = -1;

  /** @throws KernelError EINVAL when the bounds are no addresses or the tables do not fit */
  constructor(options: HmmRangeOptions) {
    this.start = virtAddr(options.start, "HmmRange");
    this.end = virtAddr(options.end, "HmmRange");
    this.pfns = options.pfns ?? new Uint32Array(Math.max(0, Math.ceil((this.end - this.start) / PAGE_SIZE)));
    this.flags = options.flags ?? DEFAULT_PFN_FLAGS;
    this.values = options.values ?? DEFAULT_PFN_VALUES;
    this.pfnShift = options.pfnShift ?? DEFAULT_PFN_SHIFT;
    this.defaultFlags = options.defaultFlags ?? 0;
    this.pfnFlagsMask = options.pfnFlagsMask ?? 0;
    this.devicePrivateOwner = options.devicePrivateOwner;
    checkPfnFormat(this);
  }

  get pages(): number {
    return (this.end - this.start) / PAGE_SIZE;
  }

  get isRegistered(): boolean {
    return this.#hmm !== undefined;
  }

  /**
   * True when no overlapping invalidation is under way, nor began since the entries were read (before the first read: since
   * registration). Only worth something under the driver's update lock, which its sync callback takes too.
   * @linux include/linux/hmm.h hmm_range_valid (5.4)
   */
  get valid(): boolean {
    return this.#hmm !== undefined && this.#blocked === 0 && this.#seen === this.#generation;
  }

  /**
   * Begins to track the range. Keeps the address space alive (a user) until {@link unregister}. Needs no lock.
   * @throws KernelError EINVAL when the bounds are not page aligned, the range is empty or `pfns` too short; EFAULT when the
   *   address space is exiting
   * @throws BugError I-HMM-8 when it is registered, or the mirror is not
   * @linux mm/hmm.c hmm_range_register (5.4)
   */
  register(mirror: HmmMirror): void {
    bugOn(this.#hmm !== undefined, "I-HMM-8", () => `range ${formatRange(this)} is registered twice`);
    bugOn(!mirror.isRegistered, "I-HMM-8", () => `range ${formatRange(this)} of a mirror that is not registered`);
    this.#seen = -1;
    if (!isPageAligned(this.start) || !isPageAligned(this.end) || this.start >= this.end) {
      throw new KernelError(
        "EINVAL",
        "HmmRange.register",
        `${formatAddr(this.start)} to ${formatAddr(this.end)} is not a range of whole pages: align both, start below end`,
      );
    }
    if (this.pfns.length < this.pages) {
      throw new KernelError(
        "EINVAL",
        "HmmRange.register",
        `pfns has ${this.pfns.length} entries for ${this.pages} pages`,
      );
    }
    const { hmm } = mirror;
    if (!hmm.mm.tryGetUsers()) {
      throw new KernelError("EFAULT", "HmmRange.register", "the address space has exited: unregister the mirror");
    }
    this.#hmm = hmm;
    this.#node = hmm.ranges.insert(this.start, this.end, this);
    this.#ledger = ledgerTrack("range");
    hmm.blockNewRange(this);
    this.#seen = this.#generation;
  }

  /**
   * Stops tracking; entries stay as they are. Drops the user: when it was the last one, the promise is the whole exit path,
   * so hold no lock that release and sync callbacks take.
   * @throws BugError I-HMM-8 when it is not registered
   * @linux mm/hmm.c hmm_range_unregister (5.4)
   */
  unregister(): MaybePromise<void> {
    const hmm = this.#registeredHmm("unregister");
    if (this.#node !== undefined) {
      hmm.ranges.remove(this.#node);
    }
    this.#node = undefined;
    this.#hmm = undefined;
    this.#seen = -1;
    this.#ledger?.end();
    hmm.wq.wakeAll();
    return hmm.mm.mmput();
  }

  /** {@link unregister}, if it is registered. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (this.#hmm !== undefined) {
      await this.unregister();
    }
  }

  /**
   * Waits until no overlapping invalidation is under way: true when a fault may succeed now; false after `timeoutMs`
   * (1000 ms by default). A hint: test {@link valid} after the fault, under the update lock.
   *
   * Locks: none may be held; the invalidation may need it.
   * @throws KernelError EINTR when the signal fires
   * @throws BugError I-HMM-8 when it is not registered; I-SYNC-3 (lockdep) under the mmap or the update lock
   * @linux include/linux/hmm.h hmm_range_wait_until_valid (5.4)
   */
  async waitUntilValid(options?: WaitOptions): Promise<boolean> {
    const hmm = this.#registeredHmm("waitUntilValid");
    mightWaitFor("validity");
    const { signal, timeoutMs = HMM_RANGE_DEFAULT_TIMEOUT } = options ?? {};
    const settled = () => this.#blocked === 0 || this.#hmm === undefined;
    return (await hmm.wq.wait(settled, { signal, timeoutMs })) && this.#hmm !== undefined;
  }

  /**
   * Reads the CPU's entries as they are: nothing is faulted in, nothing waited for. Returns the number of pages (holes and
   * absent pages count, as `none`), or EBUSY.
   *
   * Locks: `mm.mmapLock`, read.
   * @throws KernelError EFAULT nothing is mapped at or above an address; device registers or raw entries; a poisoned page
   *   (its entry: `error`) or a special one (`special`). EPERM a mapping without read permission. Entries after the page at
   *   fault are `none`.
   * @throws BugError I-HMM-8 when not registered; I-SYNC-2 without the lock
   */
  snapshotLocked(lock: MmapRead): number | "EBUSY" {
    const { mm } = this.#registeredHmm("snapshot");
    mm.mmapLock.assertGuard(lock, "HmmRange.snapshot");
    this.#seen = -1;
    return this.#blocked > 0 ? this.#giveUp("EBUSY") : this.#read(mm, "HmmRange.snapshot", undefined);
  }

  /**
   * Makes the CPU's entries grant what is requested, then reads them all in one go. Returns the number of pages, or
   * {@link HmmTryAgain}. Entries tell what the CPU grants, which may be more than requested. After anything but success
   * requests a page must be filled in again.
   *
   * Locks: `mm.mmapLock`, read; held on return, but for EAGAIN.
   * @throws KernelError EFAULT a page requested where nothing is mapped; device registers or raw entries; a poisoned page or
   *   one whose fault failed (its entry: `error`), a special one (`special`). EPERM a mapping without read permission, or
   *   without write permission where write is requested. ENOMEM. EINTR when the signal fires. Entries before the page at
   *   fault are results, those after it `none`.
   * @throws BugError I-HMM-8 when not registered; I-SYNC-2 without the lock
   * @linux mm/hmm.c hmm_range_fault (5.4)
   */
  faultLocked(lock: MmapRead, options: HmmFaultOptions = {}): MaybePromise<number | HmmTryAgain> {
    if (options.snapshot) {
      return this.snapshotLocked(lock);
    }
    const { mm } = this.#registeredHmm("fault");
    this.#seen = -1;
    return faultRangeIn<number | HmmTryAgain>({
      op: "HmmRange.fault",
      mm,
      lock,
      range: this,
      allowRetry: options.allowRetry === true,
      signal: options.signal,
      parts: options.parts,
      isStale: () => {
        this.#registeredHmm("fault");
        return this.#blocked > 0;
      },
      finish: (stop) =>
        options.noEntries && stop === undefined ? this.#confirm() : this.#read(mm, "HmmRange.fault", stop),
      giveUp: (outcome) => this.#giveUp(outcome),
    });
  }

  /** Reads entries up to `stop`, or all. Nothing runs in between, so they tell of one moment, which is now. */
  #read(mm: AddressSpace, op: string, stop: WalkStop | undefined): number {
    const failure = collect(this, mm, stop === undefined ? this.end : addrOf(stop.vpn)) ?? stop;
    if (failure !== undefined) {
      clearTail(this, failure.vpn);
      this.pfns[failure.vpn - vpnOf(this.start)] = failure.entry;
      throw new KernelError(failure.code, op, `${formatAddr(addrOf(failure.vpn))}: ${failure.why}`);
    }
    return this.#confirm();
  }

  /** What was found is true in this moment. */
  #confirm(): number {
    this.#seen = this.#generation;
    return this.pages;
  }

  #giveUp<T extends HmmTryAgain>(outcome: T): T {
    clearTail(this, vpnOf(this.start));
    return outcome;
  }

  #registeredHmm(op: string): Hmm {
    invariant(this.#hmm !== undefined, "I-HMM-8", () => `${op} of range ${formatRange(this)}, which is not registered`);
    return this.#hmm;
  }

  /** @internal An overlapping invalidation begins. */
  block(): void {
    this.#blocked++;
    this.#generation++;
  }

  /** @internal It has ended. */
  unblock(): void {
    this.#blocked--;
  }
}
