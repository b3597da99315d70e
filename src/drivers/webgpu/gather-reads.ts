/** What a dispatch reads and the device lacks: write-protected, faulted in, and noted for the upload. */
import { isPromise, KernelError, type MaybePromise } from "../../base/index.ts";
import { HmmRange } from "../../hmm/index.ts";
import { areReadOnly, areWritable, PageFlag, poisonedError, writeProtectRuns } from "../../mm/index.ts";
import { PageState } from "./extent.ts";
import {
  type Attempt,
  BUSY_MEMORY,
  isInPlace,
  leaseInTheWay,
  type Retry,
  TRY_AGAIN,
  waitUntilSettled,
} from "./gather.ts";
import { endPage, type PlacedRange, type Segment } from "./place.ts";

/** What the device has no valid copy of in a read segment: runs of pages of the extent, of each the first and one past the last. */
interface Lack {
  readonly segment: Segment;
  readonly runs: readonly number[];
}

/** Between pages `[first, last)` of the extent. */
function lacksOf(
  placed: PlacedRange,
  segments: readonly Segment[],
  first = placed.from,
  last = placed.to,
): readonly Lack[] {
  const lacks: Lack[] = [];
  for (const segment of segments) {
    if (segment.placed === placed) {
      const [from, to] = [Math.max(first, segment.from), Math.min(last, segment.to)];
      const runs = placed.extent.lacking(from, to);
      if (runs.length > 0) {
        lacks.push({ segment, runs });
      }
    }
  }
  return lacks;
}

/**
 * The pages of a read range that the device has no valid copy of: faulted in, and write-protected against the CPU.
 *
 * Locks: mmapLock, read. Nothing may be isolated: the fault waits for pages in transit.
 * @throws KernelError EHWPOISON; EFAULT, ENOMEM, EINTR as HmmRange.faultLocked
 */
export function gatherReads(
  tried: Attempt,
  placed: PlacedRange,
  segments: readonly Segment[],
): MaybePromise<Retry | undefined> {
  const lacks = lacksOf(placed, segments);
  if (lacks.every(({ segment, runs }) => areReadOnly(segment.vma, runs, segment.page - segment.from))) {
    return faultReads(tried, placed, segments, lacks, true);
  }
  const guarded = protectReads(tried, lacks);
  return isPromise(guarded)
    ? guarded.then((retry) => retry ?? faultReads(tried, placed, segments, lacksOf(placed, segments)))
    : (guarded ?? faultReads(tried, placed, segments, lacks));
}

/**
 * Takes write permission from the pages that will be copied. Before the fault: what is announced after it would make the
 * range stale.
 */
function protectReads(tried: Attempt, lacks: readonly Lack[], from = 0): MaybePromise<Retry | undefined> {
  for (let i = from; i < lacks.length; i++) {
    const { segment, runs } = lacks[i];
    const done = writeProtectRuns(segment.vma.object, runs, segment.page - segment.from, tried.mirror);
    const check = (ok: boolean) => (ok ? undefined : (leaseInTheWay([segment]) ?? TRY_AGAIN));
    if (isPromise(done)) {
      return done.then((ok) => check(ok) ?? protectReads(tried, lacks, i + 1));
    }
    const retry = check(done);
    if (retry !== undefined) {
      return retry;
    }
  }
  return undefined;
}

/** `ready`: nothing has to be faulted in or protected, in this moment; what is left is to notice what changes from here on. */
function faultReads(
  tried: Attempt,
  placed: PlacedRange,
  segments: readonly Segment[],
  lacks: readonly Lack[],
  ready = false,
): MaybePromise<Retry | undefined> {
  if (lacks.length === 0) {
    return undefined;
  }
  const { mirror, lock, signal } = tried;
  const { extent } = placed;
  const first = lacks[0].runs[0];
  const last = lacks[lacks.length - 1].runs.at(-1) ?? first;
  const range = new HmmRange({
    start: extent.addrOf(first),
    end: extent.addrOf(last),
    pfns: mirror.scratchPfns(last - first),
    devicePrivateOwner: mirror,
  });
  range.defaultFlags = range.flags.valid;
  range.register(mirror.hmm);
  tried.ranges.push({ range, placed });
  const { epoch } = extent;
  const takeReads = (outcome: number | string, found: readonly Lack[]): Retry | undefined =>
    typeof outcome === "number"
      ? collectReads(tried, placed, found, ready)
      : { wait: (options) => waitUntilSettled(mirror, range, options), why: BUSY_MEMORY };
  // The fault may have dropped more; but what lies outside of the range is nothing that it tells of.
  const anew = () => lacksOf(placed, segments, first, last);
  try {
    const faulted = range.faultLocked(lock, { signal, noEntries: true, parts: ready ? [] : partsFrom(lacks, first) });
    return isPromise(faulted)
      ? faulted.then(
          (outcome) => takeReads(outcome, anew()),
          (error: unknown) => failedRead(error, placed, segments),
        )
      : takeReads(faulted, extent.epoch === epoch ? lacks : anew());
  } catch (error) {
    return failedRead(error, placed, segments);
  }
}

/** All runs, counted from page `first` of the extent. */
function partsFrom(lacks: readonly Lack[], first: number): number[] {
  const parts: number[] = [];
  for (const { runs } of lacks) {
    for (let i = 0; i < runs.length; i++) {
      parts.push(runs[i] - first);
    }
  }
  return parts;
}

function failedRead(error: unknown, placed: PlacedRange, segments: readonly Segment[]): never {
  if (error instanceof KernelError && error.code === "EFAULT") {
    for (const segment of segments.filter((s) => s.placed === placed)) {
      for (let p = segment.page; p < endPage(segment); p++) {
        if (segment.vma.object.flagsOf(p) & PageFlag.Poisoned) {
          throw poisonedError(segment.vma.object, p);
        }
      }
    }
  }
  throw error;
}

/** The entries are there, and let nobody write, in this moment: from here on a write to the pages is announced. */
function collectReads(tried: Attempt, placed: PlacedRange, lacks: readonly Lack[], ready: boolean): Retry | undefined {
  const { mirror, reads } = tried;
  const { extent } = placed;
  const { state } = extent;
  for (const { segment, runs } of lacks) {
    const { object } = segment.vma;
    const toPage = segment.page - segment.from;
    if (!ready && areWritable(object, runs, toPage)) {
      return leaseInTheWay([segment]) ?? TRY_AGAIN;
    }
    for (let i = 0; i < runs.length; i += 2) {
      for (let p = runs[i]; p < runs[i + 1]; ) {
        if (isInPlace(mirror, extent, p, 0)) {
          tried.inPlace.push({ extent, page: p });
          p++;
          continue;
        }
        let stop = p + 1;
        while (stop < runs[i + 1] && !(state[stop] & PageState.Owned)) {
          stop++;
        }
        reads.push({ extent, at: p, count: stop - p, object, page: p + toPage, transit: "wait" });
        p = stop;
      }
    }
  }
  return undefined;
}
