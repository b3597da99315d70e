/** A stretch of an address space that has a GPU buffer, or a part of one, and what the device holds of each page. */
import { bugOn, PAGE_SIZE, type VirtAddr, type VirtRange } from "../../base/index.ts";
import { allOf8 } from "../../collections/index.ts";
import { firstPartBehind, type MemoryObject, type PartedRange } from "../../mm/index.ts";
import { DroppedRuns } from "./dropped-runs.ts";
import type { OwnedBuffer } from "./gpu-buffer.ts";

/** The device page table: bits for each CPU page of an extent. */
export const PageState = {
  /** The buffer's bytes are the page's, and the device may use them. Dropped by invalidations. */
  Valid: 1,
  /** The page is device-private: the buffer holds the only copy. Stays when an invalidation drops Valid. */
  Owned: 2,
  /** The buffer's bytes may differ from zero. */
  Touched: 4,
  /** The CPU's entry granted writing when the page became valid here; never without Valid and Owned. I-GPU-9. */
  Write: 8,
} as const;

/** Times the bits of one page: the same bits for each of the four pages in a word. */
const EVERY_PAGE = 0x01010101;

const NO_OBJECTS: readonly MemoryObject[] = [];

/** Where a device-private page belongs. */
export interface PageHome {
  readonly object: MemoryObject;
  readonly page: number;
}

/** Protected by: state by the mirror's update lock; all else by run-to-completion. */
export class Extent implements VirtRange {
  readonly start: VirtAddr;
  readonly end: VirtAddr;
  readonly buffer: OwnedBuffer;
  /** Where the first page begins in the buffer. */
  readonly bufferOffset: number;
  /** First frame of the mirror's pagemap. */
  readonly frame: number;
  /** {@link PageState} bits. */
  readonly state: Uint8Array;
  /** The same bytes, four pages a word, for scans. */
  readonly #words: Uint32Array;
  /** When it was last bound, for eviction. */
  lastUse = 0;
  /** Readbacks that copy from the buffer: it must not go away. */
  readbacks = 0;
  /** Counts invalidations, so that a readback notices one that came in between. */
  epoch = 0;
  /** The whole of it was unmapped once: nobody binds it again as it is. */
  unmapped = false;
  #lastSerial = 0;
  #dropped: DroppedRuns | undefined;
  #owned = 0;
  #objects: readonly MemoryObject[] = NO_OBJECTS;
  #homeObject: Uint32Array | undefined;
  #homePage: Uint32Array | undefined;

  /** `words` has room for {@link state}, all zero. */
  constructor(
    range: VirtRange,
    buffer: OwnedBuffer,
    frame: number,
    bufferOffset = 0,
    words = new Uint32Array(Math.ceil((range.end - range.start) / PAGE_SIZE / 4)),
  ) {
    this.start = range.start;
    this.end = range.end;
    this.buffer = buffer;
    this.bufferOffset = bufferOffset;
    this.frame = frame;
    const pages = (range.end - range.start) / PAGE_SIZE;
    this.#words = words;
    this.state = new Uint8Array(words.buffer, words.byteOffset, pages);
  }

  /** The last submission that uses the buffer. */
  get lastSerial(): number {
    return this.#lastSerial;
  }

  set lastSerial(serial: number) {
    this.#lastSerial = serial;
  }

  get pages(): number {
    return this.state.length;
  }

  get bytes(): number {
    return this.end - this.start;
  }

  /** Pages that are device-private here. */
  get ownedPages(): number {
    return this.#owned;
  }

  pageAt(addr: number): number {
    return Math.floor((addr - this.start) / PAGE_SIZE);
  }

  /** Where a page begins in the buffer. */
  offsetOf(page: number): number {
    return this.bufferOffset + page * PAGE_SIZE;
  }

  addrOf(page: number): VirtAddr {
    return (this.start + page * PAGE_SIZE) as VirtAddr;
  }

  /** First page of `[page, end)` without all of the bits, or `end`. */
  firstWithout(page: number, end: number, bits: number): number {
    const { state } = this;
    const all = bits * EVERY_PAGE;
    for (let p = page; p < end; p++) {
      if ((p & 3) === 0) {
        p = this.#skipWords(p, end, all, all);
      }
      if (p < end && (state[p] & bits) !== bits) {
        return p;
      }
    }
    return end;
  }

  /** Runs of pages of `[page, end)` without all of the bits: of each its first page, and one past its last. */
  runsWithout(page: number, end: number, bits: number): number[] {
    const { state } = this;
    const runs: number[] = [];
    for (let p = this.firstWithout(page, end, bits); p < end; ) {
      let stop = p + 1;
      while (stop < end && (state[stop] & bits) !== bits) {
        stop++;
      }
      runs.push(p, stop);
      p = this.firstWithout(stop, end, bits);
    }
    return runs;
  }

  /** {@link runsWithout} Valid. Looks only at what was dropped, where all was there once. */
  lacking(page: number, end: number): number[] {
    const dropped = this.#dropped?.within(page, end);
    if (dropped === undefined) {
      return this.runsWithout(page, end, PageState.Valid);
    }
    const { state } = this;
    const runs: number[] = [];
    for (let i = 0; i < dropped.length; i += 2) {
      const stop = Math.min(end, dropped[i + 1]);
      for (let p = Math.max(page, dropped[i]); p < stop; p++) {
        if (!(state[p] & PageState.Valid)) {
          if (runs[runs.length - 1] === p) {
            runs[runs.length - 1] = p + 1;
          } else {
            runs.push(p, p + 1);
          }
        }
      }
    }
    return runs;
  }

  /** Whether the device may use all of `[page, end)`. What it finds so is remembered for {@link lacking}. */
  isComplete(page: number, end: number): boolean {
    const dropped = this.#dropped?.within(page, end);
    const complete =
      dropped === undefined
        ? this.firstWithout(page, end, PageState.Valid) === end
        : this.lacking(page, end).length === 0;
    if (complete) {
      this.#dropped ??= new DroppedRuns();
      this.#dropped.complete(page, end);
    }
    return complete;
  }

  /** First page of `[page, end)` with the bit, or `end`. */
  firstWith(page: number, end: number, bit: number): number {
    const { state } = this;
    for (let p = page; p < end; p++) {
      if ((p & 3) === 0) {
        p = this.#skipWords(p, end, bit * EVERY_PAGE, 0);
      }
      if (p < end && (state[p] & bit) !== 0) {
        return p;
      }
    }
    return end;
  }

  /** First page of `[page, end)` that is device-private and hidden by an invalidation, or `end`. */
  firstHidden(page: number, end: number): number {
    let p = this.#owned === 0 ? end : this.firstWith(page, end, PageState.Owned);
    while (p < end && this.state[p] & PageState.Valid) {
      p = this.firstWith(this.firstWithout(p, end, PageState.Owned | PageState.Valid), end, PageState.Owned);
    }
    return p;
  }

  /** From page `p`, a multiple of 4: the first page of a word whose masked bits are not `value`, or the last, partial word. */
  #skipWords(p: number, end: number, mask: number, value: number): number {
    const words = this.#words;
    const stop = end >>> 2;
    let w = p >>> 2;
    // Mostly all are alike: 32 pages a step.
    while (value !== 0 && w + 8 <= stop && (allOf8(words, w) & mask) === value) {
      w += 8;
    }
    while (w < stop && (words[w] & mask) === value) {
      w++;
    }
    return Math.max(p, w << 2);
  }

  /** `state = (state & ~clear) | set`; ownership changes through {@link own} and {@link disown} only. */
  update(page: number, end: number, set: number, clear: number): void {
    for (let p = page; p < end; p++) {
      this.state[p] = (this.state[p] & ~clear) | set;
    }
    if (clear & PageState.Valid) {
      this.#dropped?.add(page, end);
    }
  }

  /** The copies of what an invalidation changes are good no longer. */
  drop({ start, end, parts }: PartedRange): void {
    if (parts === undefined) {
      this.#dropBetween(start, end);
      return;
    }
    for (let i = firstPartBehind(parts, this.start); i < parts.length && parts[i] < this.end; i += 2) {
      this.#dropBetween(parts[i], parts[i + 1]);
    }
  }

  #dropBetween(start: number, end: number): void {
    const from = this.pageAt(Math.max(start, this.start));
    const to = this.pageAt(Math.min(end, this.end) - 1) + 1;
    this.update(from, to, 0, PageState.Valid | PageState.Write);
  }

  /** Pages `[page, end)` become device-private: they are pages of `object` from `objectPage` on. */
  own(page: number, end: number, object: MemoryObject, objectPage: number): void {
    this.#homeObject ??= new Uint32Array(this.pages);
    this.#homePage ??= new Uint32Array(this.pages);
    let index = this.#objects.indexOf(object);
    if (index < 0) {
      index = this.#objects.length;
      this.#objects = [...this.#objects, object];
    }
    for (let p = page; p < end; p++) {
      this.#owned += this.state[p] & PageState.Owned ? 0 : 1;
      this.state[p] |= PageState.Valid | PageState.Owned | PageState.Touched | PageState.Write;
      this.#homeObject[p] = index;
      this.#homePage[p] = objectPage + (p - page);
    }
  }

  /** The only copy of pages `[page, end)` is no longer here; nor is a valid one. */
  disown(page: number, end: number): void {
    for (let p = page; p < end; p++) {
      this.#owned -= this.state[p] & PageState.Owned ? 1 : 0;
      this.state[p] &= ~(PageState.Owned | PageState.Valid | PageState.Write);
    }
    this.#dropped?.add(page, end);
    if (this.#owned === 0) {
      this.#objects = NO_OBJECTS;
    }
  }

  /** Where a device-private page belongs. */
  homeOf(page: number): PageHome {
    const object = this.#objects[this.#homeObject?.[page] ?? 0];
    bugOn((this.state[page] & PageState.Owned) === 0, "I-GPU-4", () => `page ${page} of an extent is not owned`);
    return { object, page: this.#homePage?.[page] ?? 0 };
  }

  /** Device-private pages as runs of neighbours, in the extent and in their object. */
  ownedRuns(): (PageHome & { readonly count: number; readonly at: number })[] {
    const runs: (PageHome & { count: number; at: number })[] = [];
    for (let p = this.firstWith(0, this.pages, PageState.Owned); p < this.pages; ) {
      const home = this.homeOf(p);
      let stop = p + 1;
      while (stop < this.pages && this.state[stop] & PageState.Owned) {
        const next = this.homeOf(stop);
        if (next.object !== home.object || next.page !== home.page + (stop - p)) {
          break;
        }
        stop++;
      }
      runs.push({ ...home, count: stop - p, at: p });
      p = this.firstWith(stop, this.pages, PageState.Owned);
    }
    return runs;
  }
}
