/** Disjoint ranges in order, each with a value: what holds the VMAs of a space. */
import { invariant } from "../base/index.ts";
import { CHUNK_CAPACITY, Chunk, lowerBound, lowerBoundCached } from "./range-chunk.ts";

/** One range of a {@link RangeMap}. */
export interface RangeEntry<T> {
  readonly start: number;
  /** Exclusive. */
  readonly end: number;
  readonly value: T;
}

/**
 * An ordered map from disjoint, non-empty, half-open ranges to values.
 *
 * Ranges lie in chunks of parallel arrays, the chunks in one array in order: two binary searches find a range, and an
 * insertion moves at most one chunk's entries. Every chunk but an only one is non-empty; `firsts[i]` is the first start
 * of chunk i, kept apart so that a search touches one flat array before it touches a chunk.
 * @linux lib/maple_tree.c struct maple_tree
 */
export class RangeMap<T> {
  #chunks: Chunk<T>[] = [new Chunk<T>()];
  /** Longer than there are chunks, so that it seldom has to grow. */
  #firsts = new Float64Array(16).fill(Number.NEGATIVE_INFINITY, 0, 1);
  #size = 0;

  get size(): number {
    return this.#size;
  }

  /** The value of the range that contains the address. */
  find(addr: number): T | undefined {
    const chunk = this.#chunkOf(addr);
    const i = lowerBound(chunk.starts, chunk.length, addr);
    return i >= 0 && addr < chunk.ends[i] ? chunk.values[i] : undefined;
  }

  /** The value of the first range that ends after the address: the one that contains it, or the next. */
  findNext(addr: number): T | undefined {
    return this.#entryAfter(addr)?.value;
  }

  /**
   * Adds a range.
   * @throws BugError I-COLL-3 when it is empty or overlaps another.
   */
  insert(start: number, end: number, value: T): void {
    invariant(start < end, "I-COLL-3", () => `the range from ${start} to ${end} is empty`);
    const next = this.#entryAfter(start);
    invariant(
      next === undefined || next.start >= end,
      "I-COLL-3",
      () => `[${start}, ${end}) overlaps [${next?.start}, ${next?.end})`,
    );
    let c = this.#chunkIndex(start);
    if (this.#chunks[c].length === CHUNK_CAPACITY) {
      this.#chunks.splice(c + 1, 0, this.#chunks[c].splitUpperHalf());
      this.#insertFirst(c + 1, this.#chunks[c + 1].starts[0]);
      c = this.#chunkIndex(start);
    }
    const chunk = this.#chunks[c];
    chunk.insertAt(lowerBound(chunk.starts, chunk.length, start) + 1, start, end, value);
    this.#size++;
    this.#refreshFirst(c);
  }

  /** Removes the range that begins at `start`. Returns its value; undefined when no range begins there. */
  delete(start: number): T | undefined {
    const c = this.#chunkIndex(start);
    const chunk = this.#chunks[c];
    const i = lowerBound(chunk.starts, chunk.length, start);
    if (i < 0 || chunk.starts[i] !== start) {
      return undefined;
    }
    const value = chunk.values[i];
    chunk.removeAt(i);
    this.#size--;
    if (chunk.length === 0 && this.#chunks.length > 1) {
      this.#chunks.splice(c, 1);
      this.#firsts.copyWithin(c, c + 1, this.#chunks.length + 1);
      this.#refreshFirst(0);
    } else {
      this.#refreshFirst(c);
    }
    return value;
  }

  /**
   * Moves the bounds of the range that begins at `start`; its value stays.
   * @throws BugError I-COLL-3 when no range begins there, or the new bounds are empty or reach over a neighbour.
   */
  resize(start: number, newStart: number, newEnd: number): void {
    const c = this.#chunkIndex(start);
    const chunk = this.#chunks[c];
    const i = lowerBound(chunk.starts, chunk.length, start);
    invariant(i >= 0 && chunk.starts[i] === start, "I-COLL-3", () => `no range begins at ${start}`);
    const lowest = i > 0 ? chunk.ends[i - 1] : this.#endBefore(c);
    const highest = i + 1 < chunk.length ? chunk.starts[i + 1] : this.#startAfter(c);
    invariant(
      newStart < newEnd && newStart >= lowest && newEnd <= highest,
      "I-COLL-3",
      () => `[${newStart}, ${newEnd}) is empty or reaches over a neighbour`,
    );
    chunk.setAt(i, newStart, newEnd);
    this.#refreshFirst(c);
  }

  /** Ranges by rising start, from the first that ends after `from`. The map may change between steps. */
  *entries(from = Number.NEGATIVE_INFINITY): IterableIterator<RangeEntry<T>> {
    for (let entry = this.#entryAfter(from); entry !== undefined; entry = this.#entryAfter(entry.end)) {
      yield entry;
    }
  }

  /** Values by rising start, from the first range that ends after `from`. The map may change between steps. */
  *values(from = Number.NEGATIVE_INFINITY): IterableIterator<T> {
    for (const entry of this.entries(from)) {
      yield entry.value;
    }
  }

  [Symbol.iterator](): IterableIterator<T> {
    return this.values();
  }

  /**
   * The start of a free range of `length` within `[low, high)`, a multiple of `align`; undefined when there is none.
   * `"top-down"` gives the highest such start, `"bottom-up"` the lowest.
   * @linux mm/mmap.c vm_unmapped_area
   */
  findGap(
    length: number,
    low: number,
    high: number,
    align: number,
    placement: "top-down" | "bottom-up" = "top-down",
  ): number | undefined {
    return placement === "top-down"
      ? this.#gapFromTop(length, low, high, align)
      : this.#gapFromBottom(length, low, high, align);
  }

  #gapFromTop(length: number, low: number, high: number, align: number): number | undefined {
    const place = (from: number, to: number): number | undefined => {
      const top = Math.min(to, high) - length;
      const start = top - (top % align);
      return start >= Math.max(from, low) && start >= 0 ? start : undefined;
    };
    let to = Number.POSITIVE_INFINITY;
    for (let c = this.#chunkIndexBefore(high); c >= 0; c--) {
      const chunk = this.#chunks[c];
      if (c + 1 < this.#chunks.length) {
        to = this.#firsts[c + 1];
      }
      if (chunk.length === 0) {
        break;
      }
      const above = place(chunk.lastEnd, to);
      if (above !== undefined) {
        return above;
      }
      to = chunk.starts[0];
      if (chunk.maxGap() >= length) {
        for (let i = chunk.length - 1; i > 0 && chunk.starts[i] > low; i--) {
          const start = place(chunk.ends[i - 1], chunk.starts[i]);
          if (start !== undefined) {
            return start;
          }
        }
      }
      if (to <= low) {
        return undefined;
      }
    }
    return place(Number.NEGATIVE_INFINITY, to);
  }

  #gapFromBottom(length: number, low: number, high: number, align: number): number | undefined {
    const place = (from: number, to: number): number | undefined => {
      const start = Math.ceil(Math.max(from, low) / align) * align;
      return start + length <= Math.min(to, high) ? start : undefined;
    };
    let from = low;
    for (let c = this.#chunkIndex(low); c < this.#chunks.length && from < high; c++) {
      const chunk = this.#chunks[c];
      if (chunk.length === 0) {
        break;
      }
      const below = place(from, chunk.starts[0]);
      if (below !== undefined) {
        return below;
      }
      if (chunk.maxGap() >= length) {
        for (let i = 1; i < chunk.length && chunk.ends[i - 1] < high; i++) {
          const start = place(chunk.ends[i - 1], chunk.starts[i]);
          if (start !== undefined) {
            return start;
          }
        }
      }
      from = chunk.lastEnd;
    }
    return place(from, Number.POSITIVE_INFINITY);
  }

  #chunkIndex(addr: number): number {
    return Math.max(0, lowerBoundCached(this.#firsts, this.#chunks.length, addr));
  }

  #chunkIndexBefore(addr: number): number {
    return Math.max(0, lowerBoundCached(this.#firsts, this.#chunks.length, addr - 0.5));
  }

  #chunkOf(addr: number): Chunk<T> {
    return this.#chunks[this.#chunkIndex(addr)];
  }

  #entryAfter(addr: number): RangeEntry<T> | undefined {
    const c = this.#chunkIndex(addr);
    let chunk = this.#chunks[c];
    let i = Math.max(0, lowerBound(chunk.starts, chunk.length, addr));
    if (i < chunk.length && chunk.ends[i] <= addr) {
      i++;
    }
    if (i >= chunk.length) {
      if (c + 1 >= this.#chunks.length) {
        return undefined;
      }
      chunk = this.#chunks[c + 1];
      i = 0;
    }
    return { start: chunk.starts[i], end: chunk.ends[i], value: chunk.values[i] };
  }

  #endBefore(c: number): number {
    return c > 0 ? this.#chunks[c - 1].lastEnd : Number.NEGATIVE_INFINITY;
  }

  #startAfter(c: number): number {
    return c + 1 < this.#chunks.length ? this.#firsts[c + 1] : Number.POSITIVE_INFINITY;
  }

  #insertFirst(c: number, first: number): void {
    const count = this.#chunks.length;
    if (count > this.#firsts.length) {
      const longer = new Float64Array(this.#firsts.length * 2);
      longer.set(this.#firsts);
      this.#firsts = longer;
    }
    this.#firsts.copyWithin(c + 1, c, count - 1);
    this.#firsts[c] = first;
  }

  /** The first chunk takes everything below it too, so its bound is open. */
  #refreshFirst(c: number): void {
    this.#firsts[c] = c === 0 ? Number.NEGATIVE_INFINITY : this.#chunks[c].starts[0];
  }
}
