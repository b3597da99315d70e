/** Which rounds of a kernel to run with the quick pipeline. */

/** Slices that are thorough at most, before quick rounds are tried again. */
const LONGEST_WAIT = 16;

/**
 * The quick pipeline takes half the time of the checked one, and finds out one page that an invocation misses where the
 * other finds many. A kernel's first slice is thorough, and tells how many rounds that takes; the next ones are quick, for as
 * long as that takes no more of them.
 */
export class Pace {
  /** Rounds of the last slice that was thorough. */
  #usual: number | undefined;
  /** Slices to be thorough yet, and how many it will be after the next disappointment. */
  #wait = 0;
  #penalty = 1;

  /** The kernel was run before, thoroughly. */
  get isKnown(): boolean {
    return this.#usual !== undefined;
  }

  /** Whether to run the round of a slice of this number, from 0 on, quickly. */
  isQuick(round: number): boolean {
    return this.#usual !== undefined && this.#wait === 0 && round < this.#usual;
  }

  /**
   * Whether this round of a slice is likely to miss nothing: the last one of those that it takes. A first one misses what the
   * slice's pages are found out by.
   */
  isLast(round: number): boolean {
    return round > 0 && this.#usual === round + 1 && this.isQuick(round);
  }

  /** A slice took so many rounds. */
  note(rounds: number): void {
    if (this.#usual === undefined || this.#wait > 0) {
      this.#usual = rounds;
      this.#wait = Math.max(0, this.#wait - 1);
    } else if (rounds > this.#usual) {
      this.#wait = this.#penalty;
      this.#penalty = Math.min(LONGEST_WAIT, this.#penalty * 2);
    } else {
      this.#penalty = 1;
    }
  }
}
