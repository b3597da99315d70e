/** Pages of an object that a device has for itself, in system memory, and how they are taken from it. */
import { type MaybePromise, vpnOf } from "../base/index.ts";
import type { MemoryObject } from "./memory-object.ts";
import { PageFlag } from "./page-flags.ts";
import { PTE_NONE, PTE_WRITE, PteKind, pteIsKind, ptePfn, ptePresent } from "./pte.ts";
import { announceOnObject, rewriteEntries } from "./rmap.ts";
import { type Vma, VmFlags } from "./vma.ts";

/** Calls `visit` for the pages of `[page, end)` that a device has for itself. */
function forEachExclusive(object: MemoryObject, page: number, end: number, visit: (page: number) => void): void {
  for (const p of object.exclusive) {
    if (page <= p && p < end) {
      visit(p);
    }
  }
}

/** The pages of `[page, end)` are no device's own any more; their entries are changed by the caller. */
export function forgetExclusive(object: MemoryObject, page: number, end: number): void {
  if (object.exclusive.size > 0) {
    forEachExclusive(object, page, end, (p) => object.exclusive.delete(p));
  }
}

/** True when a device has one of the pages for itself. */
export function isExclusive(object: MemoryObject, page: number, end: number): boolean {
  let found = false;
  forEachExclusive(object, page, end, () => {
    found = true;
  });
  return found;
}

/**
 * Takes pages of `[page, end)`, none of which is locked, from the device that has them for itself: it is told, and the CPU
 * has them as before. They are locked until that is done: a device that was told and then gets a page for itself would
 * lose it again without a word.
 * @linux mm/memory.c remove_device_exclusive_entry
 */
export function revokeExclusive(object: MemoryObject, page: number, end: number): MaybePromise<void> {
  let first = end;
  let last = page;
  forEachExclusive(object, page, end, (p) => {
    first = Math.min(first, p);
    last = Math.max(last, p + 1);
  });
  if (first >= last) {
    return undefined;
  }
  object.updateFlags(first, last, PageFlag.Busy, 0);
  return announceOnObject(object, first, last, "exclusive", () => {
    rewriteEntries(object, first, last, (pte, vma) => sharedEntry(pte, vma, PTE_WRITE));
    forgetExclusive(object, first, last);
    object.updateFlags(first, last, 0, PageFlag.Busy);
    object.wq.wakeAll();
  });
}

/** In the middle of an announced change of a VMA's entries: its pages are nobody's own any more, and not writable. */
export function dropExclusive(vma: Vma): void {
  const { object, pgoff } = vma;
  if (object.exclusive.size === 0) {
    return;
  }
  vma.mm.pageTable.forEachRun(vpnOf(vma.start), vpnOf(vma.end), (block, from, to) => {
    for (let i = from; i < to; i++) {
      block[i] = sharedEntry(block[i], vma, 0);
    }
  });
  forgetExclusive(object, pgoff, pgoff + vma.pages);
}

/** The CPU's entry in place of an exclusive one. */
function sharedEntry(pte: number, vma: Vma, write: 0 | typeof PTE_WRITE): number {
  if (!pteIsKind(pte, PteKind.DeviceExclusive)) {
    return pte;
  }
  if ((vma.flags & VmFlags.Read) === 0) {
    return PTE_NONE;
  }
  return ptePresent(ptePfn(pte), vma.flags & VmFlags.Write ? write : 0);
}
