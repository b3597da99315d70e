/** What an extent has lost since the device had all of a stretch of it: so that nobody looks through the rest. */

/** More runs than that are found as fast by looking. */
const MOST_RUNS = 4096;

/** Runs of pages, in order, within a stretch `[from, to)` that was complete once. */
export class DroppedRuns {
  #from = 0;
  #to = 0;
  readonly #runs: number[] = [];

  /** The device has all of the stretch now. */
  complete(from: number, to: number): void {
    this.#from = from;
    this.#to = to;
    this.#runs.length = 0;
  }

  /** Pages `[page, end)` are dropped. What comes out of order is not kept: nothing is known from there on. */
  add(page: number, end: number): void {
    const from = Math.max(page, this.#from);
    const to = Math.min(end, this.#to);
    if (from >= to) {
      return;
    }
    const runs = this.#runs;
    if (runs.length >= 2 * MOST_RUNS || (runs.length > 0 && from < runs[runs.length - 1])) {
      this.complete(0, 0);
      return;
    }
    runs.push(from, to);
  }

  /** Of each run its first page and one past its last; undefined when more of `[from, to)` may lack. */
  within(from: number, to: number): readonly number[] | undefined {
    return this.#from <= from && from < to && to <= this.#to ? this.#runs : undefined;
  }
}
