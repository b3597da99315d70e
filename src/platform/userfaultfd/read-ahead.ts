/**
 * How far ahead of an access in order pages come home from a device, as the kernel's readahead has it for files: a few blocks
 * at first, more as the access goes on, so that one that stops has brought little more than it used.
 *
 * What has come home is shown before anybody asks, but for the first page of each stretch: the fault there tells how far the
 * access is.
 */
import { indexInBlock, PAGES_PER_BLOCK } from "../../base/index.ts";

/** Blocks on their way at first, and at most. */
const FIRST_BLOCKS = 2;
const MOST_BLOCKS = 8;
/** Blocks of a stretch, once the access has gone on for long: fewer faults, and fewer and longer copies. */
const LONG_STRETCH = 2;
/** Accesses in order that one window remembers: those of a few threads, and some that are none. */
const STREAMS = 8;

/** One access in order over a window. Pages are those of the window's object, but for {@link ReadAhead.expected}. */
export class ReadAhead {
  /** The window's page that the access faults on next. */
  expected = -1;
  /** When it was last met. */
  met = 0;
  #blocks = FIRST_BLOCKS;
  /** How far blocks were asked for; negative before the first. */
  #end = -1;
  #brought = false;

  /** The access is another one. */
  restart(): void {
    this.#end = -1;
  }

  /**
   * First page of a stretch of blocks, up to {@link ReadAhead.end}, that an access which is at `page` should find at home and
   * that was not asked for before; -1 when there is none below `limit`.
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
    const end = from + (this.#blocks < MOST_BLOCKS ? 1 : LONG_STRETCH) * PAGES_PER_BLOCK;
    if (from < limit && end <= following + this.#blocks * PAGES_PER_BLOCK) {
      this.#end = end;
      return from;
    }
    if (this.#brought) {
      this.#brought = false;
      this.#blocks = Math.min(2 * this.#blocks, MOST_BLOCKS);
    }
    return -1;
  }

  /** One past the last page that was asked for. */
  get end(): number {
    return this.#end;
  }

  /** A block was on a device: the next ones may be too. */
  brought(): void {
    this.#brought = true;
  }
}

/** The accesses in order over one window: several threads may walk over it at once. */
export class Streams {
  readonly #streams: ReadAhead[] = [];
  #last: ReadAhead | undefined;
  #clock = 0;

  /** The access that was to fault on the window's page. */
  find(page: number): ReadAhead | undefined {
    // Mostly the same as before: this is in the path of every page fault.
    if (this.#last?.expected === page) {
      return this.#last;
    }
    for (let i = 0; i < this.#streams.length; i++) {
      if (this.#streams[i].expected === page) {
        return this.#meet(this.#streams[i]);
      }
    }
    return undefined;
  }

  #meet(stream: ReadAhead): ReadAhead {
    if (this.#last !== undefined) {
      this.#last.met = ++this.#clock;
    }
    stream.met = ++this.#clock;
    this.#last = stream;
    return stream;
  }

  /** An access that may be one in order will fault on the page next. The one that was met longest ago is forgotten. */
  begin(expected: number): void {
    let stream = this.#streams[0];
    if (this.#streams.length < STREAMS) {
      stream = new ReadAhead();
      this.#streams.push(stream);
    }
    for (const other of this.#streams) {
      stream = other.met < stream.met ? other : stream;
    }
    stream.restart();
    stream.expected = expected;
    this.#meet(stream);
  }

  /** Pages of `[page, end)` were shown: who was to fault there does so at the next one that is hidden. */
  passed(page: number, end: number, window: { firstHidden(page: number): number }): void {
    for (let i = 0; i < this.#streams.length; i++) {
      const stream = this.#streams[i];
      if (page <= stream.expected && stream.expected < end) {
        stream.expected = window.firstHidden(stream.expected);
      }
    }
  }
}
