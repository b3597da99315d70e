/** Copies of an object's pages that still read through it, and get their own bytes before a page changes. */
import { blockOfVpn, indexInBlock, isPromise, type MaybePromise, PAGES_PER_BLOCK } from "../base/index.ts";
import type { MemoryObject } from "./memory-object.ts";
import { pullPages, waitWhileBusy } from "./object-content.ts";
import { poisonPages } from "./object-migrate.ts";
import { PageFlag } from "./page-flags.ts";

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
