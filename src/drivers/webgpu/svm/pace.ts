/** Which rounds of a kernel to run with the quick pipeline, and which slices to begin with scouts. */

/** Slices that are thorough at most, before quick rounds are tried again; and those without scouts. */
const LONGEST_WAIT = 16;

/**
 * The quick pipeline takes half the time of the checked one, and finds out one page that an invocation misses where the
 * other finds many. A kernel's first slice is thorough, and tells how many rounds that takes; the next ones are quick, for as
 * long as that takes no more of them. A first round that gets nothing done is left to scouts, as long as the rest takes no more
 * rounds than without them.
 */
export class Pace {
  /** Rounds of the last slice that was thorough. */
  #usual: number | undefined;
  /** Slices to be thorough yet, and how many it will be after the next disappointment. */
  readonly #thorough = new Backoff();
  readonly #unscouted = new Backoff();
  /** The first round of the last slice without scouts got nothing done. */
  #beginsInVain = false;
  #areScoutsRight = false;

  /** The kernel was run before, thoroughly. */
  get isKnown(): boolean {
    return this.#usual !== undefined;
  }

  /** Whether to begin a slice with scouts, as round 0. */
  get sendsScouts(): boolean {
    return this.#beginsInVain && this.isQuick(0) && !this.#unscouted.isWaiting;
  }

  /** What comes after scouts is likely to miss nothing that they did not tell of. */
  get trustsScouts(): boolean {
    return this.#areScoutsRight;
  }

  /** Whether to run the round of a slice of this number, from 0 on, quickly. */
  isQuick(round: number): boolean {
    return this.#usual !== undefined && !this.#thorough.isWaiting && round < this.#usual;
  }

  /**
   * Whether this round of a slice is likely to miss nothing: the last one of those that it takes. A first one misses what the
   * slice's pages are found out by.
   */
  isLast(round: number): boolean {
    return round > 0 && this.#usual === round + 1 && this.isQuick(round);
  }

  /** A slice without scouts took so many rounds. `beganInVain`: the first one got nothing done. */
  note(rounds: number, beganInVain = false): void {
    this.#beginsInVain = beganInVain;
    this.#unscouted.pass();
    if (this.#usual === undefined || this.#thorough.isWaiting) {
      this.#usual = rounds;
      this.#thorough.pass();
    } else if (rounds > this.#usual) {
      this.#thorough.disappoint();
    } else {
      this.#thorough.please();
    }
  }

  /** A slice took so many rounds, its scouts' among them. `inVain`: a first round without scouts would have got nothing done. */
  noteScouted(rounds: number, inVain: boolean): void {
    this.#areScoutsRight = this.#usual !== undefined && rounds <= this.#usual;
    if (this.#areScoutsRight && inVain) {
      this.#unscouted.please();
    } else {
      this.#unscouted.disappoint();
    }
  }
}

/** Slices to go without something, ever more of them from one disappointment to the next. */
class Backoff {
  #wait = 0;
  #penalty = 1;

  get isWaiting(): boolean {
    return this.#wait > 0;
  }

  /** A slice went without. */
  pass(): void {
    this.#wait = Math.max(0, this.#wait - 1);
  }

  disappoint(): void {
    this.#wait = this.#penalty;
    this.#penalty = Math.min(LONGEST_WAIT, this.#penalty * 2);
  }

  please(): void {
    this.#penalty = 1;
  }
}
