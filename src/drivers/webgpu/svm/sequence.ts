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
  #predicted = 0;

  /** What a slice asked for in all, the prediction for it included, and how many faults it had beside that. */
  note(demands: readonly Demand[], faults: number): void {
    if (this.#predicted > 0 && faults > this.#predicted * TOLERANCE) {
      this.#latest = [];
    }
    this.#former = this.#latest;
    this.#latest = runsOf(demands);
  }

  /** The next slice's demands, when the last slices were a stream; `ratio` is its size over that of the last one. */
  predict(ratio: number): Demand[] {
    this.#predicted = 0;
    if (!follows(this.#former, this.#latest)) {
      return [];
    }
    const demands = this.#latest.flatMap(({ start, end, write }) =>
      Array.from({ length: Math.round((end - start) * ratio) }, (_, i) => ({
        page: end + i,
        write,
        optional: true as const,
      })),
    );
    this.#predicted = demands.length;
    return demands;
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
