/** Notices kernels that stream: slices whose pages follow those of the slice before. */
import type { Demand } from "./service.ts";

/** Pages `[start, end)` that a slice asked for alike, or found there. */
interface Run {
  readonly start: number;
  readonly end: number;
  readonly write: boolean;
}

/** Whether a page that nobody asked for was there all the same, so that a slice may have used it. */
export type IsThere = (page: number) => boolean;

/** Shorter runs say nothing. */
const LEAST_RUN = 4;
/** Pages that may have been there between two runs that are one: what a prefetch brings at most. */
const LONGEST_GAP = 128;
/** More runs than this are no stream. */
const MOST_RUNS = 16;
/** Share of a prediction that may fault all the same before it counts as wrong. */
const TOLERANCE = 0.25;

/**
 * Predicts what the next slice of a dispatch will ask for from the last two. A right prediction saves the run that would
 * only find out; a wrong one shows in the faults of its slice, and ends the predicting until two slices agree again.
 */
export class SequencePredictor {
  #latest: readonly Run[] = [];
  /** The latest runs, when they follow those before: each from where the run before it ended. */
  #stream: readonly Run[] = [];
  #wasRight = false;

  /** What a slice asked for in all, how much of that was predicted, and how many faults it had beside that. */
  note(demands: readonly Demand[], predicted: number, faults: number, isThere: IsThere = () => false): void {
    const wasWrong = faults > predicted * TOLERANCE;
    this.#wasRight = predicted > 0 && !wasWrong;
    const former = predicted > 0 && wasWrong ? [] : this.#latest;
    this.#latest = runsOf(demands, isThere);
    this.#stream = streamOf(former, this.#latest, isThere);
  }

  /** The last prediction was right: the next ones are likely to be. */
  get wasRight(): boolean {
    return this.#wasRight;
  }

  /** Pages that a slice as large as the last one would be predicted; 0 when the last slices were no stream. */
  get pages(): number {
    return this.#stream.reduce((sum, { start, end }) => sum + end - start, 0);
  }

  /**
   * The demands of a slice to come, when the last slices were a stream. `ratio` is its size over that of the last one, `after`
   * the same for what comes in between.
   */
  predict(ratio: number, after = 0): Demand[] {
    return this.#stream.flatMap(({ start, end, write }) => {
      const first = end + Math.round((end - start) * after);
      return Array.from({ length: Math.round((end - start) * ratio) }, (_, i) => ({
        page: first + i,
        write,
        optional: true as const,
      }));
    });
  }
}

/**
 * Neighbouring pages together, with what was there between them; a page that was asked for twice counts as its write.
 */
function runsOf(demands: readonly Demand[], isThere: IsThere): Run[] {
  const writes = new Map<number, boolean>();
  for (const { page, write } of demands) {
    writes.set(page, write || writes.get(page) === true);
  }
  const runs: (Run & { end: number })[] = [];
  for (const page of [...writes.keys()].sort((a, b) => a - b)) {
    const write = writes.get(page) === true;
    const last = runs.at(-1);
    if (last !== undefined && last.write === write && wereThere(last.end, page, isThere)) {
      last.end = page + 1;
    } else {
      runs.push({ start: page, end: page + 1, write });
    }
  }
  return runs.filter(({ start, end }) => end - start >= LEAST_RUN);
}

/** Whether all pages of a gap, which may be none, were brought without being asked for. */
function wereThere(start: number, end: number, isThere: IsThere): boolean {
  if (end - start > LONGEST_GAP) {
    return false;
  }
  for (let page = start; page < end; page++) {
    if (!isThere(page)) {
      return false;
    }
  }
  return true;
}

/**
 * The later runs, if each begins where an earlier one of its kind ended, or behind what was there already; slices may share
 * the page between them. None when one does not.
 */
function streamOf(former: readonly Run[], latest: readonly Run[], isThere: IsThere): readonly Run[] {
  if (latest.length > MOST_RUNS) {
    return [];
  }
  const stream: Run[] = [];
  for (const { start, end, write } of latest) {
    const before = former.find(
      (run) =>
        run.write === write && start >= run.end - 1 && (start <= run.end + 1 || wereThere(run.end, start, isThere)),
    );
    if (before === undefined) {
      return [];
    }
    // What a prefetch for the slice before brought was a part of this one.
    stream.push({ start: Math.min(start, before.end), end, write });
  }
  return stream;
}
