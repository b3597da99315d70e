/**
 * Memory objects: what address spaces map. An object owns its pages' state and bytes; VMAs map ranges of it.
 *
 * Where the bytes of a page are, first match wins:
 *
 *     Device      in device memory, and only there
 *     Uptodate    in the CPU window
 *     Own         nowhere: the page is zeros
 *     source      in the object this one is a private copy of (copy-on-write), page by page
 *     pager       in the file, the URL
 *     (none)      nowhere: zeros
 *
 * A page of a copy-on-write object therefore costs nothing until it is touched. Page state is protected by
 * run-to-completion; a page that is in transit across an `await` carries Busy, and whoever meets it waits on `wq`.
 */
import {
  blockOfVpn,
  bugOn,
  indexInBlock,
  type LedgerEntry,
  ledgerTrack,
  type MaybePromise,
  PAGE_SIZE,
  PAGES_PER_BLOCK,
} from "../base/index.ts";
import { IntervalTree } from "../collections/index.ts";
import { WaitQueue } from "../sync/index.ts";
import { FrameFreer } from "./frame-freer.ts";
import type { MemoryObjectOptions } from "./object-options.ts";
import { ObjectWindows } from "./object-windows.ts";
import { type ObjectBlock, PageFlag, summarize } from "./page-flags.ts";
import type { PhysicalMemory } from "./physical-memory.ts";
import type { Pager } from "./ports.ts";
import type { Vma } from "./vma.ts";

/** How a CPU user holds pages. A write pin may change the bytes at any time while it lasts. */
export type PinMode = "r" | "rw";

/** A mappable, reference-counted run of pages. Begins with one reference, the creator's. */
export class MemoryObject {
  readonly memory: PhysicalMemory;
  readonly pager: Pager | undefined;
  readonly source: MemoryObject | undefined;
  /** Page of the source that is this object's page 0. */
  readonly sourcePage: number;
  /** Pages of this object that have one in the source; what was added since is zeros. */
  readonly sourcePages: number;
  /** Copies that still read through this object and get a page's bytes before the page changes. */
  readonly shadows = new Set<MemoryObject>();
  /** Reverse map, by object page. */
  readonly vmas = new IntervalTree<Vma>();
  /** Who holds pages, by object page. */
  readonly pins = new IntervalTree<PinMode>();
  /** Pages that a device has for itself, in system memory; see device-exclusive.ts. */
  readonly exclusive = new Set<number>();
  /** Woken when a page stops being Busy and when a pin goes. */
  readonly wq = new WaitQueue();
  /** What the CPU sees of the pages. */
  readonly windows = new ObjectWindows(this);
  readonly #blocks = new Map<number, ObjectBlock>();
  readonly #ledger: LedgerEntry;
  #pages: number;
  #refs = 1;

  /** @throws KernelError ENOMEM */
  constructor(memory: PhysicalMemory, options: MemoryObjectOptions) {
    memory.charge("memory object");
    this.memory = memory;
    this.pager = options.pager;
    this.source = options.source?.object.get();
    this.sourcePage = options.source?.page ?? 0;
    this.sourcePages = options.source === undefined ? 0 : options.pages;
    this.#pages = options.pages;
    this.#ledger = ledgerTrack("memory object");
    if (options.snapshot) {
      this.source?.shadows.add(this);
    }
  }

  get pages(): number {
    return this.#pages;
  }

  /** Bytes: those of the file or URL behind it, else those of all its pages. */
  get length(): number {
    return this.pager?.length ?? this.#pages * PAGE_SIZE;
  }

  get refs(): number {
    return this.#refs;
  }

  /** One more reference. */
  get(): this {
    bugOn(this.#refs === 0, "I-REF-2", () => "a dead memory object is used again");
    this.#refs++;
    return this;
  }

  /** Drops a reference. The last one gives back frames, device memory, source and pager. */
  put(): MaybePromise<void> {
    bugOn(this.#refs === 0, "I-REF-2", () => "a memory object is put more often than it was got");
    if (--this.#refs > 0) {
      return undefined;
    }
    bugOn(this.vmas.size > 0, "I-REF-2", () => "a memory object dies while it is mapped");
    this.dropPages(0, this.#pages);
    for (const block of this.#blocks.values()) {
      this.memory.freeBlock(block.pfn);
    }
    this.#blocks.clear();
    this.windows.release();
    this.source?.shadows.delete(this);
    this.#ledger.end();
    const put = this.source?.put();
    const closed = this.#closePager();
    return closed === undefined && put === undefined ? undefined : Promise.all([closed, put]).then(() => undefined);
  }

  /** A pager that fails at once is reported as one that fails later: the caller's other work must still be done. */
  #closePager(): MaybePromise<void> {
    try {
      return this.pager?.close();
    } catch (error) {
      return Promise.reject(error);
    }
  }

  /** State of the 512 pages of a block, or undefined when nothing was ever set. */
  block(blockIndex: number): ObjectBlock | undefined {
    return this.#blocks.get(blockIndex);
  }

  /** @throws KernelError ENOMEM */
  ensureBlock(blockIndex: number): ObjectBlock {
    let block = this.#blocks.get(blockIndex);
    if (block === undefined) {
      const pfn = this.memory.allocBlock({ object: this, page: blockIndex * PAGES_PER_BLOCK });
      block = { pfn, flags: new Uint8Array(PAGES_PER_BLOCK), device: undefined };
      this.#blocks.set(blockIndex, block);
    }
    return block;
  }

  /**
   * Makes the blocks of pages `[page, end)`. Returns which ones it made.
   * @throws KernelError ENOMEM; none was made then
   */
  reserve(page: number, end: number): readonly number[] {
    const made: number[] = [];
    try {
      for (let b = blockOfVpn(page); b <= blockOfVpn(end - 1); b++) {
        if (!this.#blocks.has(b)) {
          this.ensureBlock(b);
          made.push(b);
        }
      }
    } catch (error) {
      this.unreserve(made);
      throw error;
    }
    return made;
  }

  /** Gives blocks back that {@link reserve} has just made, unless one of their pages has come into use. */
  unreserve(made: readonly number[]): void {
    for (const b of made) {
      const block = this.#blocks.get(b);
      if (block !== undefined && (summarize(block.flags, 0, PAGES_PER_BLOCK) & 0xff & ~PageFlag.Used) === 0) {
        this.memory.freeBlock(block.pfn);
        this.#blocks.delete(b);
      }
    }
  }

  /** The existing blocks of pages `[page, end)`, in no order: by index, or by what exists when that is less. */
  #forEachBlock(
    page: number,
    end: number,
    visit: (block: ObjectBlock, from: number, to: number, base: number) => void,
  ): void {
    const first = blockOfVpn(page);
    const last = blockOfVpn(end - 1);
    if (last - first < this.#blocks.size) {
      for (let b = first; b <= last; b++) {
        const block = this.#blocks.get(b);
        if (block !== undefined) {
          const base = b * PAGES_PER_BLOCK;
          visit(block, Math.max(0, page - base), Math.min(PAGES_PER_BLOCK, end - base), base);
        }
      }
      return;
    }
    for (const [b, block] of this.#blocks) {
      if (b >= first && b <= last) {
        const base = b * PAGES_PER_BLOCK;
        visit(block, Math.max(0, page - base), Math.min(PAGES_PER_BLOCK, end - base), base);
      }
    }
  }

  flagsOf(page: number): number {
    return this.#blocks.get(blockOfVpn(page))?.flags[indexInBlock(page)] ?? 0;
  }

  /** `flags = (flags & ~clear) | set` for pages `[page, end)` of blocks that exist. */
  updateFlags(page: number, end: number, set: number, clear: number): void {
    this.#forEachBlock(page, end, ({ flags }, from, to) => {
      for (let i = from; i < to; i++) {
        flags[i] = (flags[i] & ~clear) | set;
      }
    });
  }

  /** The OR (low byte) and the AND (next byte) of the flags of pages `[page, end)`. */
  flagSummary(page: number, end: number): number {
    const block = this.#blocks.get(blockOfVpn(page));
    if (block !== undefined && blockOfVpn(end - 1) === blockOfVpn(page)) {
      const from = indexInBlock(page);
      return summarize(block.flags, from, from + (end - page));
    }
    let or = 0;
    let and = 0xff;
    let seen = 0;
    this.#forEachBlock(page, end, ({ flags }, from, to) => {
      const summary = summarize(flags, from, to);
      or |= summary;
      and &= summary >> 8;
      seen += to - from;
    });
    return (or & 0xff) | (seen < end - page ? 0 : and << 8);
  }

  /** Device pfn of a page with PageFlag.Device or Coherent. */
  devicePfnOf(page: number): number {
    return this.#blocks.get(blockOfVpn(page))?.device?.[indexInBlock(page)] ?? 0;
  }

  setDevicePfn(page: number, pfn: number): void {
    const block = this.ensureBlock(blockOfVpn(page));
    block.device ??= new Uint32Array(PAGES_PER_BLOCK);
    block.device[indexInBlock(page)] = pfn;
    const frames = this.memory.blockOf(pfn);
    frames?.pagemap?.noteHome(frames.frame + indexInBlock(pfn), this, page);
  }

  /**
   * Adds zero pages at the end, in two halves. The first can fail; the function that it returns is the second, which cannot.
   * No page of the last window may be in transit when that one runs, and none may have been pinned since. Arrays over a
   * window that has to become longer keep the old bytes and go stale.
   * @throws KernelError ENOMEM; EBUSY while such a window's pages are pinned
   */
  prepareGrow(pages: number): () => void {
    bugOn(this.pager !== undefined, "I-MM-12", () => "a paged object's length is its pager's");
    const lengthen = this.windows.prepareGrow(pages);
    return () => {
      lengthen();
      this.#pages = pages;
    };
  }

  /** True when a CPU user holds one of the pages: for writing (`rw`), or at all (`r`). */
  isPinned(page: number, end: number, mode: PinMode): boolean {
    let found = false;
    if (this.pins.size > 0) {
      this.pins.forEachOverlap(page, end, (held) => {
        found ||= mode === "r" || held === "rw";
      });
    }
    return found;
  }

  /**
   * Forgets the content of pages that nobody maps: they read as zeros (or as the source or pager) again.
   * Device frames are freed. Pages in transit must not be dropped.
   */
  dropPages(page: number, end: number): void {
    for (const p of this.exclusive) {
      if (page <= p && p < end) {
        this.exclusive.delete(p);
      }
    }
    const frames = new FrameFreer(this.memory);
    this.#forEachBlock(page, end, (block, from, to, base) => {
      const summary = summarize(block.flags, from, to);
      bugOn((summary & PageFlag.Busy) !== 0, "I-MM-10", () => `a page in ${base} and following is dropped in transit`);
      if (summary & (PageFlag.Device | PageFlag.Coherent)) {
        frames.add(block, from, to, base);
      }
      for (let i = from; i < to; i++) {
        block.flags[i] &= PageFlag.Used;
      }
    });
    frames.flush();
    if (this.memory.mmu.traps) {
      this.windows.discard(page, end);
    }
  }
}
