/** Checks of the address arguments of system calls. */
import {
  addLength,
  formatAddr,
  formatRange,
  isPageAligned,
  KernelError,
  PAGE_SIZE,
  pageAlignUp,
  type VirtAddr,
  type VirtRange,
  virtAddr,
} from "../base/index.ts";
import type { AddressSpace } from "./address-space.ts";

/**
 * A page-aligned range from a start and a length, the length rounded up.
 * @throws KernelError EINVAL not page aligned, not integers, empty, or out of the address space
 */
export function pageRange(op: string, start: number, length: number): VirtRange {
  const from = virtAddr(start, op);
  if (!isPageAligned(from)) {
    throw new KernelError("EINVAL", op, `${formatAddr(from)} is not a multiple of the page size ${PAGE_SIZE}`);
  }
  assertLength(op, length);
  const end = addLength(from, pageAlignUp(length));
  if (end === undefined) {
    throw new KernelError("EINVAL", op, `${formatAddr(from)} + ${length} leaves the address space of 2^48 bytes`);
  }
  return { start: from, end };
}

/** @throws KernelError EINVAL unless the length is a positive integer */
export function assertLength(op: string, length: number): void {
  if (!Number.isSafeInteger(length) || length <= 0) {
    throw new KernelError("EINVAL", op, `a length of ${length} bytes: use an integer above 0`);
  }
}

/** @throws KernelError EINVAL unless they are a typed array, a DataView or a Buffer */
export function assertBytes(op: string, bytes: ArrayBufferView): void {
  if (!ArrayBuffer.isView(bytes)) {
    throw new KernelError("EINVAL", op, "what is written is no typed array: give bytes, as Uint8Array.of(1, 2)");
  }
}

/**
 * Checks that the whole range is mapped.
 * @throws KernelError ENOMEM a hole (as the kernel's mprotect and madvise say)
 */
export function assertNoHoles(mm: AddressSpace, op: string, start: VirtAddr, end: VirtAddr): void {
  let at = start;
  while (at < end) {
    const vma = mm.vmas.find(at);
    if (vma === undefined) {
      throw new KernelError("ENOMEM", op, `${formatRange({ start: at, end })} is not mapped: mmap it first`);
    }
    at = vma.end;
  }
}
