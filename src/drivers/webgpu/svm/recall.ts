/** What a kernel is likely to ask for again when it is dispatched once more. */
import type { Demand } from "./service.ts";
import type { SvmTable } from "./svm-table.ts";

/** Device pages that are remembered: 64 MiB. A kernel that asks for more has a round to find them out in any case. */
const MOST_PAGES = 4096;
/** Dispatches in a row that trust a guess which was right and all that was needed. */
const TRUST = 15;
/** Dispatches that guess nothing, at most, after guesses that were wrong. */
const LONGEST_WAIT = 16;

/**
 * The pages that a kernel missed in one address space. Those that the device no longer has when it is dispatched again, since
 * the CPU wrote or took them, come along with the first round, which finds nothing missing then. What it did not use is
 * forgotten; when that is much, guessing pauses.
 */
export class Recall {
  /** By page; whether to write it. */
  readonly #pages = new Map<number, boolean>();
  #trust = 0;
  #wait = 0;
  #penalty = 1;

  /** The last guesses were right, and nothing was missing beside them. */
  get isTrusted(): boolean {
    return this.#trust > 0;
  }

  /** The pages to bring with the first round of a dispatch that begins. */
  choose(table: SvmTable): readonly Demand[] {
    const chosen: Demand[] = [];
    if (this.#wait > 0) {
      this.#wait--;
    } else {
      for (const [page, write] of this.#pages) {
        if (!table.isResident(page, write) && table.isMapped(page, write)) {
          chosen.push({ page, write, optional: true });
        }
      }
    }
    return chosen;
  }

  /**
   * The dispatch is over: it was `brought` these, and missed others all the same. `notes`: its first round noted each use of a
   * page, so that it can be told what was brought in vain.
   */
  note(table: SvmTable, brought: readonly Demand[], missed: readonly Demand[], notes: boolean): void {
    if (brought.length > 0 && !notes) {
      this.#trust = missed.length > 0 ? 0 : this.#trust - 1;
    } else if (brought.length > 0) {
      this.#judge(table, brought, missed.length > 0);
    }
    for (const { page, write } of missed) {
      this.#pages.set(page, write || this.#pages.get(page) === true);
    }
    if (this.#pages.size > MOST_PAGES) {
      this.#pages.clear();
    }
  }

  #judge(table: SvmTable, brought: readonly Demand[], missedMore: boolean): void {
    const unused = brought.filter(({ page }) => table.frameAt(page)?.isUnused);
    if (unused.length * 4 > brought.length) {
      this.#pages.clear();
      this.#trust = 0;
      this.#wait = this.#penalty;
      this.#penalty = Math.min(LONGEST_WAIT, this.#penalty * 2);
      return;
    }
    for (const { page } of unused) {
      this.#pages.delete(page);
    }
    this.#trust = missedMore ? 0 : TRUST;
    this.#penalty = 1;
  }
}

/** What one kernel asked for, in each address space. */
export class Recalls {
  readonly #all = new WeakMap<SvmTable, Recall>();

  /** Undefined when not all that is mapped fits the `frames` of a dispatch: what it lacks was given up for others, then. */
  of(table: SvmTable, frames: number): Recall | undefined {
    if (table.mappedPages > frames) {
      return undefined;
    }
    const recall = this.#all.get(table) ?? new Recall();
    this.#all.set(table, recall);
    return recall;
  }
}
