/** Counts rounds that ask again for what they were given already, while nothing gets done. */
export class Futility {
  readonly #asked = new Set<number>();
  #window = -1;
  #since = 0;
  count = 0;

  get lastsMs(): number {
    return Date.now() - this.#since;
  }

  /** Rounds so far, this one included, that asked for nothing new; progress changes the number of the window. */
  rounds(faults: Uint32Array, window: number): number {
    if (window !== this.#window) {
      this.#asked.clear();
      this.#window = window;
    }
    const before = this.#asked.size;
    for (const fault of faults) {
      this.#asked.add(fault);
    }
    if (this.#asked.size > before) {
      this.count = 0;
      this.#since = Date.now();
    } else {
      this.count++;
    }
    return this.count;
  }
}
