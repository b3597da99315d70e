/** Range faults in their present form: over an interval notifier, with one request and result format. */
import {
  addrOf,
  bugOn,
  formatAddr,
  formatRange,
  isPageAligned,
  KernelError,
  type MaybePromise,
  PAGE_SIZE,
  throwIfAborted,
  vpnOf,
} from "../base/index.ts";
import type { MmuIntervalNotifier } from "../mmu-notifier/index.ts";
import type { MmapRead, WaitOptions } from "../sync/index.ts";
import { faultRangeIn, type HmmTryAgain } from "./fault-loop.ts";
import { INTERVAL_PFN_FORMAT, setMapOrders } from "./interval-pfns.ts";
import { HMM_RANGE_DEFAULT_TIMEOUT } from "./range.ts";
import { clearTail, collect, type WalkedRange, type WalkStop } from "./walk.ts";

/**
 * What {@link hmmRangeFault} works on. The request for page i is `(hmmPfns[i] & pfnFlagsMask) | defaultFlags`, of
 * `HMM_PFN_REQ_FAULT` and `HMM_PFN_REQ_WRITE`; without any request it is a snapshot.
 * @linux include/linux/hmm.h struct hmm_range
 */
export interface HmmIntervalRange {
  /** Covers the range, and is inserted. */
  readonly notifier: MmuIntervalNotifier;
  /** What `notifier.readBegin()` gave. */
  notifierSeq: number;
  /** Page aligned. */
  readonly start: number;
  /** Exclusive, page aligned. */
  readonly end: number;
  /** Room for an entry a page. */
  readonly hmmPfns: Uint32Array;
  readonly defaultFlags?: number;
  readonly pfnFlagsMask?: number;
  /** Owner of the device memory whose pages are valid entries; those of others are brought home by a fault. */
  readonly devPrivateOwner?: object | undefined;
}

/** How {@link hmmRangeFault} is asked. */
export interface HmmRangeFaultOptions {
  readonly signal?: AbortSignal | undefined;
}

/**
 * Makes the CPU's entries grant what is requested, then reads them all in one go. 0, or EBUSY: an invalidation has begun
 * since `notifierSeq` was read; the entries are then untouched, requests included. The fault's own announcement is one, when
 * a page becomes writable: the next try finds it so. Test `notifier.readRetry` under the update lock before the entries
 * are used.
 *
 * Without a request a page that the CPU could not have (a hole, no permission, device registers, lost) is
 * `HMM_PFN_ERROR`, and the walk goes on.
 *
 * Locks: `mm.mmapLock`, read.
 * @throws KernelError EFAULT a requested page is not mapped, not readable, of device registers, lost, or its fault failed;
 *   EPERM write requested where the mapping is not writable; ENOMEM; EINVAL the range is not of whole pages inside the
 *   notifier's, or `hmmPfns` too short; EINTR. Entries before the page at fault are results, its own is
 *   `HMM_PFN_ERROR`, those after it 0.
 * @throws BugError I-MN-12 when the notifier is not inserted; I-SYNC-2 without the lock
 * @linux mm/hmm.c hmm_range_fault
 */
export function hmmRangeFault(
  range: HmmIntervalRange,
  lock: MmapRead,
  options: HmmRangeFaultOptions = {},
): MaybePromise<0 | "EBUSY"> {
  checkRange(range);
  return fault(range, lock, options.signal, false) as MaybePromise<0 | "EBUSY">;
}

/**
 * {@link hmmRangeFault} for a caller without the mmap lock: takes it, lets the fault drop it, reads `notifierSeq` anew, and
 * tries until it succeeds. `timeoutMs` (1000 by default, 0 for ever) begins anew whenever a fault made progress by
 * dropping the lock.
 *
 * The caller holds a user of the space. Locks: takes `mm.mmapLock`, read.
 * @throws KernelError as {@link hmmRangeFault}; EBUSY when the time is over; EFAULT the space has exited
 * @linux mm/hmm.c hmm_range_fault_unlocked_timeout
 */
export async function hmmRangeFaultUnlocked(range: HmmIntervalRange, options: WaitOptions = {}): Promise<0> {
  checkRange(range);
  const { notifier } = range;
  const { mm } = notifier;
  const { signal } = options;
  const budget = options.timeoutMs === 0 ? Number.POSITIVE_INFINITY : (options.timeoutMs ?? HMM_RANGE_DEFAULT_TIMEOUT);
  let deadline = Date.now() + budget;
  const requests = range.hmmPfns.slice(0, pagesOf(range));
  for (;;) {
    throwIfAborted(signal, "hmmRangeFaultUnlocked");
    const timeoutMs = Math.max(0, deadline - Date.now());
    range.notifierSeq = await notifier.readBegin({ signal, timeoutMs });
    const outcome = await (async () => {
      using lock = mm.mmapLock.tryRead() ?? (await mm.mmapLock.read({ signal, timeoutMs }));
      if (mm.users === 0) {
        throw new KernelError("EFAULT", "hmmRangeFaultUnlocked", "the address space has exited: open a new one");
      }
      return await fault(range, lock, signal, true);
    })();
    if (outcome === 0) {
      return 0;
    }
    range.hmmPfns.set(requests);
    if (outcome === "EAGAIN") {
      deadline = Date.now() + budget;
    } else if (Date.now() >= deadline) {
      throw new KernelError(
        "EBUSY",
        "hmmRangeFaultUnlocked",
        `${formatRange(range)} was invalidated again and again for ${budget} ms: stop changing it, or try again`,
      );
    }
  }
}

function pagesOf(range: HmmIntervalRange): number {
  return (range.end - range.start) / PAGE_SIZE;
}

function checkRange(range: HmmIntervalRange): void {
  const { start, end, notifier, hmmPfns } = range;
  bugOn(!notifier.isInserted, "I-MN-12", () => "a range fault over an interval notifier that is not inserted");
  const fail = (why: string): never => {
    throw new KernelError("EINVAL", "hmmRangeFault", why);
  };
  if (!isPageAligned(start) || !isPageAligned(end) || !(start < end)) {
    fail(`${formatAddr(start)} to ${formatAddr(end)} is not a range of whole pages: align both, start below end`);
  }
  if (start < notifier.start || end > notifier.end) {
    fail(`${formatRange(range)} is not inside its notifier's ${formatRange(notifier)}`);
  }
  if (hmmPfns.length < pagesOf(range)) {
    fail(`hmmPfns has ${hmmPfns.length} entries for ${pagesOf(range)} pages`);
  }
}

function fault(
  range: HmmIntervalRange,
  lock: MmapRead,
  signal: AbortSignal | undefined,
  allowRetry: boolean,
): MaybePromise<0 | HmmTryAgain> {
  const { notifier } = range;
  const { mm } = notifier;
  const walked: WalkedRange = {
    ...INTERVAL_PFN_FORMAT,
    start: range.start,
    end: range.end,
    pfns: range.hmmPfns,
    defaultFlags: range.defaultFlags ?? 0,
    pfnFlagsMask: range.pfnFlagsMask ?? 0,
    devicePrivateOwner: range.devPrivateOwner,
    marksErrors: true,
  };
  return faultRangeIn<0 | HmmTryAgain>({
    op: "hmmRangeFault",
    mm,
    lock,
    range: walked,
    allowRetry,
    signal,
    isStale: () => notifier.checkRetry(range.notifierSeq),
    finish: (stop) => {
      const failure = collect(walked, mm, stop === undefined ? range.end : addrOf(stop.vpn)) ?? stop;
      if (failure !== undefined) {
        throw failed(walked, failure);
      }
      setMapOrders(range.hmmPfns, pagesOf(range), vpnOf(range.start));
      return 0;
    },
    giveUp: (outcome) => outcome,
  });
}

function failed(walked: WalkedRange, { vpn, code, why }: WalkStop): KernelError {
  clearTail(walked, vpn);
  walked.pfns[vpn - vpnOf(walked.start)] = walked.values.error;
  return new KernelError(code, "hmmRangeFault", `${formatAddr(addrOf(vpn))}: ${why}`);
}
