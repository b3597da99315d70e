/** The entries of a device page table, and which of them the device has yet to get. */

/** Entries between two changed ones that are written with them rather than in a write of their own. */
const MERGE_GAP = 2048;

/** Those of one space, by device page. */
export class TableEntries {
  readonly #entryOf: (page: number) => number;
  /** As the device has them, but for the changes. */
  #words = new Uint32Array(0);
  #changed = new Uint8Array(0);
  readonly #changes: number[] = [];

  /** `entryOf` makes a page's entry of the state that it is in. */
  constructor(entryOf: (page: number) => number) {
    this.#entryOf = entryOf;
  }

  /** All of them, for a buffer that was made anew. */
  get words(): Uint32Array<ArrayBuffer> {
    return this.#words;
  }

  /** A page's entry, of the state that it is in; 0 for pages that the table does not reach. */
  at(page: number): number {
    if (page < 0 || page >= this.#words.length) {
      return 0;
    }
    return this.#changed[page] === 0 ? this.#words[page] : this.#entryOf(page);
  }

  /** Reaches `pages` at least. */
  grow(pages: number): void {
    if (pages > this.#words.length) {
      const [words, changed] = [new Uint32Array(pages), new Uint8Array(pages)];
      words.set(this.#words);
      changed.set(this.#changed);
      this.#words = words;
      this.#changed = changed;
    }
  }

  /** The page's entry has to be written before the next round. */
  noteChange(page: number): void {
    if (page < this.#changed.length && this.#changed[page] === 0) {
      this.#changed[page] = 1;
      this.#changes.push(page);
    }
  }

  /**
   * Writes what changed since the last call, in ranges. Under the update lock, in one run with the submission: an entry
   * must not outlive the state that it was made of.
   */
  flush(write: (words: Uint32Array<ArrayBuffer>, first: number, end: number) => void): void {
    const changes = this.#changes.splice(0).sort((a, b) => a - b);
    let first = -1;
    let last = -1;
    for (const page of changes) {
      this.#changed[page] = 0;
      this.#words[page] = this.#entryOf(page);
      if (first >= 0 && page - last > MERGE_GAP) {
        write(this.#words, first, last + 1);
        first = -1;
      }
      first = first < 0 ? page : first;
      last = page;
    }
    if (first >= 0) {
      write(this.#words, first, last + 1);
    }
  }
}
