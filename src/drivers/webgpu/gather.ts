/** What a dispatch has to bring to the device, and the right to do it: what stands in the way, and migration for what it writes. */
import { isPromise, type MaybePromise, throwIfAborted, vpnOf } from "../../base/index.ts";
import { HmmRange } from "../../hmm/index.ts";
import { type Migration, migrateVmaTrySetup } from "../../migrate/index.ts";
import { PTE_WRITE, PteKind, poisonedIn, preparePages, pteIsKind, ptePfn } from "../../mm/index.ts";
import type { MmapRead, WaitOptions } from "../../sync/index.ts";
import { type Extent, PageState } from "./extent.ts";
import type { DeviceMirror } from "./mirror.ts";
import type { PageRun } from "./page-upload.ts";
import { endPage, type PlacedRange, type Segment } from "./place.ts";
import { bringHome } from "./way-home.ts";

/** Why a try has to be made again, and what to wait for first, with nothing held. */
export interface Retry {
  readonly wait: (options: WaitOptions) => Promise<boolean>;
  readonly why: string;
}

/** Pages on their way to the device for good. */
export interface ArrivingPages {
  readonly migration: Migration;
  readonly placed: PlacedRange;
  /** Pages of the extent. */
  readonly from: number;
  readonly to: number;
}

/** Everything that one try has gathered so far. */
export interface Attempt {
  readonly mirror: DeviceMirror;
  readonly lock: MmapRead;
  readonly signal: AbortSignal | undefined;
  /** Pages that the device reads and the host keeps. */
  readonly reads: PageRun[];
  /** By range, and in order of address within one. */
  readonly arriving: ArrivingPages[];
  /** For `reads`: what they tell of must still be true at the end. */
  readonly ranges: { readonly range: HmmRange; readonly placed: PlacedRange }[];
  /** Device-private pages that an invalidation hid from the device, and that nothing else happened to. */
  readonly inPlace: { readonly extent: Extent; readonly page: number }[];
}

/** Why a try that others always come before ends in EBUSY. */
export const BUSY_MEMORY = "its memory is being changed all the time";

/** Somebody was faster: the next try may be. */
export const TRY_AGAIN: Retry = { wait: () => Promise.resolve(true), why: BUSY_MEMORY };

/** Leases that hold pages which the dispatch needs: nothing to do but wait for their end. */
export function leaseInTheWay(segments: readonly Segment[]): Retry | undefined {
  for (const segment of segments) {
    const { vma, page, placed } = segment;
    const { object } = vma;
    const mode = placed.bound.write ? "r" : "rw";
    if (object.isPinned(page, endPage(segment), mode)) {
      return {
        wait: (options) => object.wq.wait(() => !object.isPinned(page, endPage(segment), mode), options),
        why: `a lease on ${vma.name}, which ${placed.bound.binding.name} is bound to, is still held: dispose it before the dispatch`,
      };
    }
  }
  return undefined;
}

/**
 * Sends home what the extents hold for memory that was mapped there before: its pages would be overwritten.
 *
 * Locks: mmapLock, read. Nothing may be isolated.
 */
export function sendStrangersHome(tried: Attempt, placed: readonly PlacedRange[]): MaybePromise<void> {
  for (const { extent, from, to } of placed) {
    for (let p = extent.firstHidden(from, to); p < to; p = extent.firstHidden(p + 1, to)) {
      if (!isInPlace(tried.mirror, extent, p, 0)) {
        const { object, page } = extent.homeOf(p);
        return bringHome(object, page, page + 1, "remap").then(() => sendStrangersHome(tried, placed));
      }
    }
  }
  return undefined;
}

/** The range that failed was given back and cannot wait any more: its successor does. */
export function waitUntilSettled(mirror: DeviceMirror, former: HmmRange, options: WaitOptions): Promise<boolean> {
  return mirror.waits.run(async () => {
    const range = new HmmRange({ start: former.start, end: former.end, pfns: former.pfns });
    range.register(mirror.hmm);
    try {
      return await range.waitUntilValid(options);
    } finally {
      await range.unregister();
    }
  });
}

/** What a written page must be: the device's own, not hidden by an invalidation, and writable by its entry. */
export const WRITABLE = PageState.Valid | PageState.Owned | PageState.Write;

/** Calls `visit` for each run of pages of a written segment that are not the device's yet; stops when it answers. */
function forEachArrival<T>(
  mirror: DeviceMirror,
  { placed, from, to }: Segment,
  visit: (from: number, to: number) => T | undefined,
  inPlace?: (page: number) => void,
): T | undefined {
  const { extent } = placed;
  for (let p = extent.firstWithout(from, to, WRITABLE); p < to; ) {
    if (isInPlace(mirror, extent, p, PTE_WRITE)) {
      inPlace?.(p);
      p = extent.firstWithout(p + 1, to, WRITABLE);
      continue;
    }
    let stop = p + 1;
    while (stop < to && (extent.state[stop] & WRITABLE) !== WRITABLE && !isInPlace(mirror, extent, stop, PTE_WRITE)) {
      stop++;
    }
    const result = visit(p, stop);
    if (result !== undefined) {
      return result;
    }
    p = extent.firstWithout(stop, to, WRITABLE);
  }
  return undefined;
}

/**
 * Brings the pages that will be isolated into the state for it: home from other devices, copies served.
 *
 * Locks: mmapLock, read. Nothing may be isolated: this waits for pages in transit.
 * @throws KernelError EHWPOISON; EIO, ENOMEM
 */
export function prepareWrites(tried: Attempt, segment: Segment): MaybePromise<void> {
  const { object } = segment.vma;
  const toPage = segment.page - segment.from;
  const waiting = forEachArrival(tried.mirror, segment, (from, to) => {
    const prepared = preparePages(object, from + toPage, to + toPage, { cpu: false, write: true });
    if (prepared === "poisoned") {
      throw poisonedIn(object, from + toPage, to + toPage);
    }
    return isPromise(prepared) ? prepared : undefined;
  });
  return waiting?.then(() => {
    throwIfAborted(tried.signal, "dispatch");
    return prepareWrites(tried, segment);
  });
}

/**
 * The pages of a written range that are not the device's yet: isolated, to become so.
 *
 * Never waits for pages in transit: whoever moves them may be waiting for those that are isolated here already.
 * Locks: mmapLock, read.
 */
export function isolateWrites(tried: Attempt, segment: Segment): MaybePromise<Retry | undefined> {
  const { mirror, lock } = tried;
  const { placed, vma } = segment;
  const { extent } = placed;
  const take = (setup: Migration | "pinned" | "busy", from: number, to: number): Retry | undefined => {
    if (setup === "busy") {
      return { wait: (options) => waitUntilReady(segment, from, to, options), why: BUSY_MEMORY };
    }
    if (setup === "pinned") {
      return leaseInTheWay([segment]) ?? { wait: () => Promise.resolve(true), why: BUSY_MEMORY };
    }
    tried.arriving.push({ migration: setup, placed, from, to });
    return undefined;
  };
  const late = forEachArrival<Retry | Promise<Retry | undefined>>(
    mirror,
    { ...segment, from: isolatedUpTo(tried, segment) },
    (from, to) => {
      const start = extent.addrOf(from);
      const end = extent.addrOf(to);
      const setup = mirror.isolate({ start, end, into: "extents" }, () =>
        migrateVmaTrySetup(lock, vma, start, end, mirror.pagemap),
      );
      return isPromise(setup) ? setup.then((s) => take(s, from, to)) : take(setup, from, to);
    },
    (page) => tried.inPlace.push({ extent, page }),
  );
  return isPromise(late) ? late.then((retry) => retry ?? isolateWrites(tried, segment)) : late;
}

/** Where isolating a segment goes on: after what was isolated of it before. */
function isolatedUpTo(tried: Attempt, segment: Segment): number {
  const last = tried.arriving.at(-1);
  return last !== undefined && last.placed === segment.placed && last.to > segment.from ? last.to : segment.from;
}

/** With nothing isolated any more: waits until the pages could be. */
async function waitUntilReady(segment: Segment, from: number, to: number, options: WaitOptions): Promise<boolean> {
  const { object } = segment.vma;
  const toPage = segment.page - segment.from;
  if (object.refs === 0) {
    return true;
  }
  object.get();
  try {
    await preparePages(object, from + toPage, to + toPage, { cpu: false, write: true });
    throwIfAborted(options.signal, "dispatch");
    return true;
  } finally {
    await object.put();
  }
}

/** Shows a hidden page to the device again, if it is still in place, with the rights that its entry grants. */
export function showInPlace(mirror: DeviceMirror, extent: Extent, page: number): void {
  if (isInPlace(mirror, extent, page, 0)) {
    const write = isInPlace(mirror, extent, page, PTE_WRITE) ? PageState.Write : 0;
    extent.update(page, page + 1, PageState.Valid | write, 0);
  }
}

/** A device-private page of this extent whose entry grants `bits`: only hidden by an invalidation, not moved. */
export function isInPlace(mirror: DeviceMirror, extent: Extent, page: number, bits: number): boolean {
  if (!(extent.state[page] & PageState.Owned)) {
    return false;
  }
  const pte = mirror.mm.pageTable.get(vpnOf(extent.addrOf(page)));
  return (
    pteIsKind(pte, PteKind.DevicePrivate) &&
    (pte & bits) === bits &&
    mirror.pagemap.frameOf(ptePfn(pte)) === extent.frame + page
  );
}
