/** Ranges that an svm kernel reads through variables of its own, beside the memory that it follows pointers into. */
import { isPromise, KernelError } from "../../../base/index.ts";
import type { MmapRead } from "../../../sync/index.ts";
import { isComplete, showReads } from "../commit.ts";
import type { WebGpuDevice } from "../device.ts";
import type { Extent } from "../extent.ts";
import { type Attempt, gatherReads, leaseInTheWay, type Retry, sendStrangersHome } from "../gather.ts";
import type { DeviceMirror } from "../mirror.ts";
import { type PlacedRange, segmentsOf } from "../place.ts";
import { collectCpuWrites, uploadRuns } from "../submit.ts";
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

  get extents(): ReadonlySet<Extent> {
    return new Set(this.placed.map(({ extent }) => extent));
  }

  /** @throws KernelError EINVAL the kernel stores to a device page of which a part is bound */
  checkStore(page: number): void {
    const start = addrOfPage(page);
    for (const { bound } of this.placed) {
      if (start < bound.pages.end && bound.pages.start < start + DEVICE_PAGE) {
        throw new KernelError(
          "EINVAL",
          "dispatch",
          `the kernel stores through a pointer to memory that ${bound.binding.name} (${bound.mapping.name}) is bound to, or within 16 KiB of it: reach it in one way only`,
        );
      }
    }
  }

  /**
   * Brings what the device lacks of the ranges. Nothing may be isolated. End what is returned when the try is over.
   *
   * Locks: mmapLock, read.
   * @throws KernelError as a bind dispatch for what it reads
   */
  async gather(lock: MmapRead, signal: AbortSignal | undefined, batch: TransferBatch): Promise<BoundAttempt> {
    const tried: Attempt = { mirror: this.#mirror, lock, signal, reads: [], arriving: [], ranges: [], inPlace: [] };
    const attempt = new BoundAttempt(tried, this.placed);
    try {
      attempt.retry = await this.#gather(tried, batch);
    } catch (error) {
      attempt[Symbol.dispose]();
      throw error;
    }
    return attempt;
  }

  async #gather(tried: Attempt, batch: TransferBatch): Promise<Retry | undefined> {
    if (this.placed.length === 0) {
      return undefined;
    }
    await sendStrangersHome(tried, this.placed);
    const segments = segmentsOf(tried.mirror, this.placed);
    const lease = leaseInTheWay(segments);
    if (lease !== undefined) {
      return lease;
    }
    await collectCpuWrites(segments, []);
    for (const range of this.placed) {
      const retry = await gatherReads(tried, range, segments);
      if (retry !== undefined) {
        return retry;
      }
    }
    await uploadRuns(this.#device, tried.mirror.mm, tried.reads, batch);
    return undefined;
  }
}

/** What one round has brought for bound ranges. */
export class BoundAttempt implements Disposable {
  readonly #tried: Attempt;
  readonly #placed: readonly PlacedRange[];
  retry: Retry | undefined;

  constructor(tried: Attempt, placed: readonly PlacedRange[]) {
    this.#tried = tried;
    this.#placed = placed;
  }

  /** Under the update lock, in one run with the submission: whether all of the ranges is there. `undo` if it fails. */
  commit(): { readonly complete: boolean; undo(): void } {
    const undo = showReads(this.#tried);
    return { complete: isComplete(this.#tried, this.#placed), undo };
  }

  /** The submission that uses the ranges. */
  submitted(serial: number): void {
    for (const { extent } of this.#placed) {
      extent.lastSerial = serial;
    }
  }

  [Symbol.dispose](): void {
    for (const { range } of this.#tried.ranges.splice(0)) {
      const ended = range.unregister();
      if (isPromise(ended)) {
        // Not the last user: the dispatch is one itself.
        ended.catch(() => undefined);
      }
    }
  }
}
