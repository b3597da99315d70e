/**
 * Page faults: making an access to a range possible.
 *
 * A fault prepares the object's pages (which may wait for a device or a pager), then sets entries. Every transition of
 * an entry to writable is announced to the notifiers first, also that of an entry that was absent: a device may hold a
 * read copy of the page, since "device access to system memory" is a copy in WebGPU.
 */
import {
  blockOfVpn,
  chain,
  formatAddr,
  indexInBlock,
  isPromise,
  KernelError,
  type MaybePromise,
  PAGES_PER_BLOCK,
  traceCount,
  traceFault,
  traceIdOf,
  traceLatest,
  traceNow,
  traceOn,
  vpnOf,
} from "../base/index.ts";
import type { MmapRead } from "../sync/index.ts";
import type { AddressSpace } from "./address-space.ts";
import type { MemoryObject } from "./memory-object.ts";
import { poisonedIn } from "./object-content.ts";
import { framePfn } from "./object-migrate.ts";
import { type PageNeed, pagesAreReady, preparePages } from "./object-prepare.ts";
import { PageFlag } from "./page-flags.ts";
import { PTE_PRESENT, PTE_WRITE, ptePresent } from "./pte.ts";
import { announceOnObject } from "./rmap.ts";
import { type Vma, VmFlags } from "./vma.ts";

/** @linux include/linux/mm_types.h vm_fault_t */
export type FaultOutcome = "mapped" | "retry" | "sigsegv" | "sigbus" | "hwpoison" | "oom";

/** How {@link handleMmFault} is asked. @linux include/linux/mm_types.h FAULT_FLAG_WRITE, FAULT_FLAG_ALLOW_RETRY */
export interface FaultFlags {
  readonly write: boolean;
  /** The fault may drop the mmap lock instead of waiting under it; it then answers "retry". */
  readonly allowRetry?: boolean | undefined;
}

/** Entries that are set in no time worth telling. */
const FEW_ENTRIES = 16;

const SPECIAL_VMA = VmFlags.Io | VmFlags.PfnMap | VmFlags.MixedMap;

/**
 * Faults in `[start, end)` of one VMA for a device: entries are present (and writable) afterwards, the bytes need not be
 * in a CPU window.
 *
 * Locks: mmapLock, read. "retry" (only with `allowRetry`) means that **the lock has been released**.
 * @linux mm/memory.c handle_mm_fault
 */
export function handleMmFault(
  mm: AddressSpace,
  lock: MmapRead,
  vma: Vma,
  start: number,
  end: number,
  flags: FaultFlags,
): MaybePromise<FaultOutcome> {
  mm.mmapLock.assertGuard(lock, "handleMmFault");
  try {
    const need: PageNeed = { cpu: false, write: flags.write };
    const faulted = flags.allowRetry ? faultOrRelease(lock, vma, start, end, need) : faultVma(vma, start, end, need);
    return isPromise(faulted) ? faulted.then((o) => o ?? "mapped", outcomeOf) : (faulted ?? "mapped");
  } catch (error) {
    return outcomeOf(error);
  }
}

function outcomeOf(error: unknown): FaultOutcome {
  if (error instanceof KernelError) {
    switch (error.code) {
      case "ENOMEM":
        return "oom";
      case "EHWPOISON":
        return "hwpoison";
      case "EFAULT":
      case "EACCES":
        return "sigsegv";
      default:
        return "sigbus";
    }
  }
  throw error;
}

/** Waits with the mmap lock released when the fault cannot be served at once. */
function faultOrRelease(
  lock: MmapRead,
  vma: Vma,
  start: number,
  end: number,
  need: PageNeed,
): MaybePromise<"retry" | undefined> {
  const { object } = vma;
  const page = vma.objectPage(start);
  const pageEnd = vma.objectPage(end - 1) + 1;
  if (pagesAreReady(object, page, Math.min(pageEnd, object.pages), need) || failedUnlocked.delete(object)) {
    return faultUnderLock(vma, start, end, need);
  }
  assertAccess(vma, start, need);
  const prepared = preparePages(object, page, Math.min(pageEnd, object.pages), need);
  if (!isPromise(prepared)) {
    return faultUnderLock(vma, start, end, need);
  }
  object.get();
  lock[Symbol.dispose]();
  return prepared
    .then(
      () => undefined,
      // "retry" is the only answer that says that the lock is gone. The next try meets the error under the lock.
      () => void failedUnlocked.add(object),
    )
    .then(() => object.put())
    .then(() => "retry");
}

function faultUnderLock(vma: Vma, start: number, end: number, need: PageNeed): MaybePromise<undefined> {
  return chain(faultVma(vma, start, end, need), () => undefined);
}

/** Objects whose last fault failed while the mmap lock was released: the next one waits under the lock instead. */
const failedUnlocked = new WeakSet<MemoryObject>();

/**
 * Faults in the part `[start, end)` of a VMA.
 *
 * Locks: mmapLock, read, held by the caller throughout.
 * @throws KernelError EFAULT no permission to read, or past the object's end; EACCES no permission to write; EHWPOISON a
 *   page was lost; EIO the pager failed; ENOMEM. A failed fault changes no entry.
 */
export function faultVma(vma: Vma, start: number, end: number, need: PageNeed, since?: number): MaybePromise<void> {
  assertAccess(vma, start, need);
  assertInObject(vma, start, end);
  const { object } = vma;
  const page = vma.objectPage(start);
  const pageEnd = vma.objectPage(end - 1) + 1;
  const began = since ?? traceNow();
  const unreserve = reserveBlocks(vma, start, page, pageEnd, need);
  try {
    // Where there is nothing to prepare, notifiers are told when the fault begins.
    let told = traceOn && since === undefined && pagesAreReady(object, page, pageEnd, need) ? began : 0;
    for (;;) {
      const prepared = told === 0 ? preparePages(object, page, pageEnd, need) : "ready";
      if (isPromise(prepared)) {
        return prepared.then(() => faultVma(vma, start, end, need, began));
      }
      if (prepared === "poisoned") {
        throw poisonedIn(object, page, pageEnd);
      }
      const mapped = mapReadyPages(vma, start, page, pageEnd, need, began, told);
      if (isPromise(mapped)) {
        return mapped.then((done) => (done ? undefined : faultVma(vma, start, end, need, began)));
      }
      if (mapped) {
        return undefined;
      }
      told = 0;
    }
  } catch (error) {
    unreserve?.();
    throw error;
  }
}

/**
 * Makes what the fault needs, so that it fails before anything else happened. Returns how to undo that; undefined when
 * everything was there.
 */
function reserveBlocks(vma: Vma, start: number, page: number, end: number, need: PageNeed): (() => void) | undefined {
  const { object, mm } = vma;
  const vpn = vpnOf(start);
  const vpnEnd = vpn + (end - page);
  if (hasBlocks(mm, vpn, vpnEnd)) {
    return undefined;
  }
  if (need.cpu) {
    object.windows.ensureAll(page, end);
  }
  const made = object.reserve(page, end);
  // Page-table blocks stay: another fault may count on them by now.
  const unreserve = () => object.unreserve(made);
  try {
    mm.pageTable.reserve(vpn, vpnEnd);
  } catch (error) {
    unreserve();
    throw error;
  }
  return unreserve;
}

function hasBlocks(mm: AddressSpace, vpn: number, end: number): boolean {
  for (let b = blockOfVpn(vpn); b <= blockOfVpn(end - 1); b++) {
    if (mm.pageTable.block(b) === undefined) {
      return false;
    }
  }
  return true;
}

function assertAccess(vma: Vma, addr: number, need: PageNeed): void {
  if (vma.flags & SPECIAL_VMA) {
    throw new KernelError("EFAULT", "fault", `${formatAddr(addr)} in ${vma.name} has no pages of memory behind it`);
  }
  if ((vma.flags & VmFlags.Read) === 0) {
    throw new KernelError("EFAULT", "fault", `${formatAddr(addr)} in ${vma.name} is not readable: mprotect it first`);
  }
  if (need.write && (vma.flags & VmFlags.Write) === 0) {
    throw new KernelError(
      "EACCES",
      "fault",
      `${formatAddr(addr)} in ${vma.name} is read-only: map it writable, or mprotect it`,
    );
  }
}

function assertInObject(vma: Vma, start: number, end: number): void {
  const { object } = vma;
  if (vma.objectPage(end - 1) >= object.pages) {
    const at = vma.addrOfPage(Math.max(vma.objectPage(start), object.pages));
    throw new KernelError(
      "EFAULT",
      "fault",
      `${formatAddr(at)} is past the end of ${vma.name}: access only its first ${object.pages} pages`,
    );
  }
}

/** Sets the entries of pages that are ready. False when they ceased to be while notifiers were told. */
function mapReadyPages(
  vma: Vma,
  start: number,
  page: number,
  end: number,
  need: PageNeed,
  since: number,
  told: number,
): MaybePromise<boolean> {
  const { mm, object } = vma;
  const vpn = vpnOf(start);
  const wanted = need.write ? PTE_PRESENT | PTE_WRITE : PTE_PRESENT;
  const count = end - page;
  const from = firstWithout(mm, vpn, vpn + count, wanted);
  if (from === vpn + count) {
    return true;
  }
  const to = lastWithout(mm, from, vpn + count, wanted);
  const first = page + (from - vpn);
  const last = page + (to - vpn);
  const before = traceCount;
  const commit = () => {
    // Reserved again: while callbacks were waited for, madvise may have given blocks of the object back.
    object.reserve(first, last);
    setEntries(vma, from, first, last, need.write);
    if (traceOn) {
      // Setting a few entries takes less than looking at the clock: it is still the time at which notifiers had let go.
      const now = traceCount !== before && to - from <= FEW_ENTRIES ? traceLatest() : undefined;
      traceFault(traceIdOf(mm), from, to, need.write, !need.cpu, since, now);
    }
    return true;
  };
  if (!need.write) {
    return commit();
  }
  const change = () => pagesAreReady(object, page, end, need) && commit();
  return announceOnObject(object, first, last, "clear", change, undefined, told);
}

/** First page of `[vpn, end)` whose entry lacks one of the bits, or `end`. */
function firstWithout(mm: AddressSpace, vpn: number, end: number, bits: number): number {
  for (let v = vpn; v < end; ) {
    const block = mm.pageTable.block(blockOfVpn(v));
    if (block === undefined) {
      return v;
    }
    const index = indexInBlock(v);
    const stop = Math.min(PAGES_PER_BLOCK, index + (end - v));
    for (let i = index; i < stop; i++) {
      if ((block[i] & bits) !== bits) {
        return v + (i - index);
      }
    }
    v += stop - index;
  }
  return end;
}

/** One past the last page of `[vpn, end)` whose entry lacks one of the bits. */
function lastWithout(mm: AddressSpace, vpn: number, end: number, bits: number): number {
  for (let v = end; v > vpn; ) {
    const index = indexInBlock(v - 1);
    const stop = Math.max(0, index + 1 - (v - vpn));
    const block = mm.pageTable.block(blockOfVpn(v - 1));
    for (let i = index; i >= stop; i--) {
      if (block === undefined || (block[i] & bits) !== bits) {
        return v - (index - i);
      }
    }
    v -= index + 1 - stop;
  }
  return vpn;
}

/** Cannot fail: blocks are reserved. Entries that grant enough already stay as they are. */
function setEntries(vma: Vma, vpn: number, page: number, end: number, write: boolean): void {
  const { object } = vma;
  const { pageTable } = vma.mm;
  const coherent = (object.flagSummary(page, end) & PageFlag.Coherent) !== 0;
  let v = vpn;
  for (let p = page; p < end; ) {
    const pteIndex = indexInBlock(v);
    const frameIndex = indexInBlock(p);
    const run = Math.min(PAGES_PER_BLOCK - Math.max(pteIndex, frameIndex), end - p);
    const block = pageTable.ensureBlock(blockOfVpn(v));
    const first = object.ensureBlock(blockOfVpn(p)).pfn + frameIndex;
    for (let i = 0; i < run; i++) {
      const pte = block[pteIndex + i];
      const pfn = coherent ? framePfn(object, p + i) : first + i;
      if (write) {
        block[pteIndex + i] = ptePresent(pfn, PTE_WRITE);
      } else if ((pte & PTE_PRESENT) === 0) {
        block[pteIndex + i] = ptePresent(pfn, 0);
      }
    }
    v += run;
    p += run;
  }
  if (write && object.pager !== undefined) {
    object.updateFlags(page, end, PageFlag.Dirty, 0);
  }
}

/**
 * Faults in `[start, end)`, which may span several VMAs.
 *
 * Locks: mmapLock, read, held by the caller throughout.
 * @throws KernelError EFAULT a hole; else as {@link faultVma}
 */
export function faultRange(mm: AddressSpace, start: number, end: number, need: PageNeed): MaybePromise<void> {
  const first = vmaAt(mm, start);
  if (end <= first.end) {
    return faultVma(first, start, end, need);
  }
  // What cannot be had at all is refused before the first part changes.
  for (let vma = first; ; vma = vmaAt(mm, vma.end)) {
    const from = Math.max(start, vma.start);
    assertAccess(vma, from, need);
    assertInObject(vma, from, Math.min(end, vma.end));
    if (vma.end >= end) {
      break;
    }
  }
  const faulted = faultVma(first, start, first.end, need);
  return chain(faulted, () => faultRange(mm, first.end, end, need));
}

function vmaAt(mm: AddressSpace, addr: number): Vma {
  const vma = mm.vmas.find(addr);
  if (vma === undefined) {
    throw new KernelError("EFAULT", "fault", `nothing is mapped at ${formatAddr(addr)}: mmap it first`);
  }
  return vma;
}
