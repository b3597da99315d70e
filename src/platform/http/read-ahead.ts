/** How far to fetch beyond what is asked for. */

/** Sequences that are followed at the same time. */
const MOST_STREAMS = 8;

interface Stream {
  /** Where its first read began. */
  readonly begin: number;
  /** Where its next read begins. */
  next: number;
  /** Bytes fetched ahead; doubles while the sequence goes on. */
  window: number;
  /** How far it has been fetched. */
  fetched: number;
}

/**
 * Finds sequences among reads. A read that continues no other gets what it asks for. Once a sequence is longer than the
 * least that is fetched anyway, a window ahead of it is fetched too, which is renewed and doubled whenever half of it has
 * been read.
 */
export class ReadAhead {
  readonly #least: number;
  readonly #most: number;
  /** The latest last. */
  readonly #streams: Stream[] = [];

  /** `most` 0 turns it off. */
  constructor(least: number, most: number) {
    this.#least = least;
    this.#most = most;
  }

  /** One past the last byte to fetch now that `[start, end)` is read; at least `end`. */
  extend(start: number, end: number): number {
    const at = this.#streams.findLastIndex((stream) => stream.next === start);
    if (at < 0) {
      this.#streams.push({ begin: start, next: end, window: 0, fetched: end });
      if (this.#streams.length > MOST_STREAMS) {
        this.#streams.shift();
      }
      return end;
    }
    const [stream] = this.#streams.splice(at, 1);
    this.#streams.push(stream);
    stream.next = end;
    const isLong = end - stream.begin > this.#least;
    if (isLong && this.#most > 0 && stream.fetched - end <= stream.window / 2) {
      stream.window = Math.min(this.#most, Math.max(this.#least, end - start, stream.window) * 2);
      stream.fetched = end + stream.window;
    }
    return Math.max(end, stream.fetched);
  }
}
