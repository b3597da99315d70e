/** A run of neighbouring ranges in parallel arrays: the unit of which a `RangeMap` is made. */

/** Entries a chunk holds at most. Moving half of this many is cheaper than following a pointer or two. */
export const CHUNK_CAPACITY = 256;

/** The last index whose start is at or below the address, or -1. */
export function lowerBound(starts: Float64Array, length: number, addr: number): number {
  let low = 0;
  let high = length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (starts[middle] <= addr) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low - 1;
}

/**
 * {@link lowerBound} without a branch to mispredict: twice as fast in an array that is in the cache, and slower in one that
 * is not, where a guessed branch would have begun the next load already.
 */
export function lowerBoundCached(starts: Float64Array, length: number, addr: number): number {
  let base = 0;
  for (let count = length; count > 1; ) {
    const half = count >>> 1;
    base += half * +(starts[base + half] <= addr);
    count -= half;
  }
  return length > 0 && starts[base] <= addr ? base : base - 1;
}

/** Sorted, disjoint ranges; the caller keeps them so. */
export class Chunk<T> {
  readonly starts = new Float64Array(CHUNK_CAPACITY);
  readonly ends = new Float64Array(CHUNK_CAPACITY);
  readonly values: T[] = [];
  /** The largest gap between two entries; -1 until somebody asks. */
  #maxGap = -1;

  get length(): number {
    return this.values.length;
  }

  get lastEnd(): number {
    return this.ends[this.length - 1];
  }

  maxGap(): number {
    if (this.#maxGap < 0) {
      let max = 0;
      for (let i = 1; i < this.length; i++) {
        max = Math.max(max, this.starts[i] - this.ends[i - 1]);
      }
      this.#maxGap = max;
    }
    return this.#maxGap;
  }

  insertAt(i: number, start: number, end: number, value: T): void {
    this.starts.copyWithin(i + 1, i, this.length);
    this.ends.copyWithin(i + 1, i, this.length);
    this.values.splice(i, 0, value);
    this.setAt(i, start, end);
  }

  removeAt(i: number): void {
    this.starts.copyWithin(i, i + 1, this.length);
    this.ends.copyWithin(i, i + 1, this.length);
    this.values.splice(i, 1);
    this.#maxGap = -1;
  }

  setAt(i: number, start: number, end: number): void {
    this.starts[i] = start;
    this.ends[i] = end;
    this.#maxGap = -1;
  }

  splitUpperHalf(): Chunk<T> {
    const middle = this.length >>> 1;
    const upper = new Chunk<T>();
    upper.starts.set(this.starts.subarray(middle, this.length));
    upper.ends.set(this.ends.subarray(middle, this.length));
    upper.values.push(...this.values.splice(middle));
    this.#maxGap = -1;
    return upper;
  }
}
