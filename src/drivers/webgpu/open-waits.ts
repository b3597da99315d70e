/** Waits that an end has to wait for. */

/** Waits with a range of a mirror, by dispatches that have no turn: the subscription ends after them. */
export class OpenWaits {
  readonly #waits = new Set<Promise<boolean>>();
  #ended = false;

  /** Runs `wait` before the end. True at once when that has come: whoever tries again finds out. */
  async run(wait: () => Promise<boolean>): Promise<boolean> {
    if (this.#ended) {
      return true;
    }
    const waiting = wait();
    this.#waits.add(waiting);
    try {
      return await waiting;
    } finally {
      this.#waits.delete(waiting);
    }
  }

  /** On return nobody waits, and nobody will. */
  async end(): Promise<void> {
    this.#ended = true;
    await Promise.allSettled(this.#waits);
  }
}
