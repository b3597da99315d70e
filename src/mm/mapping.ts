/** What mmap returns: the user's handle on a range of an address space. */
import {
  chain,
  formatAddr,
  formatRange,
  isPromise,
  KernelError,
  type MaybePromise,
  PAGE_SIZE,
  pageAlignDown,
  pageAlignUp,
  quote,
  type VirtAddr,
  type VirtRange,
  virtAddr,
} from "../base/index.ts";
import type { AddressSpace } from "./address-space.ts";
import { svmAddressOf } from "./aperture.ts";
import { faultRange } from "./fault.ts";
import { Lease, type LeaseOptions, resolveByteRange } from "./lease.ts";
import type { PinMode } from "./memory-object.ts";
import { munmap } from "./munmap.ts";
import { bringCoherentHome } from "./object-migrate.ts";
import { assertBytes, assertLength } from "./range-args.ts";
import type { Vma } from "./vma.ts";
import { inOneWindow } from "./window-pages.ts";
import { msync } from "./writeback.ts";

/** A part of a mapping, for bindings and leases. */
export interface MappingRange {
  readonly mapping: Mapping;
  readonly start: VirtAddr;
  readonly end: VirtAddr;
}

/** A range of an address space, as its user has it. The handle holds nothing: the memory lasts until it is unmapped. */
export class Mapping {
  readonly mm: AddressSpace;
  readonly start: VirtAddr;
  /** Bytes, as asked for; the pages go on to the next multiple of 4096. */
  readonly length: number;
  readonly name: string;

  /** @internal Use AddressSpace.mmap. */
  constructor(mm: AddressSpace, start: VirtAddr, length: number, name: string) {
    this.mm = mm;
    this.start = start;
    this.length = length;
    this.name = name;
  }

  /** One past the last byte. */
  get end(): VirtAddr {
    return (this.start + this.length) as VirtAddr;
  }

  /**
   * Where the mapping begins for kernels in svm mode, in 4-byte words from the aperture's base.
   * @throws KernelError EINVAL the mapping is not wholly inside the aperture of 16 GiB
   */
  get svmAddress(): number {
    return svmAddressOf(this.start, this.name, this.length);
  }

  /** A part, to bind or lease. @throws KernelError EINVAL when it is not inside */
  range(offset: number, length?: number): MappingRange {
    return { mapping: this, ...resolveByteRange("range", this, { offset, length }) };
  }

  /**
   * Gets a part of the mapping for the CPU: for reading, or for reading and writing. What lives on a device comes back;
   * a device's copies of what may be written are dropped. Answers at once, without a promise, when nothing has to wait.
   *
   * Locks: takes mmapLock, read, while it faults.
   * @throws KernelError EINVAL not inside the mapping, an unknown mode, or the range has no single window (two objects, or it crosses a
   *   multiple of 4 GiB); EFAULT unmapped or not readable; EACCES not writable; EHWPOISON the bytes were lost; EIO; ENOMEM;
   *   ESRCH
   */
  lease(mode: PinMode, part: LeaseOptions = {}): MaybePromise<Lease> {
    if (mode !== "r" && mode !== "rw") {
      throw new KernelError("EINVAL", "lease", `unknown mode ${quote(mode)}: use "r" or "rw"`);
    }
    const range = resolveByteRange("lease", this, part);
    return part.longTerm
      ? chain(leaveCoherentMemory(this.mm, range), () => leaseRange(this.mm, mode, range))
      : leaseRange(this.mm, mode, range);
  }

  /** A copy of bytes. @throws KernelError as {@link Mapping.lease} */
  async read(offset = 0, length = this.length - offset): Promise<Uint8Array> {
    using lease = await this.lease("r", { offset, length });
    const { u8 } = lease;
    if (u8.length === length) {
      return u8.slice();
    }
    // What an adopted memory has not grown to is zeros.
    const bytes = new Uint8Array(length);
    bytes.set(u8);
    return bytes;
  }

  /** Writes bytes. @throws KernelError EINVAL no array of bytes; EFAULT past what an adopted memory has grown to; else as {@link Mapping.lease} */
  async write(offset: number, bytes: ArrayBufferView): Promise<void> {
    assertBytes("write", bytes);
    using lease = await this.lease("rw", { offset, length: bytes.byteLength });
    if (lease.byteLength < bytes.byteLength) {
      const there = lease.byteOffset + lease.byteLength;
      throw new KernelError(
        "EFAULT",
        "write",
        `${this.name} has grown to ${there} bytes so far: grow the memory first`,
      );
    }
    lease.u8.set(new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength));
  }

  /** Writes a shared file mapping's changes to the file, durably. See {@link msync}. */
  msync(): Promise<void> {
    return msync(this.mm, this.start, this.length);
  }

  /** See {@link munmap}. */
  munmap(): Promise<void> {
    return munmap(this.mm, this.start, this.length);
  }
}

/**
 * A handle on memory that is mapped already: what a child has after fork, or a part of a mapping.
 * @throws KernelError EFAULT nothing is mapped at `start`; EINVAL no bytes; ESRCH
 */
export function mappingAt(mm: AddressSpace, start: number, length: number): Mapping {
  mm.assertAlive("mapping");
  const address = virtAddr(start, "mapping");
  assertLength("mapping", length);
  const vma = mm.vmas.find(address);
  if (vma === undefined) {
    throw new KernelError("EFAULT", "mapping", `nothing is mapped at ${formatAddr(address)}: mmap it first`);
  }
  return new Mapping(mm, address, length, vma.name);
}

/** Pages of the range in coherent device memory come to system memory: at once, but for devices that are told. */
function leaveCoherentMemory(mm: AddressSpace, range: VirtRange): MaybePromise<void> {
  const vma = mm.vmas.find(range.start);
  if (vma === undefined) {
    return undefined;
  }
  const page = vma.objectPage(range.start);
  return bringCoherentHome(vma.object, page, Math.min(vma.object.pages, page + pageSpan(range)));
}

/** {@link Mapping.lease} of an address range. */
function leaseRange(mm: AddressSpace, mode: PinMode, range: VirtRange): MaybePromise<Lease> {
  const lock = mm.mmapLock.tryRead();
  if (lock === undefined) {
    return leaseWhenFree(mm, mode, range);
  }
  let pending: Promise<Lease> | undefined;
  try {
    const lease = leaseLocked(mm, mode, range);
    if (isPromise(lease)) {
      pending = lease.finally(() => lock.release());
    }
    return pending ?? lease;
  } finally {
    if (pending === undefined) {
      lock.release();
    }
  }
}

async function leaseWhenFree(mm: AddressSpace, mode: PinMode, range: VirtRange): Promise<Lease> {
  using _lock = await mm.mmapLock.read();
  return await leaseLocked(mm, mode, range);
}

/** Faults until nothing had to wait, then pins: in one run to completion, so that nobody takes the pages in between. */
function leaseLocked(mm: AddressSpace, mode: PinMode, range: VirtRange): MaybePromise<Lease> {
  mm.assertAlive("lease");
  const vma = assertOneWindow(mm, range);
  const faulted = faultRange(mm, range.start, range.end, { cpu: true, write: mode === "rw" });
  if (isPromise(faulted)) {
    return faulted.then(() => leaseLocked(mm, mode, range));
  }
  const page = vma.objectPage(range.start);
  return new Lease(mode, range, vma.object, page, page + pageSpan(range));
}

/** Pages that a range of bytes touches. */
function pageSpan(range: VirtRange): number {
  return (pageAlignUp(range.end) - pageAlignDown(range.start)) / PAGE_SIZE;
}

/** The first VMA of the range. @throws KernelError EFAULT, EINVAL unless its bytes can be seen as one array */
function assertOneWindow(mm: AddressSpace, range: VirtRange): Vma {
  const vma = mm.vmas.find(range.start);
  for (let part = vma; part === undefined || part.end < range.end; ) {
    const next: Vma | undefined = part && mm.vmas.find(part.end);
    if (next === undefined) {
      throw new KernelError(
        "EFAULT",
        "lease",
        `nothing is mapped at ${formatAddr(part?.end ?? range.start)}: mmap it first`,
      );
    }
    if (next.object !== vma?.object || next.pgoff !== part?.objectPage(part.end)) {
      throw new KernelError(
        "EINVAL",
        "lease",
        `${formatRange(range)} is made of several mappings with separate memory: lease each of them`,
      );
    }
    part = next;
  }
  const page = vma?.objectPage(range.start) ?? 0;
  if (vma === undefined || !inOneWindow(page, page + pageSpan(range))) {
    throw new KernelError(
      "EINVAL",
      "lease",
      `${formatRange(range)} crosses a multiple of 4 GiB: lease the parts on both sides`,
    );
  }
  return vma;
}

/** What a call says that was given something else in place of a mapping or a part of one, for `what`. */
export function notAMapping(op: string, what: string): KernelError {
  return new KernelError(
    "EINVAL",
    op,
    `${what} is neither a mapping nor a part of one: give what mmap() or range() gave`,
  );
}
