/** From a page of an object to every page-table entry that maps it. */
import { isPromise, type MaybePromise, PAGE_SIZE, type VirtAddr, vpnOf } from "../base/index.ts";
import type { MemoryObject } from "./memory-object.ts";
import type { MmuNotifierRange, MmuNotifyEvent } from "./ports.ts";
import { PTE_PRESENT, PTE_WRITE } from "./pte.ts";
import type { Vma } from "./vma.ts";

/** Calls `visit` with the part of each VMA that maps pages `[page, end)`, in virtual page numbers. */
export function forEachMapping(
  object: MemoryObject,
  page: number,
  end: number,
  visit: (vma: Vma, vpn: number, vpnEnd: number) => void,
): void {
  object.vmas.forEachOverlap(page, end, (vma) => {
    const first = vpnOf(vma.start) - vma.pgoff;
    visit(vma, first + Math.max(page, vma.pgoff), first + Math.min(end, vma.pgoff + vma.pages));
  });
}

/**
 * Tells every address space that maps pages `[page, end)` of the object, changes them, and tells the end.
 *
 * `change` runs synchronously between the last start and the first end. Callbacks wait for devices, so pages may have
 * changed state meanwhile: `change` looks again.
 */
export function announceOnObject<T>(
  object: MemoryObject,
  page: number,
  end: number,
  event: MmuNotifyEvent,
  change: () => T,
  owner?: object,
): MaybePromise<T> {
  const ranges: MmuNotifierRange[] = [];
  forEachMapping(object, page, end, (vma, vpn, vpnEnd) => {
    if (vma.mm.notifiers !== undefined) {
      ranges.push({
        mm: vma.mm,
        start: (vpn * PAGE_SIZE) as VirtAddr,
        end: (vpnEnd * PAGE_SIZE) as VirtAddr,
        blockable: true,
        event,
        vma,
        owner,
      });
    }
  });
  return announce(ranges, change);
}

/** {@link announceOnObject} for ranges that the caller found. */
export function announce<T>(ranges: readonly MmuNotifierRange[], change: () => T): MaybePromise<T> {
  for (let i = 0; i < ranges.length; i++) {
    const started = ranges[i].mm.notifiers?.invalidateRangeStart(ranges[i]);
    if (started !== undefined && isPromise(started)) {
      return announceRest(ranges, i, started, change);
    }
  }
  let value: T;
  try {
    value = change();
  } catch (error) {
    return finish(ranges, Promise.reject(error));
  }
  return finish(ranges, value);
}

async function announceRest<T>(
  ranges: readonly MmuNotifierRange[],
  at: number,
  started: Promise<unknown>,
  change: () => T,
): Promise<T> {
  await started;
  for (let i = at + 1; i < ranges.length; i++) {
    await ranges[i].mm.notifiers?.invalidateRangeStart(ranges[i]);
  }
  try {
    return change();
  } finally {
    for (const range of ranges) {
      await range.mm.notifiers?.invalidateRangeEnd(range);
    }
  }
}

function finish<T>(ranges: readonly MmuNotifierRange[], value: MaybePromise<T>): MaybePromise<T> {
  let pending: Promise<void>[] | undefined;
  for (const range of ranges) {
    const ended = range.mm.notifiers?.invalidateRangeEnd(range);
    if (ended !== undefined && isPromise(ended)) {
      pending ??= [];
      pending.push(ended);
    }
  }
  return pending === undefined ? value : Promise.all(pending).then(() => value);
}

/**
 * Takes CPU write permission from pages `[page, end)` wherever they are mapped, so that the next CPU write is a fault
 * and is announced. Needs no announcement itself: no device entry grants more than before.
 *
 * Pages under a write pin cannot be protected; false when there is one (nothing was changed then).
 * @linux mm/mapping_dirty_helpers.c wp_shared_mapping_range
 */
export function writeProtectPages(object: MemoryObject, page: number, end: number): boolean {
  if (object.isPinned(page, end, "rw")) {
    return false;
  }
  forEachMapping(object, page, end, (vma, vpn, vpnEnd) => {
    vma.mm.pageTable.forEachRun(vpn, vpnEnd, (block, from, to) => {
      for (let i = from; i < to; i++) {
        if (block[i] & PTE_PRESENT) {
          block[i] &= ~PTE_WRITE;
        }
      }
    });
  });
  return true;
}

/** Replaces every existing entry that maps pages `[page, end)`: `next(entry, vma, page)` gives the new one. */
export function rewriteEntries(
  object: MemoryObject,
  page: number,
  end: number,
  next: (pte: number, vma: Vma, page: number) => number,
): void {
  forEachMapping(object, page, end, (vma, vpn, vpnEnd) => {
    const toPage = vma.pgoff - vpnOf(vma.start);
    vma.mm.pageTable.forEachRun(vpn, vpnEnd, (block, from, to, first) => {
      for (let i = from; i < to; i++) {
        if (block[i] !== 0) {
          block[i] = next(block[i], vma, first + (i - from) + toPage);
        }
      }
    });
  });
}
