/**
 * What the CPU sees of a memory object: its windows, made when they are first needed, and where a page's bytes are in them.
 * Which of these bytes count, the page's flags tell.
 */
import { bugOn, invariant, KernelError, PAGE_SIZE } from "../base/index.ts";
import type { MemoryObject } from "./memory-object.ts";
import { PageFlag } from "./page-flags.ts";
import type { CpuTrap, CpuWindow } from "./ports.ts";
import { forEachWindow, WINDOW_PAGES, windowIndex } from "./window-pages.ts";

/** Those of one object. Pages are the object's. */
export class ObjectWindows {
  readonly #object: MemoryObject;
  readonly #windows: (CpuWindow | undefined)[] = [];

  constructor(object: MemoryObject) {
    this.#object = object;
  }

  /** Makes the window that covers `page`. @throws KernelError ENOMEM */
  ensure(page: number): CpuWindow {
    const index = windowIndex(page);
    let window = this.#windows[index];
    if (window === undefined) {
      window = this.#create(index * WINDOW_PAGES, this.#object.pages);
      this.#windows[index] = window;
    }
    return window;
  }

  /** Makes the windows that cover pages `[page, end)`. @throws KernelError ENOMEM */
  ensureAll(page: number, end: number): void {
    forEachWindow(page, end, (p) => this.ensure(p));
  }

  /** The one window of an object over memory that exists. */
  adopt(window: CpuWindow): void {
    this.#windows[0] = window;
  }

  /** The window from page `first` on, of an object of `pages`. @throws KernelError ENOMEM */
  #create(first: number, pages: number): CpuWindow {
    const { memory } = this.#object;
    memory.charge("window");
    return memory.mmu.createWindow(Math.min(WINDOW_PAGES, pages - first) * PAGE_SIZE, this.#object, first);
  }

  /** What plain arrays see of the window that covers `page`, and the window's first page. */
  trapAt(page: number): { readonly trap: CpuTrap; readonly base: number } | undefined {
    const index = windowIndex(page);
    const trap = this.#windows[index]?.trap;
    return trap && { trap, base: index * WINDOW_PAGES };
  }

  /** Plain arrays over pages `[page, end)` find nothing there any more. */
  discard(page: number, end: number): void {
    forEachWindow(page, end, (p, stop) => {
      const found = this.trapAt(p);
      found?.trap.discard(p - found.base, stop - found.base);
    });
  }

  /** Where a page's bytes are in the window's buffer. The window must exist (see {@link ensure}). */
  offset(page: number): { readonly buffer: ArrayBufferLike; readonly byteOffset: number } {
    const window = this.#windows[windowIndex(page)];
    invariant(window !== undefined, "I-MM-9", () => `page ${page} is read in a window that does not exist`);
    return { buffer: window.buffer, byteOffset: window.byteOffset + (page % WINDOW_PAGES) * PAGE_SIZE };
  }

  /** {@link offset} of pages `[page, end)` of one window, unless an adopted memory has not grown to all of them yet. */
  span(page: number, end: number): { readonly buffer: ArrayBufferLike; readonly byteOffset: number } | undefined {
    const first = this.offset(page);
    return first.byteOffset + (end - page) * PAGE_SIZE <= first.buffer.byteLength ? first : undefined;
  }

  /**
   * The window's bytes of pages `[page, end)`, which lie in one window that exists. Behind what an adopted memory has grown to
   * so far they are zeros, and what is written there is nobody's.
   */
  bytes(page: number, end: number): Uint8Array {
    const bytes = (end - page) * PAGE_SIZE;
    const whole = this.span(page, end);
    if (whole !== undefined) {
      return new Uint8Array(whole.buffer, whole.byteOffset, bytes);
    }
    const { buffer, byteOffset } = this.offset(page);
    const copy = new Uint8Array(bytes);
    copy.set(new Uint8Array(buffer).subarray(byteOffset));
    return copy;
  }

  /** `end`, or where an adopted memory ends so far if that is between. */
  grownEnd(page: number, end: number): number {
    const { buffer, byteOffset } = this.offset(page);
    const pages = Math.floor((buffer.byteLength - byteOffset) / PAGE_SIZE);
    return pages > 0 ? Math.min(end, page + pages) : end;
  }

  /**
   * The windows' part of {@link MemoryObject.prepareGrow}, in two halves as that: a new last window, where there is one that
   * is too short.
   * @throws KernelError ENOMEM; EBUSY while its pages are pinned
   */
  prepareGrow(pages: number): () => void {
    const to = this.#object.pages;
    const index = windowIndex(to - 1);
    const from = index * WINDOW_PAGES;
    if (this.#windows[index] === undefined || to % WINDOW_PAGES === 0) {
      return () => {};
    }
    if (this.#object.isPinned(from, to, "r")) {
      throw new KernelError("EBUSY", "mremap", "a lease on the mapping is held: dispose it before the mapping grows");
    }
    const window = this.#create(from, pages);
    return () => this.#move(index, window, from, to);
  }

  #move(index: number, window: CpuWindow, from: number, to: number): void {
    const object = this.#object;
    bugOn((object.flagSummary(from, to) & PageFlag.Busy) !== 0, "I-MM-10", () => "a page's window moves in transit");
    for (let p = from; p < to; p++) {
      if (object.flagsOf(p) & PageFlag.Uptodate) {
        const moved = new Uint8Array(window.buffer, window.byteOffset + (p - from) * PAGE_SIZE, PAGE_SIZE);
        moved.set(this.bytes(p, p + 1));
      } else {
        object.updateFlags(p, p + 1, 0, PageFlag.Used);
      }
    }
    if (window.trap !== undefined) {
      this.#windows[index]?.trap?.moveTo(window.trap);
    }
    this.#windows[index] = window;
  }

  /** The object is gone: nothing is seen of it any more. */
  release(): void {
    for (const window of this.#windows) {
      window?.trap?.release();
      window?.release?.();
    }
    this.#windows.length = 0;
  }
}
