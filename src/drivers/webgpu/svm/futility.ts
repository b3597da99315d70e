/** When a dispatch that gets nothing done has tried for long enough. */
import { KernelError } from "../../../base/index.ts";
import type { Demand } from "./service.ts";

/** Rounds without anything new before a dispatch looks at its clock. */
export const FUTILE_ROUNDS = 16;

/** What rounds asked for while nothing got done: all of it is needed at once (I-GPU-12). */
export class Futility {
  /** By page: whether it is to be written. */
  readonly #asked = new Map<number, boolean>();
  #since = 0;
  #rounds = 0;

  /** Something got done, or other work is run. */
  startOver(): void {
    this.#asked.clear();
  }

  /**
   * Looks at what a round asked for. Returns whether some of it was asked for before: others take away what comes.
   * @throws KernelError EBUSY many rounds asked for nothing new, for longer than `timeoutMs`
   */
  check(faults: readonly Demand[], op: string, timeoutMs: number): boolean {
    let isNew = false;
    let isLost = false;
    for (const { page, write } of faults) {
      const before = this.#asked.get(page);
      if (before === undefined || (write && !before)) {
        this.#asked.set(page, write);
        isNew = true;
      } else {
        isLost = true;
      }
    }
    if (isNew) {
      this.#rounds = 0;
      this.#since = Date.now();
    } else {
      this.#rounds++;
    }
    if (this.#rounds > FUTILE_ROUNDS && Date.now() - this.#since > timeoutMs) {
      const why = `the same pages were missing ${this.#rounds} rounds in a row (tried for ${timeoutMs} ms): they are leased or written all the time, or one of them is mapped at two addresses that one invocation uses, and writes through one`;
      throw new KernelError("EBUSY", op, why);
    }
    return isLost;
  }

  /** All that was asked for, by rising page. */
  asked(): Demand[] {
    return [...this.#asked].map(([page, write]) => ({ page, write })).sort((a, b) => a.page - b.page);
  }
}
