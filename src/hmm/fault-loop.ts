/** The loop of a range fault: walk, unwind, fault in what was found, walk again. Both kinds of range go through it. */
import { isPromise, type MaybePromise, throwIfAborted } from "../base/index.ts";
import { type AddressSpace, type FaultOutcome, handleMmFault } from "../mm/index.ts";
import type { MmapRead } from "../sync/index.ts";
import { type FaultNeed, findNeed, needBounds } from "./find-need.ts";
import type { WalkedRange, WalkStop } from "./walk.ts";

/** A fault that makes no progress this often at one page asks its caller to start over. */
const MAX_TRIES_AT_ONE_PAGE = 64;

/**
 * Try again. EBUSY: an invalidation is under way, the mmap lock is still held. EAGAIN (only with `allowRetry`): the mmap
 * lock was dropped.
 */
export type HmmTryAgain = "EBUSY" | "EAGAIN";

/** One range fault. */
export interface RangeFault<R> {
  readonly op: string;
  readonly mm: AddressSpace;
  readonly lock: MmapRead;
  readonly range: WalkedRange;
  readonly allowRetry: boolean;
  readonly signal: AbortSignal | undefined;
  /** See HmmFaultOptions. */
  readonly parts?: readonly number[] | undefined;
  /** Asked before every walk: an invalidation has come in between. May throw. */
  isStale(): boolean;
  /** Called with nothing run since the walk that found everything there, or found why it cannot be. */
  finish(stop: WalkStop | undefined): R;
  giveUp(outcome: HmmTryAgain): R;
}

/** How far a fault has come. */
class Progress {
  maxPages = Number.POSITIVE_INFINITY;
  vpn = -1;
  tries = 0;
}

/**
 * Locks: mmapLock, read; held on return, but for EAGAIN.
 * @throws KernelError EINTR when the signal fires; what `isStale` and `finish` throw
 */
export function faultRangeIn<R>(fault: RangeFault<R>): MaybePromise<R> {
  return faultFrom(fault, new Progress());
}

function faultFrom<R>(fault: RangeFault<R>, progress: Progress): MaybePromise<R> {
  const { mm, lock, range, op } = fault;
  for (;;) {
    const stale = fault.isStale();
    mm.mmapLock.assertGuard(lock, op);
    throwIfAborted(fault.signal, op);
    if (stale) {
      return fault.giveUp("EBUSY");
    }
    const found = findNeed(range, mm, progress.maxPages, fault.parts);
    if (found === undefined || found.kind === "stop") {
      return fault.finish(found);
    }
    const { start, end } = needBounds(found);
    const flags = { write: found.write, allowRetry: fault.allowRetry };
    const outcome = handleMmFault(mm, lock, found.vma, start, end, flags);
    if (isPromise(outcome)) {
      return outcome.then((late) => {
        const result = afterFault(fault, progress, found, late);
        return result === undefined ? faultFrom(fault, progress) : result.value;
      });
    }
    const result = afterFault(fault, progress, found, outcome);
    if (result !== undefined) {
      return result.value;
    }
  }
}

/** The result that the fault's outcome decides, or undefined to walk again and see. */
function afterFault<R>(
  fault: RangeFault<R>,
  progress: Progress,
  need: FaultNeed,
  outcome: FaultOutcome,
): { readonly value: R } | undefined {
  const pages = need.end - need.vpn;
  progress.tries = progress.vpn === need.vpn ? progress.tries + 1 : 0;
  progress.vpn = need.vpn;
  if (outcome === "retry") {
    return { value: fault.giveUp("EAGAIN") };
  }
  if (outcome === "mapped") {
    return progress.tries < MAX_TRIES_AT_ONE_PAGE ? undefined : { value: fault.giveUp("EBUSY") };
  }
  if (pages > 1) {
    // A fault over many pages fails as a whole: halve it until the one that fails is found.
    progress.maxPages = pages >>> 1;
    return undefined;
  }
  return { value: fault.finish(failedFault(fault.range, need, outcome)) };
}

function failedFault(
  range: WalkedRange,
  need: FaultNeed,
  outcome: Exclude<FaultOutcome, "mapped" | "retry">,
): WalkStop {
  const stop = { kind: "stop", vpn: need.vpn, entry: range.values.error } as const;
  switch (outcome) {
    case "oom":
      return { ...stop, code: "ENOMEM", why: "out of memory for the page: unmap something, or use a smaller range" };
    case "hwpoison":
      return { ...stop, code: "EFAULT", why: "the only copy of the page was lost" };
    case "sigbus":
      return { ...stop, code: "EFAULT", why: `${need.vma.name} cannot give its page: the backing store failed` };
    case "sigsegv":
      return { ...stop, code: "EFAULT", why: `${need.vma.name} has no page there, or does not allow the access` };
    default:
      return outcome satisfies never;
  }
}
