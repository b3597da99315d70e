/** A window whose application side traps: which of its pages are shown, and which were written. */
import { invariant, KernelError, PAGE_SIZE, PAGES_PER_BLOCK } from "../../base/index.ts";
import { type CpuTrap, type CpuWindow, type MemoryObject, PageFlag } from "../../mm/index.ts";
import { ErrnoNumber } from "./abi.ts";
import { POISON_WORD } from "./fault-log.ts";
import { type Run, runsByPins } from "./pinned-runs.ts";
import { Streams } from "./read-ahead.ts";
import type { Uffd } from "./uffd.ts";

/** The two sides of a window, both over the same bytes of the file. */
export interface Sides {
  /** For applications: registered, and never touched here. I-UFFD-1 */
  readonly app: SharedArrayBuffer;
  /**
   * For the thread that serves faults: an ordinary mapping, which never waits. To the engine it is not shared, since only
   * this thread sees it: engines copy shared memory word by word.
   */
  readonly own: ArrayBufferLike;
  readonly appAddress: number;
  readonly ownAddress: number;
  readonly fileOffset: number;
  /** The application's side was there before, and is its own again in the end. */
  readonly adopted?: boolean;
  /** Other windows are beside it: as one goes, the memory stays in one piece, since a process may have only so many. */
  readonly shared?: boolean;
}

/** What a window needs of its MMU. */
export interface WindowOwner {
  readonly uffd: Uffd;
  /** Accesses that had to wait for a hold look again. */
  retryHeld(): void;
  released(trap: UffdTrap): void;
  /** Whether it wants to be told of writes. */
  hasReadOnly(trap: UffdTrap, page: number, end: number): boolean;
  /** Applications wrote to pages of the window. Told once, as soon as it is known. */
  written(trap: UffdTrap, page: number, end: number): void;
}

/** The application's side of a window. */
export class UffdTrap implements CpuTrap {
  readonly byteOffset: number;
  readonly byteLength: number;
  readonly object: MemoryObject | undefined;
  /** The object's page that is the window's first. */
  readonly base: number;
  /** Where the application's side is. */
  readonly address: number;
  readonly streams = new Streams();
  readonly #sides: Sides;
  readonly #owner: WindowOwner;
  readonly #fileOffset: number;
  readonly #pages: number;
  /** 1 for pages that applications see. Only this class shows and hides. */
  readonly #shown: Uint8Array;
  /** Shown pages of each 2 MiB, so that most of a large window is never looked at. */
  readonly #blocks: Uint16Array;
  /** Written, and hidden before anybody asked. */
  #unannounced: Run[] = [];
  #holds: Run[] = [];
  #released = false;

  constructor(
    owner: WindowOwner,
    sides: Sides,
    byteOffset: number,
    byteLength: number,
    object: MemoryObject | undefined,
    base: number,
  ) {
    this.#owner = owner;
    this.#sides = sides;
    this.byteOffset = byteOffset;
    this.byteLength = byteLength;
    this.object = object;
    this.base = base;
    this.address = sides.appAddress + byteOffset;
    this.#fileOffset = sides.fileOffset + byteOffset;
    this.#pages = byteLength / PAGE_SIZE;
    this.#shown = new Uint8Array(this.#pages);
    this.#blocks = new Uint16Array(Math.ceil(this.#pages / PAGES_PER_BLOCK));
  }

  /** For applications; never touched here. I-UFFD-1 */
  get buffer(): SharedArrayBuffer {
    return this.#sides.app;
  }

  /** The window, as this thread sees it. */
  get window(): CpuWindow {
    const { byteOffset, byteLength } = this;
    return { buffer: this.#sides.own, byteOffset, byteLength, trap: this };
  }

  /** Where the memory begins that the window is in, maybe with others. */
  get memoryAddress(): number {
    return this.#sides.appAddress;
  }

  get released(): boolean {
    return this.#released;
  }

  isHeld(page: number): boolean {
    return this.#holds.length > 0 && this.#holds.some((held) => held.page <= page && page < held.end);
  }

  hold(page: number, end: number): Disposable {
    const held = { page, end };
    this.#holds.push(held);
    return {
      [Symbol.dispose]: () => {
        this.#holds = this.#holds.filter((other) => other !== held);
        this.#owner.retryHeld();
      },
    };
  }

  /** Parts of `[page, end)` in which pages are shown, at the granularity of blocks. */
  #forEachShownPart(page: number, end: number, visit: (page: number, end: number) => void): void {
    const last = Math.min(end, this.#pages);
    for (let p = page; p < last; ) {
      const block = Math.floor(p / PAGES_PER_BLOCK);
      if (this.#blocks[block] === 0) {
        p = (block + 1) * PAGES_PER_BLOCK;
        continue;
      }
      let stop = block + 1;
      while (stop * PAGES_PER_BLOCK < last && this.#blocks[stop] > 0) {
        stop++;
      }
      const to = Math.min(last, stop * PAGES_PER_BLOCK);
      visit(p, to);
      p = to;
    }
  }

  /** The first hidden page from `page` on: what an access in order faults on next. */
  firstHidden(page: number): number {
    let p = page;
    while (p < this.#pages && this.#shown[p] === 1) {
      // A window has at most 2^20 pages: the operators are exact.
      p = (p & (PAGES_PER_BLOCK - 1)) === 0 && this.#blocks[p >> 9] === PAGES_PER_BLOCK ? p + PAGES_PER_BLOCK : p + 1;
    }
    return p;
  }

  isShown(page: number): boolean {
    return this.#shown[page] === 1;
  }

  #markShown(page: number, end: number): void {
    for (let p = page; p < end; p++) {
      // A window has at most 2^20 pages: the operator is exact.
      this.#blocks[p >> 9] += 1 - this.#shown[p];
      this.#shown[p] = 1;
    }
  }

  #markHidden(page: number, end: number): void {
    for (let p = page; p < end; p++) {
      this.#blocks[p >> 9] -= this.#shown[p];
      this.#shown[p] = 0;
    }
  }

  /** Runs of written pages among the shown ones of `[page, end)`. */
  #scan(page: number, end: number, protect: boolean, visit: (page: number, end: number) => void): void {
    const { uffd } = this.#owner;
    const { address } = this;
    const low = address >>> 0;
    const shown = this.#shown;
    const toTell = this.#owner.hasReadOnly(this, page, end);
    const stop = address + end * PAGE_SIZE;
    for (let at = address + page * PAGE_SIZE; at < stop; at = uffd.scanEnd) {
      const regions = uffd.scanWritten(at, stop, protect);
      for (let i = 0; i < regions; i++) {
        const last = uffd.endPage(i, low);
        let p = uffd.firstPage(i, low);
        while (p < last) {
          if (shown[p] === 0) {
            p++;
            continue;
          }
          let to = p + 1;
          while (to < last && shown[to] === 1) {
            to++;
          }
          if (toTell) {
            this.#owner.written(this, p, to);
          }
          visit(p, to);
          p = to;
        }
      }
    }
  }

  /** Hidden first and asked afterwards: nobody can write in between. */
  unmap(page: number, end: number): boolean {
    this.#forEachShownPart(page, end, (from, to) => {
      this.#owner.uffd.hide(this.address + from * PAGE_SIZE, (to - from) * PAGE_SIZE);
      this.#scan(from, to, false, (first, last) => this.#unannounced.push({ page: first, end: last }));
      this.#markHidden(from, to);
    });
    return !this.#unannounced.some((run) => run.page < end && page < run.end);
  }

  collectWritten(page: number, end: number, visit: (page: number, end: number) => void): void {
    if (this.#unannounced.length > 0) {
      for (const run of this.#takeUnannounced(page, end)) {
        visit(run.page, run.end);
      }
    }
    this.#forEachShownPart(page, end, (from, to) => this.#scan(from, to, true, visit));
  }

  #takeUnannounced(page: number, end: number): Run[] {
    const taken: Run[] = [];
    const left: Run[] = [];
    for (const run of this.#unannounced) {
      const from = Math.max(page, run.page);
      const to = Math.min(end, run.end);
      if (from >= to) {
        left.push(run);
        continue;
      }
      taken.push({ page: from, end: to });
      if (run.page < from) {
        left.push({ page: run.page, end: from });
      }
      if (to < run.end) {
        left.push({ page: to, end: run.end });
      }
    }
    this.#unannounced = left;
    return taken;
  }

  discard(page: number, end: number): void {
    this.#takeUnannounced(page, end);
    const { uffd } = this.#owner;
    for (const run of runsByPins(this.object, this.base, page, end)) {
      if (run.pinned) {
        // Who holds a lease keeps the bytes, as who pins a page does; they are zeros for the next one.
        uffd.hide(this.address + run.page * PAGE_SIZE, (run.end - run.page) * PAGE_SIZE);
      } else {
        uffd.punch(this.#fileOffset + run.page * PAGE_SIZE, (run.end - run.page) * PAGE_SIZE);
      }
    }
    this.#forEachShownPart(page, end, (from, to) => {
      this.#markHidden(from, to);
    });
  }

  /** What the window it replaces had written. */
  inherit(runs: readonly Run[]): void {
    this.#unannounced.push(...runs);
  }

  moveTo(next: CpuTrap): void {
    invariant(next instanceof UffdTrap, "I-UFFD-2", () => "a window moves to another MMU");
    this.unmap(0, this.#pages);
    next.inherit(this.#takeUnannounced(0, this.#pages));
    this.release();
  }

  /**
   * Shows pages `[page, end)` to applications and wakes whoever waits for `wanted`. `inFile`: the page is known to have
   * memory. @throws KernelError ENOMEM
   */
  show(page: number, end: number, wanted: number, inFile: boolean): void {
    const { uffd } = this.#owner;
    if (inFile && end === page + 1 && this.#shown[page] === 0 && uffd.showOne(this.address + page * PAGE_SIZE)) {
      // A window has at most 2^20 pages: the operator is exact.
      this.#blocks[page >> 9]++;
      this.#shown[page] = 1;
      return;
    }
    let zeros = !inFile;
    const wasShown = this.#shown[wanted] === 1;
    let woken = false;
    let most = PAGES_PER_BLOCK;
    for (let p = page; p < end; ) {
      if (p !== wanted && (this.#shown[p] === 1 || this.isHeld(p))) {
        p++;
        continue;
      }
      let stop = p + 1;
      while (stop < end && stop - p < most && (stop === wanted || (this.#shown[stop] === 0 && !this.isHeld(stop)))) {
        stop++;
      }
      const [addr, bytes] = [this.address + p * PAGE_SIZE, (stop - p) * PAGE_SIZE];
      const { pages, errno } = zeros ? uffd.showZeros(addr, bytes) : uffd.show(addr, bytes);
      if (p <= wanted && wanted < p + pages) {
        woken = true;
        if (wasShown) {
          // The kernel took the page away by itself (swap) and forgot whether it was written.
          this.#unannounced.push({ page: wanted, end: wanted + 1 });
        }
      }
      this.#markShown(p, p + pages);
      p += pages;
      if (p >= stop || errno === 0 || errno === ErrnoNumber.EAGAIN) {
        continue;
      }
      if (errno === ErrnoNumber.EEXIST && zeros) {
        zeros = false;
      } else if (errno === ErrnoNumber.EEXIST) {
        // Somebody else's fault on the page was served before.
        this.#markShown(p, p + 1);
        p++;
      } else if (errno === ErrnoNumber.ENOENT && stop - p > 1) {
        // The stretch ends in memory that its owner has not grown into, which is mapped apart.
        most = Math.ceil((stop - p) / 2);
      } else if (errno === ErrnoNumber.EFAULT) {
        uffd.allocate(this.#fileOffset + p * PAGE_SIZE, (stop - p) * PAGE_SIZE);
      } else {
        throw new KernelError("ENOMEM", "fault", `UFFDIO_CONTINUE fails with errno ${errno}: free some memory`);
      }
    }
    if (!woken) {
      uffd.wake(this.address + wanted * PAGE_SIZE, PAGE_SIZE);
    }
  }

  /** Words of a page, on this thread's side. */
  wordsOf(page: number): Uint32Array {
    return new Uint32Array(this.#sides.own, this.byteOffset + page * PAGE_SIZE, PAGE_SIZE / 4);
  }

  giveBack(): void {
    if (this.#sides.adopted && !this.#released) {
      const { uffd } = this.#owner;
      const bytes = Math.min(uffd.files.extent(this.address).accessible, this.byteLength);
      this.#poisonLost(bytes / PAGE_SIZE);
      if (!uffd.replaceByCopy(this.address, this.#sides.ownAddress, bytes, this.byteLength)) {
        throw new KernelError("ENOMEM", "munmap", `no room to give ${bytes} bytes back: free some, and try again`);
      }
      this.#released = true;
      this.#letGo();
    }
  }

  #poisonLost(end: number): void {
    const { object, base } = this;
    for (let page = 0; object !== undefined && page < end; page++) {
      if (object.flagsOf(base + page) & PageFlag.Poisoned) {
        this.wordsOf(page).fill(POISON_WORD);
      }
    }
  }

  release(): void {
    if (this.#released) {
      return;
    }
    this.#released = true;
    const { uffd } = this.#owner;
    if (this.#sides.shared) {
      this.#letGo();
      uffd.wake(this.address, this.byteLength);
    } else {
      uffd.mapZeros(this.address, this.byteLength);
      this.#letGo();
    }
  }

  #letGo(): void {
    const { uffd } = this.#owner;
    for (const { page, end, pinned } of runsByPins(this.object, this.base, 0, this.#pages)) {
      const own = this.#sides.ownAddress + this.byteOffset + page * PAGE_SIZE;
      const bytes = (end - page) * PAGE_SIZE;
      if (pinned) {
        uffd.replaceByCopy(own, own, bytes, bytes);
      } else if (!this.#sides.shared) {
        uffd.mapZeros(own, bytes);
      }
    }
    uffd.punch(this.#fileOffset, this.byteLength);
    this.#markHidden(0, this.#pages);
    this.#owner.released(this);
  }
}
