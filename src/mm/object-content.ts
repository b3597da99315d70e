/** Bytes of an object's pages: reading them from wherever they are, and bringing them into the CPU window. */
import {
  blockOfVpn,
  indexInBlock,
  invariant,
  isPromise,
  KernelError,
  type MaybePromise,
  PAGE_SIZE,
  PAGES_PER_BLOCK,
} from "../base/index.ts";
import type { MemoryObject } from "./memory-object.ts";
import { migrateToRam } from "./object-migrate.ts";
import { PageFlag } from "./page-flags.ts";
import type { Pager } from "./ports.ts";
import { forEachWindow, windowEnd } from "./window-pages.ts";

/** What a page's flags alone say about its bytes; `Base` means that they come from below: source, pager, or zeros. */
const Place = { Base: 0, Zero: 1, Window: 2, Device: 3, Poisoned: 4, Busy: 5 } as const;

/** Flags to {@link Place}: the hot loops look a byte up instead of testing five bits. */
const PLACE = Uint8Array.from({ length: 256 }, (_, flags) => {
  if (flags & PageFlag.Busy) {
    return Place.Busy;
  }
  if (flags & PageFlag.Poisoned) {
    return Place.Poisoned;
  }
  if (flags & PageFlag.Device) {
    return Place.Device;
  }
  if (flags & PageFlag.Uptodate) {
    return Place.Window;
  }
  return flags & PageFlag.Own ? Place.Zero : Place.Base;
});

/** What to do about a page in transit: wait, or read it, which only the one who isolated it for a migration may. */
export type Transit = "wait" | "isolated";

const ALL_FLAGS = 0xff;

function flagMask(transit: Transit): number {
  return transit === "isolated" ? ALL_FLAGS & ~PageFlag.Busy : ALL_FLAGS;
}

/** True when a page is zeros that nobody ever wrote: its bytes need not be read to be known. */
export function isZeroPage(object: MemoryObject, page: number, transit: Transit = "wait"): boolean {
  const place = PLACE[object.flagsOf(page) & flagMask(transit)];
  if (place !== Place.Base) {
    return place === Place.Zero;
  }
  if (object.source !== undefined && page < object.sourcePages) {
    return isZeroPage(object.source, page + object.sourcePage);
  }
  return object.pager === undefined;
}

/** One past the last page from `page` on, below `end`, whose bytes are in the same place. */
function placeRunEnd(object: MemoryObject, page: number, end: number, place: number, mask = ALL_FLAGS): number {
  // Pages of a copy that grew are zeros where its source ends.
  const limit =
    place === Place.Base && object.source !== undefined && page < object.sourcePages
      ? Math.min(end, object.sourcePages)
      : end;
  for (let p = page; p < limit; ) {
    const index = indexInBlock(p);
    const stop = Math.min(PAGES_PER_BLOCK, index + (limit - p));
    const flags = object.block(blockOfVpn(p))?.flags;
    if (flags === undefined) {
      if (place !== Place.Base) {
        return p;
      }
    } else {
      for (let i = index; i < stop; i++) {
        if (PLACE[flags[i] & mask] !== place) {
          return p + (i - index);
        }
      }
    }
    p += stop - index;
  }
  return limit;
}

/** A read that cannot go on at once. `again`: look anew at the pages it was about; else they have been read. */
interface Blocked {
  readonly wait: Promise<void>;
  readonly again: boolean;
  /** Pages from the start of the read up to and including those that `wait` is about. */
  readonly pages: number;
}

/**
 * Copies the bytes of pages `[page, end)` to `dst` without changing any state but the source's residence.
 *
 * Synchronous while all bytes are in windows or zeros. Waits for pages in transit.
 * @throws KernelError EHWPOISON when a page was lost; EIO from the pager
 */
export function readPages(
  object: MemoryObject,
  page: number,
  end: number,
  dst: Uint8Array,
  transit: Transit = "wait",
): MaybePromise<void> {
  const blocked = readNow(object, page, end, dst, flagMask(transit));
  if (blocked === undefined) {
    return undefined;
  }
  // After a wait the search starts at the top again: a copy in between may have got its own bytes while its source
  // went on to change.
  return blocked.wait.then(() => {
    const p = blocked.again ? page : page + blocked.pages;
    return p < end ? readPages(object, p, end, dst.subarray((p - page) * PAGE_SIZE), transit) : undefined;
  });
}

/** Reads until something has to be waited for. */
function readNow(
  object: MemoryObject,
  page: number,
  end: number,
  dst: Uint8Array,
  mask = ALL_FLAGS,
): Blocked | undefined {
  for (let p = page; p < end; ) {
    const place = PLACE[object.flagsOf(p) & mask];
    const stop = placeRunEnd(object, p, end, place, mask);
    const to = dst.subarray((p - page) * PAGE_SIZE, (stop - page) * PAGE_SIZE);
    const blocked = readRun(object, p, stop, place, to);
    if (blocked !== undefined) {
      return { ...blocked, pages: p - page + blocked.pages };
    }
    p = stop;
  }
  return undefined;
}

function readRun(object: MemoryObject, page: number, end: number, place: number, dst: Uint8Array): Blocked | undefined {
  const pages = end - page;
  switch (place) {
    case Place.Window:
      forEachWindow(page, end, (p, stop) =>
        dst.subarray((p - page) * PAGE_SIZE, (stop - page) * PAGE_SIZE).set(object.windows.bytes(p, stop)),
      );
      return undefined;
    case Place.Device:
      return { wait: migrateToRam(object, page, end, "copy"), again: true, pages };
    case Place.Busy:
      return { wait: waitWhileBusy(object, page, end), again: true, pages };
    case Place.Poisoned:
      throw poisonedError(object, page);
    case Place.Base: {
      if (object.source !== undefined && page < object.sourcePages) {
        return readNow(object.source, page + object.sourcePage, end + object.sourcePage, dst);
      }
      if (object.pager !== undefined) {
        const read = object.pager.read(page * PAGE_SIZE, dst);
        return isPromise(read) ? { wait: read, again: false, pages } : undefined;
      }
      dst.fill(0);
      return undefined;
    }
    default:
      dst.fill(0);
      return undefined;
  }
}

/** Calls `visit` for the pieces of pages `[page, end)` that a read would take from a pager. */
export function forEachPaged(
  object: MemoryObject,
  page: number,
  end: number,
  visit: (pager: Pager, offset: number, length: number) => void,
): void {
  for (let p = page; p < end; ) {
    const place = PLACE[object.flagsOf(p)];
    const stop = placeRunEnd(object, p, end, place);
    if (place === Place.Base && object.source !== undefined && p < object.sourcePages) {
      forEachPaged(object.source, p + object.sourcePage, stop + object.sourcePage, visit);
    } else if (place === Place.Base && object.pager !== undefined) {
      visit(object.pager, p * PAGE_SIZE, (stop - p) * PAGE_SIZE);
    }
    p = stop;
  }
}

/** What a user of a page is told whose only copy was lost. */
export function poisonedError(object: MemoryObject, page: number): KernelError {
  const what = object.pager === undefined ? "" : ` of ${object.pager.name}`;
  return new KernelError(
    "EHWPOISON",
    "fault",
    `page ${page}${what} was lost with the device that held its only copy: unmap it, or map it anew`,
  );
}

/** {@link poisonedError} of the first lost page of `[page, end)`, which has one. */
export function poisonedIn(object: MemoryObject, page: number, end: number): KernelError {
  let p = page;
  while (p < end - 1 && !(object.flagsOf(p) & PageFlag.Poisoned)) {
    p++;
  }
  return poisonedError(object, p);
}

/** Resolves when none of the pages is in transit. */
export async function waitWhileBusy(object: MemoryObject, page: number, end: number): Promise<void> {
  await object.wq.wait(() => (object.flagSummary(page, end) & PageFlag.Busy) === 0);
}

/**
 * Brings the bytes of pages `[page, end)` into the window, page by page where they are not there yet. Pages that are in
 * transit, on a device or lost are left alone: the caller has seen none, or looks again.
 *
 * Synchronous when no source or pager has to be waited for.
 * @throws KernelError ENOMEM; EIO and EHWPOISON of the source; nothing has changed for the pages that failed
 */
export function pullPages(object: MemoryObject, page: number, end: number): MaybePromise<void> {
  object.windows.ensureAll(page, end);
  object.reserve(page, end);
  for (let p = page; p < end; ) {
    const place = PLACE[object.flagsOf(p)];
    let stop = placeRunEnd(object, p, end, place);
    if (place === Place.Base || place === Place.Zero) {
      stop = windowEnd(p, stop);
      const pulled =
        place === Place.Zero || isBaseZero(object, p) ? pullZeros(object, p, stop) : pullRun(object, p, stop);
      if (pulled !== undefined) {
        return stop < end ? pullRest(object, stop, end, pulled) : pulled;
      }
    }
    p = stop;
  }
  return undefined;
}

async function pullRest(object: MemoryObject, page: number, end: number, pulled: Promise<void>): Promise<void> {
  // The object may lose its last user between two runs.
  object.get();
  try {
    await pulled;
    await pullPages(object, page, end);
  } finally {
    await object.put();
  }
}

/** True when a page that is not the object's own yet is zeros. */
function isBaseZero(object: MemoryObject, page: number): boolean {
  return (object.source === undefined || page >= object.sourcePages) && object.pager === undefined;
}

function pullZeros(object: MemoryObject, page: number, end: number): undefined {
  if ((object.flagSummary(page, end) & PageFlag.Used) !== 0) {
    for (let p = page; p < end; p++) {
      if (object.flagsOf(p) & PageFlag.Used) {
        object.windows.bytes(p, p + 1).fill(0);
      }
    }
  }
  object.updateFlags(page, end, PageFlag.Uptodate | PageFlag.Own | PageFlag.Used, 0);
  return undefined;
}

function pullRun(object: MemoryObject, page: number, end: number): Promise<void> | undefined {
  // Marked before the read: one that fails may have left bytes behind.
  object.updateFlags(page, end, PageFlag.Used, 0);
  const read = readPagesBelow(object, page, end);
  if (read === undefined) {
    object.updateFlags(page, end, PageFlag.Uptodate | PageFlag.Own, 0);
    return undefined;
  }
  object.updateFlags(page, end, PageFlag.Busy, 0);
  // Whoever asked may not be who keeps the object: it must outlive its pages' transit.
  object.get();
  return read.then(
    () => {
      object.updateFlags(page, end, PageFlag.Uptodate | PageFlag.Own, PageFlag.Busy);
      object.wq.wakeAll();
      return object.put();
    },
    async (error: unknown) => {
      object.updateFlags(page, end, 0, PageFlag.Busy);
      object.wq.wakeAll();
      await object.put();
      throw error;
    },
  );
}

/** Reads the bytes that pages get from the source or the pager into the window. */
function readPagesBelow(object: MemoryObject, page: number, end: number): MaybePromise<void> {
  const dst = object.windows.bytes(page, end);
  if (object.source !== undefined) {
    return readPages(object.source, page + object.sourcePage, end + object.sourcePage, dst);
  }
  invariant(object.pager !== undefined, "I-MM-9", () => "a page of zeros is read from below");
  return object.pager.read(page * PAGE_SIZE, dst);
}
