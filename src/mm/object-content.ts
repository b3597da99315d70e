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
import { type MemoryObject, PageFlag } from "./memory-object.ts";
import { migrateToRam, poisonPages } from "./object-migrate.ts";

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
      object.forEachWindow(page, end, (p, stop) =>
        dst.subarray((p - page) * PAGE_SIZE, (stop - page) * PAGE_SIZE).set(object.windowBytes(p, stop)),
      );
      return undefined;
    case Place.Device:
      return { wait: migrateToRam(object, page, end), again: true, pages };
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

export function poisonedError(object: MemoryObject, page: number): KernelError {
  const what = object.pager === undefined ? "" : ` of ${object.pager.name}`;
  return new KernelError(
    "EHWPOISON",
    "fault",
    `page ${page}${what} was lost with the device that held its only copy: unmap it, or map it anew`,
  );
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
  object.forEachWindow(page, end, (p) => object.ensureWindow(p));
  object.reserve(page, end);
  for (let p = page; p < end; ) {
    const place = PLACE[object.flagsOf(p)];
    let stop = placeRunEnd(object, p, end, place);
    if (place === Place.Base || place === Place.Zero) {
      stop = object.windowEnd(p, stop);
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
        object.windowBytes(p, p + 1).fill(0);
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
  const dst = object.windowBytes(page, end);
  if (object.source !== undefined) {
    return readPages(object.source, page + object.sourcePage, end + object.sourcePage, dst);
  }
  invariant(object.pager !== undefined, "I-MM-9", () => "a page of zeros is read from below");
  return object.pager.read(page * PAGE_SIZE, dst);
}

const COPIED = PageFlag.Uptodate | PageFlag.Own | PageFlag.Device | PageFlag.Poisoned;

/** The pages of a copy that stand over `[page, end)` of its source, clamped; empty when there is none. */
function shadowRange(shadow: MemoryObject, page: number, end: number): readonly [number, number] {
  return [Math.max(0, page - shadow.sourcePage), Math.min(shadow.sourcePages, end - shadow.sourcePage)];
}

/** True when somebody may yet read one of the copy's pages from the source: who maps it, or a copy of the copy. */
function readsSource(shadow: MemoryObject, from: number, to: number): boolean {
  if (from >= to || !lacks(shadow, from, to)) {
    return false;
  }
  let read = false;
  shadow.vmas.forEachOverlap(from, to, () => {
    read = true;
  });
  return read || shadowsLack(shadow, from, to);
}

/** True when one of the copy's pages still gets its bytes from the source. */
function lacks(shadow: MemoryObject, from: number, to: number): boolean {
  for (let p = from; p < to; ) {
    const index = indexInBlock(p);
    const stop = Math.min(PAGES_PER_BLOCK, index + (to - p));
    const flags = shadow.block(blockOfVpn(p))?.flags;
    if (flags === undefined) {
      return true;
    }
    for (let i = index; i < stop; i++) {
      if ((flags[i] & COPIED) === 0) {
        return true;
      }
    }
    p += stop - index;
  }
  return false;
}

/** True when a copy still reads one of the pages through this object. */
export function shadowsLack(object: MemoryObject, page: number, end: number): boolean {
  for (const shadow of object.shadows) {
    const [from, to] = shadowRange(shadow, page, end);
    if (readsSource(shadow, from, to)) {
      return true;
    }
  }
  return false;
}

/** Gives every copy that still reads pages `[page, end)` through this object its own bytes. What is lost is lost for both. */
export function pushToShadows(object: MemoryObject, page: number, end: number): MaybePromise<void> {
  for (const shadow of object.shadows) {
    const [from, to] = shadowRange(shadow, page, end);
    if (!readsSource(shadow, from, to)) {
      continue;
    }
    if (shadow.flagSummary(from, to) & PageFlag.Busy) {
      return waitWhileBusy(shadow, from, to).then(() => pushToShadows(object, page, end));
    }
    if (object.flagSummary(page, end) & PageFlag.Poisoned) {
      sharePoison(object, shadow, from, to);
    }
    const pulled = pullPages(shadow, from, to);
    if (isPromise(pulled)) {
      return pulled.then(() => pushToShadows(object, page, end));
    }
  }
  return undefined;
}

function sharePoison(object: MemoryObject, shadow: MemoryObject, from: number, to: number): void {
  shadow.reserve(from, to);
  for (let p = from; p < to; p++) {
    if (object.flagsOf(p + shadow.sourcePage) & PageFlag.Poisoned && (shadow.flagsOf(p) & COPIED) === 0) {
      poisonPages(shadow, p, p + 1);
    }
  }
}

/** What an access needs of the pages behind it. */
export interface PageNeed {
  /** The bytes are needed in the CPU window. */
  readonly cpu: boolean;
  /** The pages are going to change. */
  readonly write: boolean;
}

/**
 * Brings pages `[page, end)` into the state that an access needs: not in transit, not on a device, copies served before a
 * change, bytes in the window for the CPU. Needs no lock; the caller looks again after an await.
 * @throws KernelError ENOMEM, EIO
 */
export function preparePages(
  object: MemoryObject,
  page: number,
  end: number,
  need: PageNeed,
): MaybePromise<"ready" | "poisoned"> {
  for (;;) {
    const step = prepareStep(object, page, end, need);
    if (step === "ready" || step === "poisoned") {
      return step;
    }
    if (step !== undefined) {
      return step.then(() => preparePages(object, page, end, need));
    }
  }
}

/** One thing that is in the way, removed: undefined when it was removed at once. */
function prepareStep(
  object: MemoryObject,
  page: number,
  end: number,
  need: PageNeed,
): "ready" | "poisoned" | Promise<void> | undefined {
  const summary = object.flagSummary(page, end);
  if (summary & PageFlag.Busy) {
    return waitWhileBusy(object, page, end);
  }
  if (summary & PageFlag.Poisoned) {
    return "poisoned";
  }
  if (summary & PageFlag.Device) {
    return migrateToRam(object, page, end);
  }
  if (need.write && object.shadows.size > 0 && shadowsLack(object, page, end)) {
    const pushed = pushToShadows(object, page, end);
    return isPromise(pushed) ? pushed : undefined;
  }
  if (need.cpu && ((summary >> 8) & PageFlag.Uptodate) === 0) {
    const pulled = pullPages(object, page, end);
    return isPromise(pulled) ? pulled : undefined;
  }
  return "ready";
}

/** True when {@link preparePages} would answer "ready" at once. */
export function pagesAreReady(object: MemoryObject, page: number, end: number, need: PageNeed): boolean {
  const summary = object.flagSummary(page, end);
  return (
    (summary & (PageFlag.Busy | PageFlag.Poisoned | PageFlag.Device)) === 0 &&
    (!need.cpu || ((summary >> 8) & PageFlag.Uptodate) !== 0) &&
    (!need.write || object.shadows.size === 0 || !shadowsLack(object, page, end))
  );
}
