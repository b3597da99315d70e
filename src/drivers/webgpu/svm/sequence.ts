/** Notices kernels that stream: slices whose pages follow those of the slice before. */
import type { Demand } from "./service.ts";

/** Pages `[start, end)` that a slice asked for alike. */
interface Run {
  readonly start: number;
  readonly end: number;
  readonly write: boolean;
}

/** Shorter runs say nothing. */
const LEAST_RUN = 4;
/** More runs than this are no stream. */
const MOST_RUNS = 16;
/** Share of a prediction that may fault all the same before it counts as wrong. */
const TOLERANCE = 0.25;

/**
 * Predicts what the next slice of a dispatch will ask for from the last two. A right prediction saves the run that would
 * only find out; a wrong one shows in the faults of its slice, and ends the predicting until two slices agree again.
 */
export class SequencePredictor {
  #former: readonly Run[] = [];
  #latest: readonly Run[] = [];
  #wasRight = false;

  /** What a slice asked for in all, how much of that was predicted, and how many faults it had beside that. */
  note(demands: readonly Demand[], predicted: number, faults: number): void {
    const wasWrong = faults > predicted * TOLERANCE;
    this.#wasRight = predicted > 0 && !wasWrong;
    this.#former = predicted > 0 && wasWrong ? [] : this.#latest;
    this.#latest = runsOf(demands);
  }

  /** The last prediction was right: the next ones are likely to be. */
  get wasRight(): boolean {
    return this.#wasRight;
  }

  /** Pages that a slice as large as the last one would be predicted; 0 when the last slices were no stream. */
  get pages(): number {
    return follows(this.#former, this.#latest) ? this.#latest.reduce((sum, { start, end }) => sum + end - start, 0) : 0;
  }

  /**
   * The demands of a slice to come, when the last slices were a stream. `ratio` is its size over that of the last one, `after`
   * the same for what comes in between.
   */
  predict(ratio: number, after = 0): Demand[] {
    if (!follows(this.#former, this.#latest)) {
      return [];
    }
    return this.#latest.flatMap(({ start, end, write }) => {
      const first = end + Math.round((end - start) * after);
      return Array.from({ length: Math.round((end - start) * ratio) }, (_, i) => ({
        page: first + i,
        write,
        optional: true as const,
      }));
    });
  }
}

/** Neighbouring pages together; a page that was asked for twice counts as its write. */
function runsOf(demands: readonly Demand[]): Run[] {
  const writes = new Map<number, boolean>();
  for (const { page, write } of demands) {
    writes.set(page, write || writes.get(page) === true);
  }
  const runs: (Run & { end: number })[] = [];
  for (const page of [...writes.keys()].sort((a, b) => a - b)) {
    const write = writes.get(page) === true;
    const last = runs.at(-1);
    if (last !== undefined && last.end === page && last.write === write) {
      last.end = page + 1;
    } else {
      runs.push({ start: page, end: page + 1, write });
    }
  }
  return runs.filter(({ start, end }) => end - start >= LEAST_RUN);
}

/** Each later run begins where an earlier one of its kind ended; slices may share the page between them. */
function follows(former: readonly Run[], latest: readonly Run[]): boolean {
  return (
    latest.length > 0 &&
    latest.length <= MOST_RUNS &&
    latest.every(({ start, write }) =>
      former.some((run) => run.write === write && start >= run.end - 1 && start <= run.end + 1),
    )
  );
}
