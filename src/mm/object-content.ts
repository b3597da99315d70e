/** Bytes of an object's pages: reading them from wherever they are, and bringing them into the CPU window. */
import { invariant, isPromise, KernelError, type MaybePromise, PAGE_SIZE } from "../base/index.ts";
import { type MemoryObject, PageFlag } from "./memory-object.ts";
import { migrateToRam } from "./object-migrate.ts";

/** Where a run of pages gets its bytes. */
type Content = "window" | "zero" | "source" | "pager" | "device" | "busy" | "poisoned";

/** What to do about a page in transit: wait, or read it, which only the one who isolated it for a migration may. */
export type Transit = "wait" | "isolated";

function contentOf(object: MemoryObject, page: number, transit: Transit = "wait"): Content {
  const flags = object.flagsOf(page);
  if (flags & PageFlag.Busy && transit === "wait") {
    return "busy";
  }
  if (flags & PageFlag.Poisoned) {
    return "poisoned";
  }
  if (flags & PageFlag.Device) {
    return "device";
  }
  if (flags & PageFlag.Uptodate) {
    return "window";
  }
  if (flags & PageFlag.Own) {
    return "zero";
  }
  return object.source !== undefined ? "source" : object.pager !== undefined ? "pager" : "zero";
}

/** True when a page is zeros that nobody ever wrote: its bytes need not be read to be known. */
export function isZeroPage(object: MemoryObject, page: number, transit: Transit = "wait"): boolean {
  const content = contentOf(object, page, transit);
  if (content === "source" && object.source !== undefined) {
    return isZeroPage(object.source, page + object.sourcePage);
  }
  return content === "zero";
}

/** One past the last page from `page` on, below `end`, that gets its bytes from the same place. */
function contentRunEnd(
  object: MemoryObject,
  page: number,
  end: number,
  content: Content,
  transit: Transit = "wait",
): number {
  let stop = page + 1;
  while (stop < end && contentOf(object, stop, transit) === content) {
    stop++;
  }
  return stop;
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
  for (let p = page; p < end; ) {
    const content = contentOf(object, p, transit);
    const stop = contentRunEnd(object, p, end, content, transit);
    const to = dst.subarray((p - page) * PAGE_SIZE, (stop - page) * PAGE_SIZE);
    const read = readRun(object, p, stop, content, to);
    if (read !== undefined) {
      return read.then((done) =>
        done === "again"
          ? readPages(object, p, end, dst.subarray((p - page) * PAGE_SIZE), transit)
          : stop < end
            ? readPages(object, stop, end, dst.subarray((stop - page) * PAGE_SIZE), transit)
            : undefined,
      );
    }
    p = stop;
  }
  return undefined;
}

function readRun(
  object: MemoryObject,
  page: number,
  end: number,
  content: Content,
  dst: Uint8Array,
): Promise<"done" | "again"> | undefined {
  switch (content) {
    case "window":
      object.forEachWindow(page, end, (p, stop) =>
        dst.subarray((p - page) * PAGE_SIZE, (stop - page) * PAGE_SIZE).set(object.windowBytes(p, stop)),
      );
      return undefined;
    case "zero":
      dst.fill(0);
      return undefined;
    case "source": {
      const { source, sourcePage } = object;
      invariant(source !== undefined, "I-MM-9", () => "a page without a source reads from it");
      const read = readPages(source, page + sourcePage, end + sourcePage, dst);
      return read === undefined ? undefined : read.then(() => "done");
    }
    case "pager": {
      const read = object.pager?.read(page * PAGE_SIZE, dst);
      return isPromise(read) ? read.then(() => "done") : undefined;
    }
    case "device":
      return migrateToRam(object, page, end).then(() => "again");
    case "busy":
      return waitWhileBusy(object, page, end).then(() => "again");
    case "poisoned":
      throw poisonedError(object, page);
    default:
      return content satisfies never;
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
 * Brings the bytes of pages `[page, end)` into the window, page by page where they are not there yet.
 *
 * The caller has seen no page that is Busy, Device or Poisoned. Synchronous when no source or pager has to be waited for.
 * @throws KernelError ENOMEM; EIO and EHWPOISON of the source; nothing has changed for the pages that failed
 */
export function pullPages(object: MemoryObject, page: number, end: number): MaybePromise<void> {
  object.reserve(page, end);
  object.forEachWindow(page, end, (p) => object.ensureWindow(p));
  for (let p = page; p < end; ) {
    if (object.flagsOf(p) & (PageFlag.Uptodate | PageFlag.Busy | PageFlag.Device | PageFlag.Poisoned)) {
      p++;
      continue;
    }
    const content = contentOf(object, p);
    let stop = contentRunEnd(object, p, end, content);
    if (!object.inOneWindow(p, stop)) {
      object.forEachWindow(p, stop, (q, windowEnd) => {
        stop = q === p ? windowEnd : stop;
      });
    }
    const pulled = content === "zero" ? pullZeros(object, p, stop) : pullRun(object, p, stop, content);
    if (pulled !== undefined) {
      const rest = stop;
      return pulled.then(() => (rest < end ? pullPages(object, rest, end) : undefined));
    }
    p = stop;
  }
  return undefined;
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

function pullRun(object: MemoryObject, page: number, end: number, content: Content): Promise<void> | undefined {
  const dst = object.windowBytes(page, end);
  const read = readRun(object, page, end, content, dst);
  object.updateFlags(page, end, PageFlag.Used, 0);
  if (read === undefined) {
    object.updateFlags(page, end, PageFlag.Uptodate | PageFlag.Own, 0);
    return undefined;
  }
  object.updateFlags(page, end, PageFlag.Busy, 0);
  return read.then(
    () => {
      object.updateFlags(page, end, PageFlag.Uptodate | PageFlag.Own, PageFlag.Busy);
      object.wq.wakeAll();
    },
    (error: unknown) => {
      object.updateFlags(page, end, 0, PageFlag.Busy);
      object.wq.wakeAll();
      throw error;
    },
  );
}

/** True when a copy still reads one of the pages through this object. */
function shadowsLack(object: MemoryObject, page: number, end: number): boolean {
  for (const shadow of object.shadows) {
    const from = Math.max(0, page - shadow.sourcePage);
    const to = Math.min(shadow.pages, end - shadow.sourcePage);
    for (let p = from; p < to; p++) {
      if ((shadow.flagsOf(p) & COPIED) === 0) {
        return true;
      }
    }
  }
  return false;
}

const COPIED = PageFlag.Uptodate | PageFlag.Own | PageFlag.Device | PageFlag.Poisoned;

/** Gives every copy that still reads pages `[page, end)` through this object its own bytes. */
export function pushToShadows(object: MemoryObject, page: number, end: number): MaybePromise<void> {
  for (const shadow of object.shadows) {
    const from = Math.max(0, page - shadow.sourcePage);
    const to = Math.min(shadow.pages, end - shadow.sourcePage);
    if (from >= to || (((shadow.flagSummary(from, to) >> 8) & COPIED) !== 0 && !shadowsLack(object, page, end))) {
      continue;
    }
    if (shadow.flagSummary(from, to) & PageFlag.Busy) {
      return waitWhileBusy(shadow, from, to).then(() => pushToShadows(object, page, end));
    }
    const pulled = pullPages(shadow, from, to);
    if (isPromise(pulled)) {
      return pulled.then(() => pushToShadows(object, page, end));
    }
  }
  return undefined;
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
