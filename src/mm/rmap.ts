/** From a page of an object to every page-table entry that maps it. */
import {
  isPromise,
  type MaybePromise,
  PAGE_SIZE,
  traceCount,
  traceLatest,
  traceNow,
  traceOn,
  type VirtAddr,
  vpnOf,
} from "../base/index.ts";
import type { MemoryObject } from "./memory-object.ts";
import type { MmuNotifierRange, MmuNotifyEvent } from "./ports.ts";
import { PTE_PRESENT, PTE_WRITE } from "./pte.ts";
import { coversParts } from "./range-parts.ts";
import { tracedEnd, tracedStart } from "./trace-mm.ts";
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
 * changed state meanwhile: `change` looks again. Spaces that mapped the pages while others were being told are told too.
 * `told` is for tracing: a moment ago, if the caller has looked at the clock.
 */
export function announceOnObject<T>(
  object: MemoryObject,
  page: number,
  end: number,
  event: MmuNotifyEvent,
  change: () => T,
  owner?: object,
  told = 0,
): MaybePromise<T> {
  const collect = () => mappedRanges(object, page, end, event, owner);
  const ranges = collect();
  return announce(ranges, change, collect, told);
}

/** The ranges at which spaces with notifiers map pages `[page, end)`. */
function mappedRanges(
  object: MemoryObject,
  page: number,
  end: number,
  event: MmuNotifyEvent,
  owner: object | undefined,
): MmuNotifierRange[] {
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
  return ranges;
}

/**
 * {@link announceOnObject} for many runs of pages at once: pages `[runs[0], runs[1])`, `[runs[2], runs[3])` and so on, in order.
 * Each mapping is told once.
 */
export function announceRuns<T>(
  object: MemoryObject,
  runs: readonly number[],
  event: MmuNotifyEvent,
  change: () => T,
): MaybePromise<T> {
  const collect = () => partedRanges(object, runs, event);
  return announce(collect(), change, collect);
}

function partedRanges(object: MemoryObject, runs: readonly number[], event: MmuNotifyEvent): MmuNotifierRange[] {
  const ranges: MmuNotifierRange[] = [];
  forEachMapping(object, runs[0], runs[runs.length - 1], (vma, vpn, vpnEnd) => {
    if (vma.mm.notifiers === undefined) {
      return;
    }
    const toVpn = vpnOf(vma.start) - vma.pgoff;
    const parts = new Float64Array(runs.length);
    let used = 0;
    for (let i = 0; i < runs.length; i += 2) {
      const from = Math.max(vpn, runs[i] + toVpn);
      const to = Math.min(vpnEnd, runs[i + 1] + toVpn);
      if (from < to) {
        parts[used++] = from * PAGE_SIZE;
        parts[used++] = to * PAGE_SIZE;
      }
    }
    if (used > 0) {
      const [start, end] = [parts[0] as VirtAddr, parts[used - 1] as VirtAddr];
      ranges.push({ mm: vma.mm, start, end, blockable: true, event, vma, parts: parts.subarray(0, used) });
    }
  });
  return ranges;
}

/**
 * {@link announceOnObject} for ranges that the caller found. `collect` finds them anew, when they may change while
 * callbacks wait.
 */
export function announce<T>(
  ranges: MmuNotifierRange[],
  change: () => T,
  collect?: () => MmuNotifierRange[],
  told = 0,
): MaybePromise<T> {
  for (let i = 0; i < ranges.length; i++) {
    const started = startOf(ranges[i], i === 0 ? told : 0);
    if (started !== undefined && isPromise(started)) {
      return announceRest(ranges, i, started, change, collect);
    }
  }
  let value: T;
  const before = traceCount;
  try {
    value = change();
  } catch (error) {
    const ended = endAll(ranges, before);
    if (ended === undefined) {
      throw error;
    }
    return ended.then(() => {
      throw error;
    });
  }
  return endAll(ranges, before)?.then(() => value) ?? value;
}

function startOf(range: MmuNotifierRange, told = 0): MaybePromise<0 | "EAGAIN"> | undefined {
  if (traceOn) {
    return tracedStart(range, told === 0 ? traceNow() : told);
  }
  return range.mm.notifiers?.invalidateRangeStart(range);
}

async function announceRest<T>(
  ranges: MmuNotifierRange[],
  at: number,
  started: Promise<unknown>,
  change: () => T,
  collect: (() => MmuNotifierRange[]) | undefined,
): Promise<T> {
  // A space may exit while the callbacks of another one wait; its subscriptions must live until they are told the end.
  const grabbed = ranges.map((range) => range.mm);
  for (const mm of grabbed) {
    mm.mmgrab();
  }
  let told = at;
  let before: number | undefined;
  try {
    await started;
    told++;
    do {
      for (; told < ranges.length; told++) {
        await startOf(ranges[told]);
      }
      for (const range of newRanges(ranges, collect)) {
        range.mm.mmgrab();
        grabbed.push(range.mm);
        ranges.push(range);
      }
    } while (told < ranges.length);
    before = traceCount;
    return change();
  } finally {
    await endAll(ranges.slice(0, told), before);
    for (const mm of grabbed) {
      mm.mmdrop();
    }
  }
}

/** What is mapped now and has not been told. */
function newRanges(
  told: readonly MmuNotifierRange[],
  collect: (() => MmuNotifierRange[]) | undefined,
): MmuNotifierRange[] {
  return (collect?.() ?? []).filter(
    (found) => !told.some((range) => range.mm === found.mm && coversParts(range, found)),
  );
}

/** Tells the end of every range; a promise when a callback has to wait. `before`: events that had been sent before the change. */
function endAll(ranges: readonly MmuNotifierRange[], before: number | undefined): Promise<void> | undefined {
  let pending: Promise<void>[] | undefined;
  // An event that the change has sent is the last thing that it did.
  const now = before === undefined || before === traceCount ? traceNow() : traceLatest();
  for (const range of ranges) {
    if (traceOn) {
      tracedEnd(range, now);
    }
    const ended = range.mm.notifiers?.invalidateRangeEnd(range);
    if (ended !== undefined && isPromise(ended)) {
      pending ??= [];
      pending.push(ended);
    }
  }
  return pending === undefined ? undefined : Promise.all(pending).then(() => undefined);
}

/** Whether an entry lets somebody write one of the pages. */
export function isWritable(object: MemoryObject, page: number, end: number): boolean {
  return areWritable(object, [page, end], 0);
}

/** {@link isWritable} of runs of pages: `[runs[0] + shift, runs[1] + shift)` and so on, in order. */
export function areWritable(object: MemoryObject, runs: readonly number[], shift: number): boolean {
  let writable = false;
  forEachMapping(object, runs[0] + shift, runs[runs.length - 1] + shift, (vma, vpn, vpnEnd) => {
    const toVpn = vpnOf(vma.start) - vma.pgoff + shift;
    writable ||= vma.mm.pageTable.someInRuns(runs, toVpn, vpn, vpnEnd, WRITABLE_ENTRY, WRITABLE_ENTRY, true);
  });
  return writable;
}

const WRITABLE_ENTRY = PTE_PRESENT | PTE_WRITE;

/**
 * Whether the pages of a VMA are all there to be read, and nobody can write one: runs as {@link areWritable} has them. False
 * also where somebody else maps the object, or a lease may write.
 */
export function areReadOnly(vma: Vma, runs: readonly number[], shift: number): boolean {
  const { object } = vma;
  const [page, end] = [runs[0] + shift, runs[runs.length - 1] + shift];
  const toVpn = vpnOf(vma.start) - vma.pgoff + shift;
  return (
    object.vmas.size === 1 &&
    !object.isPinned(page, end, "rw") &&
    !vma.mm.pageTable.someInRuns(runs, toVpn, vpnOf(vma.start), vpnOf(vma.end), WRITABLE_ENTRY, PTE_PRESENT, false)
  );
}

/**
 * Takes write permission from pages `[page, end)` wherever they are mapped, so that the next write is a fault and is
 * announced. Mirrors are told before, for a device may write a page in place by an entry of its own; `owner`'s is let pass.
 * The caller looks again, with {@link isWritable}, when it has waited.
 *
 * Pages under a write pin cannot be protected; false when there is one (nothing was changed then).
 * @linux mm/mapping_dirty_helpers.c wp_shared_mapping_range
 */
export function writeProtectPages(
  object: MemoryObject,
  page: number,
  end: number,
  owner?: object,
): MaybePromise<boolean> {
  if (object.isPinned(page, end, "rw")) {
    return false;
  }
  if (!isWritable(object, page, end)) {
    return true;
  }
  const protect = () => protectEntries(object, page, end);
  return announceOnObject(object, page, end, "protection-page", protect, owner);
}

/** {@link writeProtectPages} of runs of pages, as {@link areWritable} has them. */
export function writeProtectRuns(
  object: MemoryObject,
  runs: readonly number[],
  shift: number,
  owner?: object,
): MaybePromise<boolean> {
  const [page, end] = [runs[0] + shift, runs[runs.length - 1] + shift];
  return areWritable(object, runs, shift)
    ? writeProtectPages(object, page, end, owner)
    : !object.isPinned(page, end, "rw");
}

function protectEntries(object: MemoryObject, page: number, end: number): boolean {
  if (object.isPinned(page, end, "rw")) {
    return false;
  }
  forEachMapping(object, page, end, (vma, vpn, vpnEnd) => {
    vma.mm.pageTable.forEachRun(vpn, vpnEnd, (block, from, to) => {
      for (let i = from; i < to; i++) {
        if ((block[i] & WRITABLE_ENTRY) === WRITABLE_ENTRY) {
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
