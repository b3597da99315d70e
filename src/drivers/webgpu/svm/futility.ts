import { KernelError } from "../../../base/index.ts";

/** Rounds without anything new before a dispatch looks at its clock. */
export const FUTILE_ROUNDS = 16;

/** Counts rounds that ask again for what they were given already, while nothing gets done. */
export class Futility {
  readonly #asked = new Set<number>();
  #since = 0;
  #rounds = 0;

  /** Something got done, or other work is run. */
  startOver(): void {
    this.#asked.clear();
  }

  /**
   * Looks at what a round asked for.
   * @throws KernelError EBUSY many rounds asked for nothing new, for longer than `timeoutMs`
   */
  check(faults: Uint32Array, op: string, timeoutMs: number): void {
    const before = this.#asked.size;
    for (const fault of faults) {
      this.#asked.add(fault);
    }
    if (this.#asked.size > before) {
      this.#rounds = 0;
      this.#since = Date.now();
    } else {
      this.#rounds++;
    }
    if (this.#rounds > FUTILE_ROUNDS && Date.now() - this.#since > timeoutMs) {
      const why = `the same pages were missing ${this.#rounds} rounds in a row (tried for ${timeoutMs} ms): they are leased or written all the time, or one of them is mapped at two addresses that one invocation uses, and writes through one`;
      throw new KernelError("EBUSY", op, why);
    }
  }
}
