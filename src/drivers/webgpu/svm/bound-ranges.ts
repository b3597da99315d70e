/** Ranges that an svm kernel reaches through variables of its own, beside the memory that it follows pointers into. */
import { KernelError } from "../../../base/index.ts";
import type { MmapRead } from "../../../sync/index.ts";
import type { WebGpuDevice } from "../device.ts";
import type { Extent } from "../extent.ts";
import type { DeviceMirror } from "../mirror.ts";
import type { PlacedRange } from "../place.ts";
import { RangeAttempt } from "../range-attempt.ts";
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

  /** A try to bring them, for one round. Locks: mmapLock, read. */
  attempt(lock: MmapRead, signal: AbortSignal | undefined): RangeAttempt {
    return new RangeAttempt(this.#device, { mirror: this.#mirror, lock, signal }, this.placed);
  }
}
