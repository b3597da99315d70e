/**
 * Running a kernel over memory that is not all there: rounds of run, report, serve, until every workgroup is done.
 *
 *     window of workgroups
 *       slice: as many as are likely to fit the pool with what they touch
 *         round: serve the faults of the last one, run, read the report
 *         too many faults for the pool?  a smaller slice, then parts of a workgroup or resume points, then an error
 *
 * While a slice of a stream runs, the first round of the next one is prepared and submitted.
 */
import { lockdepTask } from "../../../sync/index.ts";
import { BESIDE, type BegunSlice, beginSlice, type Lane, settled } from "./begun-slice.ts";
import type { RoundReport, RoundRun } from "./control.ts";
import type { FramePlacer } from "./frame-placer.ts";
import type { Pace } from "./pace.ts";
import { idsBetween } from "./resume-rounds.ts";
import { areScouted } from "./scout.ts";
import { SequencePredictor } from "./sequence.ts";
import type { Demand } from "./service.ts";
import { ALL_LANES, FILL, NOTHING, type RoundsParts, SliceRounds } from "./slice-rounds.ts";
import type { SvmTable } from "./svm-table.ts";
import { windowSize } from "./windows.ts";
import type { FrameClaim, SvmWork } from "./work.ts";

/** Share of the pool that the working set of the first slice is fitted to. */
const FIRST_FILL = 0.2;

/** What a dispatch runs, whatever is resident. */
export interface RoundsJob {
  readonly name: string;
  readonly grid: readonly [number, number, number];
  readonly invocationsPerWorkgroup: number;
  /** Invocations of one workgroup can be done in different rounds. */
  readonly doneBits: boolean;
  /** Records an invocation of the log of atomic operations; 0 for kernels that keep none. */
  readonly replayRecords: number;
  readonly recordWords: number;
}

/** One round, made by the dispatch: serves the demands, then runs. */
export type RunRound = (run: RoundRun, round: RoundContext) => Promise<RoundReport>;

/** What a round brings first, and how it runs. */
export interface RoundContext {
  readonly demands: readonly Demand[];
  /** Bring these too if frames are free. */
  readonly prefetch: readonly Demand[];
  /** Forget the faults that did not fit the last report. */
  readonly clearFaults: boolean;
  /** The first round of a window: forget done bits and replay logs. */
  readonly newWindow: boolean;
  /** With a pipeline that does not find out everything. */
  readonly pipeline?: "scout" | "quick" | "guarded" | undefined;
  /** Whose control buffers; 0 when it does not say. */
  readonly lane?: Lane;
  /** The demanded pages have their frames already. */
  readonly isPlaced?: boolean;
  /** Some were taken away before all were there: it runs with all of them, if that can be had. */
  readonly together?: boolean;
  readonly onSubmitted?: () => void;
}

/** What the rounds of a dispatch came to; faults are device pages. */
export interface RoundsStats {
  rounds: number;
  faults: number;
}

/** The rounds of one dispatch: its slices, in order. */
export class Rounds {
  readonly #job: RoundsJob;
  readonly #table: SvmTable;
  readonly #pace: Pace | undefined;
  readonly #work: SvmWork;
  readonly #claim: FrameClaim;
  readonly #placer: FramePlacer;
  readonly #beside: () => Promise<boolean>;
  readonly #onSlice: (asked: readonly Demand[]) => void;
  readonly #sequence = new SequencePredictor();
  readonly #slices: SliceRounds;
  #guessed: readonly Demand[];
  /** Lanes that have not run anything of the window. */
  readonly #isFresh = [true, true];
  /** What the last slice was predicted, which the next ones are not likely to use. */
  #behind: readonly Demand[] = [];

  constructor(parts: RoundsParts) {
    this.#job = parts.job;
    this.#table = parts.table;
    this.#pace = parts.pace;
    this.#work = parts.work;
    this.#claim = parts.work.claim;
    this.#placer = parts.placer;
    this.#beside = parts.beside;
    this.#onSlice = parts.onSlice;
    this.#guessed = parts.guessed;
    const [x, y, z] = parts.job.grid;
    const limit = Math.min(windowSize(parts.job), firstSlice(x * y * z, parts.table, parts.placer.share));
    this.#slices = new SliceRounds(parts, limit);
  }

  get stats(): RoundsStats {
    return this.#slices.stats;
  }

  /** @throws KernelError as WebGpuKernel.dispatch */
  async all(): Promise<void> {
    const [x, y, z] = this.#job.grid;
    const total = x * y * z;
    const window = windowSize(this.#job);
    for (let first = 0; first < total; first += window) {
      await this.#window(first, Math.min(window, total - first));
    }
  }

  async #window(first: number, count: number): Promise<void> {
    const slices = this.#slices;
    const end = first + count;
    this.#isFresh.fill(true);
    let former = 0;
    let ahead: BegunSlice | undefined;
    for (let next = first; next < end; ) {
      const { isResuming, resumeRounds } = slices;
      if (ahead === undefined && isResuming && resumeRounds !== undefined) {
        next += await slices.resumeSome(resumeRounds, first, idsBetween(next, end), this.#takeFresh(slices.lane));
        continue;
      }
      const slice: BegunSlice = ahead ?? this.#beginNext(first, next, end, former);
      slices.lane = slice.lane;
      const following = this.#goAhead(first, slice, former, end);
      following.catch(() => undefined);
      const faultsBefore = this.stats.faults;
      let done: { readonly used: number; readonly demands: readonly Demand[] };
      try {
        done = await slices.finish(first, slice);
      } catch (error) {
        this.#placer.release(this.#claim);
        await settled(slice);
        await settled(await following.catch(() => undefined));
        throw error;
      }
      // Others may have its frames now.
      this.#placer.release(this.#claim);
      const wasAhead = ahead !== undefined;
      ahead = await following;
      const faults = this.stats.faults - faultsBefore;
      this.#onSlice(done.demands);
      this.#sequence.note(
        done.demands,
        slice.predicted.length,
        faults,
        (page) => this.#table.frameAt(page) !== undefined,
      );
      this.#behind = slice.predicted;
      former = slice.count;
      next += slice.count;
      if (!wasAhead && ahead === undefined) {
        slices.grow(done.used, count);
      }
    }
  }

  #takeFresh(lane: Lane): boolean {
    const isFresh = this.#isFresh[lane];
    this.#isFresh[lane] = false;
    return isFresh;
  }

  /** Begins the slice that comes next when none was begun ahead. */
  #beginNext(windowFirst: number, first: number, end: number, former: number): BegunSlice {
    let count = Math.min(this.#slices.limit, end - first);
    const pages = former === 0 ? 0 : (this.#sequence.pages * count) / former;
    const most = this.#placer.share * BESIDE;
    if (this.#isIndependent && pages > most) {
      count = Math.max(1, Math.floor((count * most) / pages));
    }
    const predicted = this.#fitting([
      ...this.#guessed,
      ...(former === 0 ? [] : this.#sequence.predict(count / former)),
    ]);
    this.#guessed = [];
    // Where the pool is short, what a few miss says nothing of what has to fit.
    const scouts =
      this.#sequence.pages === 0 &&
      !this.#slices.isReadable &&
      this.#pace?.sendsScouts === true &&
      areScouted(count, this.#job.invocationsPerWorkgroup) &&
      this.#table.mappedPages <= this.#placer.share;
    return this.#begin(windowFirst, { lane: this.#slices.lane, first, count, predicted, scouts });
  }

  #begin(
    windowFirst: number,
    { lane, first, count, predicted, scouts }: Pick<BegunSlice, "lane" | "first" | "count" | "predicted" | "scouts">,
    isPlaced = false,
  ): BegunSlice {
    const newWindow = this.#takeFresh(lane);
    const { isReadable } = this.#slices;
    const quick = isReadable || this.#pace?.isQuick(0) === true;
    const quickly = quick ? this.#slices.quickPipeline(0) : undefined;
    const pipeline: RoundContext["pipeline"] = scouts ? "scout" : quickly;
    const lanes = count === 1 && this.#job.doneBits ? ([0, this.#job.invocationsPerWorkgroup] as const) : ALL_LANES;
    const run = { grid: this.#job.grid, windowFirst, ids: undefined, first, count, lanes };
    const context = { ...NOTHING, demands: predicted, clearFaults: newWindow, newWindow, pipeline, lane, isPlaced };
    const round = (onSubmitted: () => void) => this.#slices.round(run, { ...context, onSubmitted });
    // Beside the rounds of another slice it takes locks of its own.
    return beginSlice({ lane, first, count, predicted, scouts, quick }, (onSubmitted) =>
      isPlaced ? lockdepTask(`${this.#job.name}, ahead`, () => round(onSubmitted)) : round(onSubmitted),
    );
  }

  /** Slices may run side by side: no invocation can wait for another, and none needs all of the pool. */
  get #isIndependent(): boolean {
    return this.#job.replayRecords === 0 && this.#slices.resumeRounds === undefined;
  }

  /**
   * Begins the slice after the one that runs, when it is known what it will ask for and there is room for that beside.
   * Undefined when not.
   * @throws KernelError ENODEV
   */
  async #goAhead(windowFirst: number, slice: BegunSlice, former: number, end: number): Promise<BegunSlice | undefined> {
    const first = slice.first + slice.count;
    const count = Math.min(slice.count, end - first);
    if (!this.#isIndependent || !this.#sequence.wasRight || slice.predicted.length === 0 || count === 0) {
      return undefined;
    }
    const predicted = this.#fitting(this.#sequence.predict(count / former, slice.count / former));
    await slice.submitted;
    if (!(await this.#beside())) {
      return undefined;
    }
    const most = this.#placer.share * BESIDE;
    if (predicted.length === 0 || Math.max(predicted.length, slice.predicted.length) > most || !this.#isIndependent) {
      return undefined;
    }
    // Guesses so far: from here on they are what the slice needs.
    for (const { page } of slice.predicted) {
      const frame = this.#table.frameAt(page);
      if (frame !== undefined) {
        this.#claim.add(frame);
      }
    }
    return this.#placer.placeAhead(this.#table, predicted, this.#behind, this.#work)
      ? this.#begin(windowFirst, { lane: slice.lane === 0 ? 1 : 0, first, count, predicted, scouts: false }, true)
      : undefined;
  }

  /** As much of a prediction as may be brought: mapped, not there yet, and no more than the pool takes. */
  #fitting(predicted: readonly Demand[]): Demand[] {
    const table = this.#table;
    return predicted
      .filter(({ page, write }) => table.isMapped(page, write) && !table.isResident(page, write))
      .slice(0, Math.floor(this.#placer.share * FILL));
  }
}

/** Workgroups to begin with: as if each used its share of all that is mapped, and few, to find out what they do use. */
function firstSlice(total: number, { mappedPages }: SvmTable, room: number): number {
  return room >= mappedPages ? total : Math.max(1, Math.floor((total * room * FIRST_FILL) / mappedPages));
}
