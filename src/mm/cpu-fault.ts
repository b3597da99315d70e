/**
 * Faults of plain arrays: which pages an access that found none may be shown, and what has to come first.
 *
 * Answers are true in the run to completion in which they are given, so nothing here needs a lock.
 */
import { blockOfVpn, indexInBlock, isPromise, KernelError, PAGES_PER_BLOCK } from "../base/index.ts";
import { mappedAround } from "./fault-around.ts";
import type { MemoryObject } from "./memory-object.ts";
import { poisonedError } from "./object-content.ts";
import { migrateToRam } from "./object-migrate.ts";
import { pagesAreReady, preparePages } from "./object-prepare.ts";
import { shadowsLack } from "./object-shadows.ts";
import { PageFlag } from "./page-flags.ts";
import { forEachMapping } from "./rmap.ts";
import { VmFlags } from "./vma.ts";
import { windowEnd } from "./window-pages.ts";

const NOT_PLAIN = PageFlag.Busy | PageFlag.Poisoned | PageFlag.Device;
/** What decides how a page is served. */
const KIND = NOT_PLAIN | PageFlag.Uptodate;

/** What a fault of a plain array came to. */
export interface CpuFault {
  /** Pages that may be shown from here on. */
  readonly page: number;
  readonly end: number;
  /** Why the bytes are not there: nothing is mapped, a page was lost, a pager failed. */
  readonly error: KernelError | undefined;
}

/** Pages `[page, end)`, to be filled in. */
export interface PageSpan {
  page: number;
  end: number;
}

/**
 * The common fault, in no time: the page is in host memory, and one readable mapping is all that uses its object. Fills in what
 * may be shown, up to `around` aligned pages, and answers true; false means nothing: ask {@link serveCpuFault}.
 */
export function findShowable(object: MemoryObject, page: number, around: number, out: PageSpan): boolean {
  const vma = object.vmas.only;
  const flags = object.block(blockOfVpn(page))?.flags;
  if (vma === undefined || flags === undefined || !(vma.flags & VmFlags.Read)) {
    return false;
  }
  if (object.shadows.size > 0 || object.exclusive.size > 0) {
    return false;
  }
  const shift = page - indexInBlock(page);
  const aligned = page - (page % around);
  const low = Math.max(vma.pgoff, aligned);
  const high = Math.min(vma.pgoff + vma.pages, windowEnd(page, aligned + around), object.pages);
  if (page < low || page >= high || (flags[page - shift] & KIND) !== PageFlag.Uptodate) {
    return false;
  }
  let from = page;
  while (from > low && (flags[from - 1 - shift] & KIND) === PageFlag.Uptodate) {
    from--;
  }
  let to = page + 1;
  while (to < high && (flags[to - shift] & KIND) === PageFlag.Uptodate) {
    to++;
  }
  out.page = from;
  out.end = to;
  return true;
}

/** How many pages a fault may bring along: from host memory, and from a device unless more of them are at home. */
export interface FaultAround {
  readonly host: number;
  readonly device: number;
}

/**
 * Serves an access of a plain array to one page. A promise means: not yet, ask again when it is fulfilled; so that what is
 * answered is true in the run to completion in which it is answered. Needs no lock.
 */
export function serveCpuFault(object: MemoryObject, page: number, around: FaultAround): CpuFault | Promise<void> {
  const mapped = mappedAround(object, page);
  if (mapped === undefined) {
    return { page, end: page + 1, error: unreadable(object, page) };
  }
  const flags = object.flagsOf(page);
  if (flags & PageFlag.Poisoned) {
    return { page, end: page + 1, error: poisonedError(object, page) };
  }
  const [from, to] =
    object.exclusive.size > 0
      ? // What a device has for itself is taken from it for who asks, not for his neighbours.
        [page, page + 1]
      : chooseAround(object, page, mapped, flags & PageFlag.Device ? around.device : around.host);
  if ((flags & KIND) === PageFlag.Uptodate && object.shadows.size === 0 && object.exclusive.size === 0) {
    return { page: from, end: to, error: undefined };
  }
  // A copy that reads through this object gets its bytes now: later writes come unannounced.
  const need = { cpu: true, write: true } as const;
  try {
    const prepared = preparePages(object, from, to, need);
    if (isPromise(prepared)) {
      object.get();
      return prepared.then(
        () => object.put(),
        async (error: unknown) => {
          await object.put();
          if (!(error instanceof KernelError)) {
            throw error;
          }
          failures.set(object, { page, error });
          failuresLeft++;
        },
      );
    }
  } catch (error) {
    return { page, end: page + 1, error: asKernelError(error) };
  }
  return showable(object, page, from, to);
}

/**
 * Sets out to bring blocks home that an access in order will want soon, by the first page of each. The promise, for who wants
 * to go on from there, never fails: what is not there is met again by the access itself. Undefined when there is nothing to do.
 */
export function readAheadFromDevice(object: MemoryObject, page: number, end: number): Promise<void> | undefined {
  // First, because every fault of an access in order asks, and mostly nothing is on a device.
  let from = page;
  while (from < end && (object.flagsOf(from) & (PageFlag.Device | PageFlag.Busy)) !== PageFlag.Device) {
    from += PAGES_PER_BLOCK;
  }
  const mapped = from < end ? mappedAround(object, from) : undefined;
  if (mapped === undefined) {
    return undefined;
  }
  object.get();
  return migrateToRam(object, from, Math.min(end, mapped[1]))
    .catch(() => undefined)
    .then(() => object.put())
    .catch(() => undefined);
}

/** The last failure of an object's page that nobody has been told yet. */
const failures = new WeakMap<MemoryObject, { readonly page: number; readonly error: KernelError }>();
/** How many are left at most: mostly none, so that the path of every page fault need not look. */
let failuresLeft = 0;

/** The error that the last try for a page ended with, once. */
export function takeCpuFailure(object: MemoryObject, page: number): KernelError | undefined {
  if (failuresLeft === 0) {
    return undefined;
  }
  const failure = failures.get(object);
  if (failure?.page !== page) {
    return undefined;
  }
  failures.delete(object);
  failuresLeft--;
  return failure.error;
}

function asKernelError(error: unknown): KernelError {
  if (error instanceof KernelError) {
    return error;
  }
  throw error;
}

function unreadable(object: MemoryObject, page: number): KernelError {
  let name: string | undefined;
  forEachMapping(object, page, page + 1, (vma) => {
    name ??= vma.name;
  });
  const what = `page ${page} of ${name ?? object.pager?.name ?? "an array"}`;
  const why = name === undefined ? "is not mapped any more: map it again" : "is not readable: mprotect it";
  return new KernelError("EFAULT", "fault", `${what} ${why}`);
}

/** An aligned stretch around a page, cut where something other than the page's own kind of work would begin. */
function chooseAround(
  object: MemoryObject,
  page: number,
  [first, last]: readonly [number, number],
  around: number,
): readonly [number, number] {
  const aligned = page - (page % around);
  const low = Math.max(first, aligned);
  const high = Math.min(last, windowEnd(page, aligned + around));
  const kind = object.flagsOf(page) & KIND;
  // A stretch is a power of two of up to 512 pages: it lies in one block.
  const flags = object.block(blockOfVpn(page))?.flags;
  if (flags === undefined) {
    return [low, high];
  }
  const shift = page - indexInBlock(page);
  let from = page;
  while (from > low && (flags[from - 1 - shift] & KIND) === kind) {
    from--;
  }
  let to = page + 1;
  while (to < high && (flags[to - shift] & KIND) === kind) {
    to++;
  }
  return [from, to];
}

/** The run of pages around one that may be shown now. */
function showable(object: MemoryObject, page: number, from: number, to: number): CpuFault | Promise<void> {
  const ready = (p: number) =>
    (object.flagsOf(p) & (NOT_PLAIN | PageFlag.Uptodate)) === PageFlag.Uptodate &&
    (object.shadows.size === 0 || !shadowsLack(object, p, p + 1)) &&
    !object.exclusive.has(p);
  if (pagesAreReady(object, from, to, { cpu: true, write: true })) {
    return { page: from, end: to, error: undefined };
  }
  if (!ready(page)) {
    return Promise.resolve();
  }
  let first = page;
  while (first > from && ready(first - 1)) {
    first--;
  }
  let end = page + 1;
  while (end < to && ready(end)) {
    end++;
  }
  return { page: first, end, error: undefined };
}
