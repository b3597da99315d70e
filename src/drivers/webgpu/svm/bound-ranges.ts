/** Ranges that an svm kernel reaches through variables of its own, beside the memory that it follows pointers into. */
import { isPromise, KernelError } from "../../../base/index.ts";
import { migrateVmaAbort } from "../../../migrate/index.ts";
import type { MmapRead } from "../../../sync/index.ts";
import { finishArrivals, isComplete, showReads } from "../commit.ts";
import type { WebGpuDevice } from "../device.ts";
import type { Extent } from "../extent.ts";
import {
  type Attempt,
  gatherReads,
  isolateWrites,
  leaseInTheWay,
  prepareWrites,
  type Retry,
  sendStrangersHome,
} from "../gather.ts";
import type { DeviceMirror } from "../mirror.ts";
import { type PlacedRange, type Segment, segmentsOf } from "../place.ts";
import { sourceInTransit } from "../source-transit.ts";
import { arrivingRuns, collectCpuWrites, uploadRuns } from "../submit.ts";
import type { TransferBatch } from "../transfer-batch.ts";
import { addrOfPage, DEVICE_PAGE } from "./page-entry.ts";

/** The bound ranges of one dispatch; each of its rounds looks whether they are still what memory holds. */
export class BoundRanges {
  readonly #device: WebGpuDevice;
  readonly #mirror: DeviceMirror;
  readonly placed: readonly PlacedRange[];

  constructor(device: WebGpuDevice, mirror: DeviceMirror, placed: readonly PlacedRange[]) {
    this.#device = device;
    this.#mirror = mirror;
    this.placed = placed;
  }

  get isEmpty(): boolean {
    return this.placed.length === 0;
  }

  get extents(): ReadonlySet<Extent> {
    return new Set(this.placed.map(({ extent }) => extent));
  }

  /** The range that a pointer into a device page would reach, too, when either of the two ways writes. */
  #conflict(page: number, write: boolean): PlacedRange | undefined {
    const start = addrOfPage(page);
    return this.placed.find(
      ({ bound }) => (write || bound.write) && start < bound.pages.end && bound.pages.start < start + DEVICE_PAGE,
    );
  }

  /** Whether kernels may not follow pointers into a device page, since part of it is bound and one of the two writes. */
  excludes(page: number, write: boolean): boolean {
    return this.#conflict(page, write) !== undefined;
  }

  /** @throws KernelError EINVAL the kernel follows a pointer into a device page of which a part is bound, and writes one way */
  check(page: number, write: boolean): void {
    const conflict = this.#conflict(page, write);
    if (conflict !== undefined) {
      const { binding, mapping } = conflict.bound;
      throw new KernelError(
        "EINVAL",
        "dispatch",
        `the kernel ${write ? "stores" : "reads"} through a pointer ${write ? "to" : "from"} memory that ${binding.name} (${mapping.name}) is bound to${conflict.bound.write ? " and written through" : ""}, or within 16 KiB of it: reach it in one way only`,
      );
    }
  }

  /**
   * Brings what the device lacks of the ranges that are read, and prepares the written ones to be isolated. Nothing may be
   * isolated. End what is returned when the try is over.
   *
   * Locks: mmapLock, read.
   * @throws KernelError as a bind dispatch for what it reads and writes
   */
  async gather(lock: MmapRead, signal: AbortSignal | undefined, batch: TransferBatch): Promise<BoundAttempt> {
    const tried: Attempt = { mirror: this.#mirror, lock, signal, reads: [], arriving: [], ranges: [], inPlace: [] };
    const attempt = new BoundAttempt(this.#device, tried, this.placed);
    try {
      attempt.retry = await attempt.gather(batch);
    } catch (error) {
      attempt[Symbol.dispose]();
      throw error;
    }
    return attempt;
  }
}

/** What one round has brought for bound ranges. */
export class BoundAttempt implements Disposable {
  readonly #device: WebGpuDevice;
  readonly #tried: Attempt;
  readonly #placed: readonly PlacedRange[];
  readonly #held: Disposable[] = [];
  #written: readonly Segment[] = [];
  retry: Retry | undefined;

  constructor(device: WebGpuDevice, tried: Attempt, placed: readonly PlacedRange[]) {
    this.#device = device;
    this.#tried = tried;
    this.#placed = placed;
  }

  /** See {@link BoundRanges.gather}. */
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
