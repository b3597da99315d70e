/** Leases: how the CPU uses managed memory on the software MMU. */
import {
  assertOptions,
  formatRange,
  KernelError,
  ledgerCount,
  PAGE_SIZE,
  quote,
  type VirtAddr,
  type VirtRange,
} from "../base/index.ts";
import type { IntervalNode } from "../collections/index.ts";
import type { MemoryObject, PinMode } from "./memory-object.ts";

/**
 * The right to use a range of memory until disposed: the pages are present, their bytes do not move, and no device
 * gets them for writing (nor, under an `rw` lease, at all) meanwhile.
 *
 * Arrays got from a lease keep working after it ends, but what is read may then be old and what is written may get lost.
 * @linux mm/gup.c pin_user_pages
 */
export class Lease implements Disposable {
  readonly mode: PinMode;
  readonly range: VirtRange;
  /**
   * The range begins at `byteOffset`. A SharedArrayBuffer, which can be posted to workers, but on pages that are not
   * cross-origin isolated.
   */
  readonly buffer: ArrayBufferLike;
  readonly byteOffset: number;
  readonly byteLength: number;
  readonly #object: MemoryObject;
  #pin: IntervalNode<PinMode> | undefined;

  /** @internal Use Mapping.lease. The pages `[page, …)` that hold the range are ready and mapped. */
  constructor(mode: PinMode, range: VirtRange, object: MemoryObject, page: number, pageEnd: number) {
    this.mode = mode;
    this.range = range;
    this.#object = object;
    const { buffer, byteOffset } = object.windows.offset(page);
    this.buffer = buffer;
    // An adopted memory may not have grown to all of the range.
    const size = buffer.byteLength;
    this.byteOffset = Math.min(byteOffset + (range.start % PAGE_SIZE), size);
    this.byteLength = Math.min(range.end - range.start, size - this.byteOffset);
    this.#pin = object.pins.insert(page, pageEnd, mode);
    ledgerCount("lease", 1);
  }

  get u8(): Uint8Array {
    return new Uint8Array(this.buffer, this.byteOffset, this.byteLength);
  }

  /** @throws KernelError EINVAL when the range does not begin at a multiple of 4. A rest below 4 bytes is left out. */
  get u32(): Uint32Array {
    return new Uint32Array(this.buffer, this.#aligned(4), Math.floor(this.byteLength / 4));
  }

  /** As {@link Lease.u32}. */
  get i32(): Int32Array {
    return new Int32Array(this.buffer, this.#aligned(4), Math.floor(this.byteLength / 4));
  }

  /** As {@link Lease.u32}. */
  get f32(): Float32Array {
    return new Float32Array(this.buffer, this.#aligned(4), Math.floor(this.byteLength / 4));
  }

  /** As {@link Lease.u32}, with 8 bytes. */
  get f64(): Float64Array {
    return new Float64Array(this.buffer, this.#aligned(8), Math.floor(this.byteLength / 8));
  }

  #aligned(bytes: number): number {
    if (this.byteOffset % bytes !== 0) {
      throw new KernelError(
        "EINVAL",
        "lease",
        `${formatRange(this.range)} does not begin at a multiple of ${bytes} bytes: use u8 or another offset`,
      );
    }
    return this.byteOffset;
  }

  /** Gives the pages back. Idempotent. */
  release(): void {
    if (this.#pin !== undefined) {
      this.#object.pins.remove(this.#pin);
      this.#pin = undefined;
      ledgerCount("lease", -1);
      if (this.#object.wq.size > 0) {
        this.#object.wq.wakeAll();
      }
    }
  }

  [Symbol.dispose](): void {
    this.release();
  }
}

/** A part of a mapping, as bytes from an offset. */
export interface ByteRange {
  /** Default 0. */
  readonly offset?: number | undefined;
  /** Default: to the end. */
  readonly length?: number | undefined;
}

/** How a part of a mapping is leased. */
export interface LeaseOptions extends ByteRange {
  /**
   * The lease may last: pages in coherent device memory come to system memory first, so that it does not keep them on the
   * device. @linux include/linux/mm_types.h FOLL_LONGTERM
   */
  readonly longTerm?: boolean;
}

/** The address range of a part of a mapping. @throws KernelError EINVAL when it is not inside */
export function resolveByteRange(
  op: string,
  base: { readonly start: number; readonly length: number; readonly name: string },
  part: ByteRange,
): VirtRange {
  assertOptions(op, part);
  const { offset = 0 } = part;
  const { length = typeof offset === "number" ? base.length - offset : undefined } = part;
  if (
    typeof offset !== "number" ||
    typeof length !== "number" ||
    !Number.isSafeInteger(offset) ||
    !Number.isSafeInteger(length) ||
    offset < 0 ||
    length <= 0 ||
    offset + length > base.length
  ) {
    throw new KernelError(
      "EINVAL",
      op,
      `offset ${quote(offset)} and length ${quote(length)} are not inside ${base.name}, which has ${base.length} bytes`,
    );
  }
  const start = (base.start + offset) as VirtAddr;
  return { start, end: (start + length) as VirtAddr };
}
