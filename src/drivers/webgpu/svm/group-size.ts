/** Rounds that say how well a size does. */
const ROUNDS = 4;
/** A trial goes this many times up or down. */
const STEP = 4;
/** What a larger group has to get done of what the smaller one did; a smaller one need only be nearly as good. */
const LARGER = 1.25;
const SMALLER = 0.9;
/** Times {@link ROUNDS} before the next trial, at most. */
const LONGEST_WAIT = 16;

/**
 * How many invocations with resume points to run in the same rounds. Many are best where they use the same pages, few where each
 * comes back to pages of its own; nobody can tell before. So this tries, and keeps the size that gets most turns of loops done
 * in a round: smaller ones when more is missed than the pool holds, larger ones when not.
 */
export class GroupSize {
  #most: number;
  #trial: { readonly from: number; readonly turns: number } | undefined;
  #wait = 0;
  #penalty = 1;
  #rounds = 0;
  #turns = 0;
  #isCrowded = false;

  /** `begin`: a size that does no harm if each comes back to pages of its own. */
  constructor(begin: number) {
    this.#most = begin;
  }

  get most(): number {
    return this.#most;
  }

  /** A round of `count` invocations got `turns` done. `isCrowded`: and missed more than the pool holds. */
  note(count: number, turns: number, isCrowded: boolean): void {
    this.#rounds++;
    this.#turns += turns;
    this.#isCrowded ||= isCrowded;
    if (this.#rounds < ROUNDS) {
      return;
    }
    const { from, turns: former } = this.#trial ?? { from: 0, turns: 0 };
    if (this.#trial !== undefined && this.#turns < former * (from < this.#most ? LARGER : SMALLER)) {
      this.#most = from;
      this.#trial = undefined;
      this.#wait = this.#penalty;
      this.#penalty = Math.min(LONGEST_WAIT, this.#penalty * 2);
    } else if (this.#wait > 0) {
      this.#wait--;
    } else if (this.#isCrowded ? count > 1 : count >= this.#most) {
      this.#penalty = this.#trial === undefined ? this.#penalty : 1;
      this.#trial = { from: this.#most, turns: this.#turns };
      this.#most = this.#isCrowded ? Math.ceil(count / STEP) : this.#most * STEP;
    }
    this.#startAnew();
  }

  /** So many get in each other's way for good: nobody came further. */
  halve(count: number): void {
    this.#most = Math.max(1, count >> 1);
    this.#trial = undefined;
    this.#wait = this.#penalty;
    this.#penalty = Math.min(LONGEST_WAIT, this.#penalty * 2);
    this.#startAnew();
  }

  #startAnew(): void {
    this.#rounds = 0;
    this.#turns = 0;
    this.#isCrowded = false;
  }
}
