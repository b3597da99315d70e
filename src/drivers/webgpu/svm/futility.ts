/** Counts rounds that ask again for what they were given already, while nothing gets done. */
export class Futility {
  readonly #asked = new Set<number>();
  #since = 0;
  count = 0;

  get lastsMs(): number {
    return Date.now() - this.#since;
  }

  /** Something got done, or other work is run. */
  startOver(): void {
    this.#asked.clear();
  }

  /** Rounds so far, this one included, that asked for nothing new. */
  rounds(faults: Uint32Array): number {
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
