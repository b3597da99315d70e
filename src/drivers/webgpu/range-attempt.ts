/** One try to give a device what its kernel is bound to: gathered, isolated, and, with the submission, shown. */
import { isPromise } from "../../base/index.ts";
import { migrateVmaAbort, migrateVmaFinalize } from "../../migrate/index.ts";
import { holdFromCpu, syncCpuWrites } from "../../mm/index.ts";
import type { WebGpuDevice } from "./device.ts";
import { PageState } from "./extent.ts";
import {
  type ArrivingPages,
  type Attempt,
  isolateWrites,
  leaseInTheWay,
  prepareWrites,
  type Retry,
  sendStrangersHome,
  showInPlace,
  WRITABLE,
} from "./gather.ts";
import { gatherReads } from "./gather-reads.ts";
import { type PageRun, uploadRuns } from "./page-upload.ts";
import { endPage, type PlacedRange, type Segment, segmentsOf } from "./place.ts";
import { sourceInTransit } from "./source-transit.ts";
import type { TransferBatch } from "./transfer-batch.ts";

/** What one try of a dispatch, or one round, has brought for bound ranges. Disposed of, it gives up what was not submitted. */
export class RangeAttempt implements Disposable {
  readonly #device: WebGpuDevice;
  readonly #tried: Attempt;
  readonly #placed: readonly PlacedRange[];
  readonly #held: Disposable[] = [];
  #written: readonly Segment[] = [];

  constructor(device: WebGpuDevice, at: Pick<Attempt, "mirror" | "lock" | "signal">, placed: readonly PlacedRange[]) {
    this.#device = device;
    this.#tried = { ...at, reads: [], arriving: [], ranges: [], inPlace: [] };
    this.#placed = placed;
  }

  /**
   * Brings what the device lacks of the ranges that are read, and prepares the written ones to be isolated. Nothing may be
   * isolated.
   *
   * Locks: mmapLock, read.
   * @throws KernelError EFAULT, EACCES, EINVAL as `segmentsOf`; what bringing the bytes throws
   */
  async gather(batch: TransferBatch): Promise<Retry | undefined> {
    const tried = this.#tried;
    if (this.#placed.length === 0) {
      return undefined;
    }
    await sendStrangersHome(tried, this.#placed);
    const segments = segmentsOf(tried.mirror, this.#placed);
    const lease = leaseInTheWay(segments);
    if (lease !== undefined) {
      return lease;
    }
    await collectCpuWrites(segments, this.#held);
    for (const range of this.#placed) {
      const retry = range.bound.write ? undefined : await gatherReads(tried, range, segments);
      if (retry !== undefined) {
        return retry;
      }
    }
    await uploadRuns(this.#device, tried.mirror.mm, tried.reads, batch);
    this.#written = segments.filter((segment) => segment.placed.bound.write);
    for (const segment of this.#written) {
      await prepareWrites(tried, segment);
    }
    return undefined;
  }

  /**
   * Isolates the pages of written ranges that are not the device's yet, and brings them. Last of all: from here on nothing
   * is waited for but uploads.
   *
   * Locks: mmapLock, read.
   * @throws KernelError as a bind dispatch for what it writes
   */
  async isolate(batch: TransferBatch): Promise<Retry | undefined> {
    for (const segment of this.#written) {
      const retry = await isolateWrites(this.#tried, segment);
      if (retry !== undefined) {
        return retry;
      }
    }
    const transit = sourceInTransit(this.#tried);
    if (transit !== undefined) {
      return transit;
    }
    await uploadRuns(this.#device, this.#tried.mirror.mm, arrivingRuns(this.#tried), batch);
    return undefined;
  }

  /** Under the update lock, in one run with the submission: whether all of the ranges is there. `undo` if it fails. */
  commit(): { readonly complete: boolean; undo(): void } {
    const undo = showReads(this.#tried);
    return { complete: isComplete(this.#tried, this.#placed), undo };
  }

  /** The submission that uses the ranges. Returns the pages that became device-private by it. */
  submitted(serial: number): number {
    for (const { extent } of this.#placed) {
      extent.lastSerial = serial;
    }
    return finishArrivals(this.#tried);
  }

  [Symbol.dispose](): void {
    for (const hold of this.#held.splice(0)) {
      hold[Symbol.dispose]();
    }
    for (const { migration } of this.#tried.arriving.splice(0)) {
      migrateVmaAbort(migration);
    }
    for (const { range } of this.#tried.ranges.splice(0)) {
      const ended = range.unregister();
      if (isPromise(ended)) {
        // Not the last user: the dispatch is one itself.
        ended.catch(() => undefined);
      }
    }
  }
}

/** What plain arrays wrote becomes known; what the kernel writes is theirs again when the try is over. */
async function collectCpuWrites(segments: readonly Segment[], held: Disposable[]): Promise<void> {
  for (const segment of segments) {
    const { object } = segment.vma;
    const end = endPage(segment);
    const hold = segment.placed.bound.write ? holdFromCpu(object, segment.page, end) : undefined;
    if (hold !== undefined) {
      held.push(hold);
    }
    const synced = syncCpuWrites(object, segment.page, end);
    if (isPromise(synced)) {
      await synced;
    }
  }
}

/** Isolated pages of which the device has no copy. */
function arrivingRuns({ arriving }: Attempt): PageRun[] {
  const runs: PageRun[] = [];
  for (const { migration, placed, from, to } of arriving) {
    const { extent } = placed;
    const { object, page } = migration;
    for (let p = extent.firstWithout(from, to, PageState.Valid); p < to; ) {
      const stop = extent.firstWith(p, to, PageState.Valid);
      runs.push({ extent, at: p, count: stop - p, object, page: page + (p - from), transit: "isolated" });
      p = extent.firstWithout(stop, to, PageState.Valid);
    }
  }
  return runs;
}

/** After the submission of their uploads: isolated pages become the device's own. Returns how many. */
function finishArrivals(tried: Attempt): number {
  let pages = 0;
  for (const { migration, placed, from, to } of tried.arriving.splice(0)) {
    migrateVmaFinalize(migration, (i) => placed.extent.frame + from + i);
    placed.extent.own(from, to, migration.object, migration.page);
    pages += to - from;
  }
  return pages;
}

/**
 * Marks what was gathered for reading and is still what memory holds. Returns what takes that back, for when the uploads
 * are not submitted after all.
 *
 * Locks: the mirror's update lock.
 */
function showReads(tried: Attempt): () => void {
  const stale = tried.ranges.filter(({ range }) => !range.valid).map((r) => r.placed);
  const isStale = (run: PageRun) => stale.some((s) => s.extent === run.extent && s.from <= run.at && run.at < s.to);
  const fresh = stale.length === 0 ? tried.reads : tried.reads.filter((run) => !isStale(run));
  for (const { extent, at, count } of fresh) {
    extent.update(at, at + count, PageState.Valid, 0);
  }
  for (const { extent, page } of tried.inPlace) {
    showInPlace(tried.mirror, extent, page);
  }
  return () => {
    for (const { extent, at, count } of fresh) {
      extent.update(at, at + count, 0, PageState.Valid);
    }
  };
}

/**
 * Whether the device has all pages that the dispatch reads and writes, those that are arriving included, and nothing that
 * was gathered has changed since.
 */
function isComplete({ arriving, ranges }: Attempt, placed: readonly PlacedRange[]): boolean {
  if (ranges.some(({ range }) => !range.valid)) {
    return false;
  }
  return placed.every((range) => {
    const { extent, to } = range;
    if (!range.bound.write) {
      return extent.isComplete(range.from, to);
    }
    const mine = arriving.filter((a) => a.placed === range);
    let next = 0;
    for (let p = extent.firstWithout(range.from, to, WRITABLE); p < to; ) {
      next = firstEndingAfter(mine, next, p);
      if (next === mine.length || mine[next].from > p) {
        return false;
      }
      p = extent.firstWithout(mine[next].to, to, WRITABLE);
    }
    return true;
  });
}

function firstEndingAfter(runs: readonly ArrivingPages[], first: number, page: number): number {
  let i = first;
  while (i < runs.length && runs[i].to <= page) {
    i++;
  }
  return i;
}
