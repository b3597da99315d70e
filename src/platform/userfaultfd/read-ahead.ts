/**
 * How far ahead of an access in order pages come home from a device, as the kernel's readahead has it for files: a few blocks
 * at first, more as the access goes on, so that one that stops has brought little more than it used.
 *
 * What has come home is shown before anybody asks, but for the first page of each block: the fault there tells how far the
 * access is.
 */
import { indexInBlock, PAGES_PER_BLOCK } from "../../base/index.ts";

/** Blocks on their way at first, and at most. */
const FIRST_BLOCKS = 2;
const MOST_BLOCKS = 8;

/** One access in order over a window. Pages are those of the window's object. */
export class ReadAhead {
  #blocks = FIRST_BLOCKS;
  /** How far blocks were asked for; negative before the first. */
  #end = -1;
  #brought = false;

  /** The access is another one. */
  restart(): void {
    this.#end = -1;
  }

  /**
   * First page of a block that an access which is at `page` should find at home and that was not asked for before; -1 when
   * there is none below `limit`.
   */
  next(page: number, limit: number): number {
    const following = page - indexInBlock(page) + PAGES_PER_BLOCK;
    if (this.#end < following) {
      if (this.#end < 0) {
        this.#blocks = FIRST_BLOCKS;
      }
      this.#end = following;
    }
    const from = this.#end;
    if (from < limit && from < following + this.#blocks * PAGES_PER_BLOCK) {
      this.#end += PAGES_PER_BLOCK;
      return from;
    }
    if (this.#brought) {
      this.#brought = false;
      this.#blocks = Math.min(2 * this.#blocks, MOST_BLOCKS);
    }
    return -1;
  }

  /** A block was on a device: the next ones may be too. */
  brought(): void {
    this.#brought = true;
  }
}
