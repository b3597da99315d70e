/**
 * Running a kernel over memory that is not all there: rounds of run, report, serve, until every workgroup is done.
 *
 *     window of workgroups
 *       slice: as many as are likely to fit the pool with what they touch
 *         round: serve the faults of the last one, run, read the report
 *         too many faults for the pool?  a smaller slice, then fewer invocations of one workgroup, then an error
 */
import { KernelError, throwIfAborted } from "../../../base/index.ts";
import { decodeFault, type FatalAccess, type RoundReport, type RoundRun } from "./control.ts";
import type { FramePlacer } from "./frame-placer.ts";
import { Futility } from "./futility.ts";
import type { Pace } from "./pace.ts";
import { Prefetcher } from "./prefetch.ts";
import { idsBetween, ResumeRounds, type SpillFrame } from "./resume-rounds.ts";
import { SequencePredictor } from "./sequence.ts";
import type { Demand } from "./service.ts";
import type { SvmTable } from "./svm-table.ts";
import { windowSize } from "./windows.ts";
import type { FrameClaim } from "./work.ts";

/** Share of the pool that the working set of a slice is fitted to. */
const FILL = 0.75;

/** What a dispatch runs, whatever is resident. */
export interface RoundsJob {
  readonly name: string;
  readonly grid: readonly [number, number, number];
  readonly invocationsPerWorkgroup: number;
  /** Invocations of one workgroup can be done in different rounds. */
  readonly doneBits: boolean;
  /** Records an invocation of the log of atomic operations; 0 for kernels that keep none. */
  readonly replayRecords: number;
}

/** One round, made by the dispatch: serves the demands, then runs. */
export type RunRound = (run: RoundRun, round: RoundContext) => Promise<RoundReport>;

export interface RoundContext {
  readonly demands: readonly Demand[];
  /** Bring these too if frames are free. */
  readonly prefetch: readonly Demand[];
  /** Forget the faults that did not fit the last report. */
  readonly clearFaults: boolean;
  /** The first round of a window: forget done bits and replay logs. */
  readonly newWindow: boolean;
  /** With a pipeline that does not find out everything. */
  readonly pipeline?: "quick" | "guarded" | undefined;
}

export interface RoundsStats {
  rounds: number;
  faults: number;
}

/** The rounds of one dispatch. */
export class Rounds {
  readonly #job: RoundsJob;
  readonly #table: SvmTable;
  readonly #prefetcher = new Prefetcher();
  #named: readonly Demand[];
  readonly #pace: Pace | undefined;
  #isReadable: boolean;
  readonly #run: RunRound;
  readonly #claim: FrameClaim;
  readonly #placer: FramePlacer;
  readonly #signal: AbortSignal | undefined;
  readonly #timeoutMs: number;
  readonly #growReplay: (records: number) => Promise<void>;
  readonly #resume: () => Promise<SpillFrame | string>;
  readonly #fail: (fatal: FatalAccess, why: string) => never;
  readonly stats: RoundsStats = { rounds: 0, faults: 0 };
  readonly #sequence = new SequencePredictor();
  #sliceLimit: number;
  #resumeRounds: ResumeRounds | undefined;
  /** The last workgroups needed resume points: the next ones are likely to. */
  #isResuming = false;
  /** Invocations store more than can be kept back: resume points commit it on the way. */
  #storesMuch = false;

  constructor(parts: {
    readonly job: RoundsJob;
    readonly table: SvmTable;
    /** Bring these with the first round, if that is possible. */
    readonly named: readonly Demand[];
    /** What is known of the kernel, if it can be run quickly. */
    readonly pace: Pace | undefined;
    /** All pages can be read, when it begins: the first round of a slice is likely to be its last, and guarded will do. */
    readonly isReadable: boolean;
    readonly run: RunRound;
    readonly claim: FrameClaim;
    readonly placer: FramePlacer;
    readonly growReplay: (records: number) => Promise<void>;
    /** Called when a single invocation does not fit the pool: makes it go on from resume points, or says why it cannot. */
    readonly resume: () => Promise<SpillFrame | string>;
    /** Says that more was stored than can be kept back, and why there are no resume points. */
    readonly fail: (fatal: FatalAccess, why: string) => never;
    readonly signal: AbortSignal | undefined;
    /** How long rounds may go on that bring nothing new and get nothing done. */
    readonly timeoutMs: number;
  }) {
    this.#job = parts.job;
    this.#table = parts.table;
    this.#named = parts.named;
    this.#pace = parts.pace;
    this.#isReadable = parts.isReadable;
    this.#run = parts.run;
    this.#claim = parts.claim;
    this.#placer = parts.placer;
    this.#growReplay = parts.growReplay;
    this.#resume = parts.resume;
    this.#fail = parts.fail;
    this.#signal = parts.signal;
    this.#timeoutMs = parts.timeoutMs;
    const [x, y, z] = parts.job.grid;
    this.#sliceLimit = Math.min(windowSize(parts.job), firstSlice(x * y * z, parts.table, parts.placer.share));
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
    let fresh = true;
    let former = 0;
    for (let next = first; next < first + count; ) {
      if (this.#isResuming && this.#resumeRounds !== undefined) {
        next += await this.#resumeSome(this.#resumeRounds, first, idsBetween(next, first + count), fresh);
        fresh = false;
        continue;
      }
      const slice = Math.min(this.#sliceLimit, first + count - next);
      const predicted = this.#fitting([
        ...this.#named,
        ...(former === 0 ? [] : this.#sequence.predict(slice / former)),
      ]);
      this.#named = [];
      const faultsBefore = this.stats.faults;
      const { used, demands } = await this.#slice(first, next, slice, fresh, predicted);
      // Others may have its frames now.
      this.#placer.release(this.#claim);
      this.#sequence.note(demands, this.stats.faults - faultsBefore);
      fresh = false;
      former = slice;
      next += slice;
      this.#grow(used, count);
    }
  }

  /** As much of a prediction as may be brought: mapped, not there yet, and no more than the pool takes. */
  #fitting(predicted: readonly Demand[]): Demand[] {
    const table = this.#table;
    return predicted
      .filter(({ page, write }) => table.isMapped(page, write) && !table.isResident(page, write))
      .slice(0, Math.floor(this.#placer.share * FILL));
  }

  /**
   * Runs workgroups until all of them are done, in smaller slices when their working set does not fit. Returns the most
   * frames that they were seen to need at once, and the pages that they asked for, the predicted ones included.
   */
  async #slice(
    windowFirst: number,
    first: number,
    count: number,
    newWindow: boolean,
    predicted: readonly Demand[],
  ): Promise<{ readonly used: number; readonly demands: readonly Demand[] }> {
    let used = predicted.length;
    const asked: Demand[] = [...predicted];
    let pending: Uint32Array<ArrayBuffer> | undefined;
    let context: RoundContext = {
      demands: predicted,
      prefetch: [],
      clearFaults: newWindow,
      newWindow,
    };
    let lanes = this.#job.invocationsPerWorkgroup;
    let laneFirst = 0;
    let idle = 0;
    const futility = new Futility();
    let thorough = false;
    for (let round = 0; ; round++) {
      throwIfAborted(this.#signal, this.#job.name);
      const ids = pending?.subarray(0, this.#sliceLimit) as Uint32Array<ArrayBuffer> | undefined;
      const rest = pending?.subarray(ids?.length ?? 0);
      const running = ids?.length ?? count;
      const single = running === 1 && this.#job.doneBits;
      const isTrying = round === 0 && this.#isReadable;
      const quick: boolean = !thorough && (isTrying || this.#pace?.isQuick(round) === true);
      const report = await this.#round(
        {
          grid: this.#job.grid,
          windowFirst,
          ids,
          first,
          count: running,
          lanes: single ? [laneFirst, laneFirst + lanes] : [0, 0xffff_ffff],
        },
        { ...context, pipeline: quick ? (this.#isReadable ? "guarded" : "quick") : undefined },
      );
      if (report.failed.length === 0 && (rest === undefined || rest.length === 0)) {
        if (!this.#isReadable) {
          this.#pace?.note(round + 1);
        }
        return { used, demands: asked };
      }
      const { fatal } = report;
      if (fatal !== undefined) {
        const resuming = await this.#resumable((why) => this.#fail(fatal, why));
        this.#storesMuch = true;
        let left = joined(report.failed.sort(), rest);
        while (left.length > 0) {
          left = left.subarray(await this.#resumeSome(resuming, windowFirst, left));
        }
        return { used, demands: asked };
      }
      const progress = report.completed > 0 || report.doneInvocations > 0;
      // In order, so that the next slice is one of neighbours, which are likely to share pages.
      report.failed.sort();
      if (progress) {
        // Who is done needs its pages no more; those of the others were used last and are the last to be evicted.
        this.#claim.clear();
        futility.startOver();
      }
      thorough = quick && report.faults.length === 0;
      if (thorough) {
        // Perhaps others needed the room.
        this.#isReadable = false;
        pending = joined(report.failed, rest);
        context = { ...context, demands: [], prefetch: [], clearFaults: false, newWindow: false };
        continue;
      }
      if (report.replayNeeded > 0) {
        await this.#growReplay(report.replayNeeded);
      }
      if (report.faults.length === 0) {
        // Nobody missed anything, yet not all are done: those at rest are next, or what was missed came meanwhile.
        idle = progress ? 0 : idle + 1;
        if (single && lanes < this.#job.invocationsPerWorkgroup) {
          laneFirst = (laneFirst + lanes) % this.#job.invocationsPerWorkgroup;
        }
        if (idle > 2 * this.#job.invocationsPerWorkgroup + 16) {
          throw this.#stuck(report, running);
        }
        pending = joined(report.failed, rest);
        context = { ...context, demands: [], prefetch: [], clearFaults: false, newWindow: false };
        this.#grow(used, count);
        continue;
      }
      idle = 0;
      futility.check(report.faults, this.#job.name, this.#timeoutMs);
      pending = joined(report.failed, rest);
      const demands = [...report.faults].map(decodeFault).sort((a, b) => a.page - b.page);
      this.stats.faults += demands.length;
      asked.push(...demands);
      // Beside others a slice is content with its share, but what cannot be made less gets the whole pool.
      const room = running > 1 ? this.#placer.share : this.#table.pool.capacity;
      const inUse = this.#claim.count();
      // What is there already but was not asked for by this slice may not be evicted for the rest either.
      const missing = demands.filter(({ page }) => !this.#claim.covers(this.#table.frameAt(page))).length;
      used = Math.max(used, missing + inUse);
      // Faults that the report had no room for wait in the bitmaps, for the next one.
      if (missing + inUse <= room) {
        const prefetch = this.#prefetcher.choose(this.#table, demands);
        if (progress) {
          this.#grow(missing + inUse, count);
        }
        context = { demands, prefetch, clearFaults: false, newWindow: false };
        continue;
      }
      // The working set of what runs does not fit: run less of it.
      const demand = missing + inUse;
      if (running > 1) {
        this.#sliceLimit = Math.max(1, Math.min(running - 1, Math.floor((running * room * FILL) / demand)));
        context = this.#startOver(futility);
      } else if (this.#job.doneBits && lanes > 1) {
        lanes = Math.max(1, Math.min(lanes - 1, Math.floor((lanes * room * FILL) / demand)));
        context = this.#startOver(futility);
      } else if (await this.#placer.grow(demand, true, this.#signal)) {
        context = this.#startOver(futility);
      } else {
        const resuming = await this.#resumable((why) => {
          throw this.#tooBig(demand, room, why);
        });
        let left = joined(Uint32Array.of(ids?.[0] ?? first), rest);
        do {
          left = left.subarray(await this.#resumeSome(resuming, windowFirst, left));
        } while (this.#isResuming && left.length > 0);
        if (left.length === 0) {
          return { used, demands: asked };
        }
        pending = left;
        lanes = this.#job.invocationsPerWorkgroup;
        laneFirst = 0;
        context = this.#startOver(futility);
      }
    }
  }

  async #resumable(refuse: (why: string) => never): Promise<ResumeRounds> {
    if (this.#resumeRounds === undefined) {
      const spill = await this.#resume();
      if (typeof spill === "string") {
        return refuse(spill);
      }
      this.#resumeRounds = new ResumeRounds(
        {
          job: this.#job,
          table: this.#table,
          run: this.#run,
          claim: this.#claim,
          growReplay: this.#growReplay,
          signal: this.#signal,
          timeoutMs: this.#timeoutMs,
          stats: this.stats,
        },
        spill,
      );
    }
    return this.#resumeRounds;
  }

  /** Finishes the first few of these workgroups, which are done then. `newWindow` is given for those that never ran. */
  async #resumeSome(
    resuming: ResumeRounds,
    windowFirst: number,
    ids: Uint32Array<ArrayBuffer>,
    newWindow?: boolean,
  ): Promise<number> {
    const some = resuming.workgroupsOf(ids);
    const isTight = await resuming.workgroups(windowFirst, ids.slice(0, some), {
      fresh: newWindow !== undefined,
      newWindow: newWindow === true,
    });
    this.#isResuming = isTight || this.#storesMuch;
    return some;
  }

  /** Less of the slice runs, or in more room: what the rest asked for is not needed now. */
  #startOver(futility: Futility): RoundContext {
    this.#claim.clear();
    futility.startOver();
    return { demands: [], prefetch: [], clearFaults: true, newWindow: false };
  }

  /** What ran used less than half of the pool: run more of it at a time. */
  #grow(used: number, count: number): void {
    if (used * 2 < this.#placer.share) {
      this.#sliceLimit = Math.min(count, this.#sliceLimit * 2);
    }
  }

  async #round(run: RoundRun, context: RoundContext): Promise<RoundReport> {
    this.stats.rounds++;
    return await this.#run(run, context);
  }

  #tooBig(demand: number, room: number, why: string): KernelError {
    const what = this.#job.doneBits ? "one invocation" : "one workgroup (it has barriers, so it is done as a whole)";
    return new KernelError(
      "ENOMEM",
      this.#job.name,
      `${what} needs at least ${demand} device pages of 16 KiB at once, the pool holds ${room}: raise deviceMemory, or give each invocation less to do; resume points do not apply: ${why}`,
    );
  }

  #stuck(report: RoundReport, running: number): KernelError {
    return new KernelError(
      "EIO",
      this.#job.name,
      `${report.failed.length} of ${running} workgroups make no progress although they miss no page: reduce the grid and report this as a bug`,
    );
  }
}

/** Workgroups to begin with: as if each used its share of all that is mapped. */
function firstSlice(total: number, { mappedPages }: SvmTable, room: number): number {
  return room >= mappedPages ? total : Math.max(1, Math.floor((total * room * FILL) / mappedPages));
}

function joined(a: Uint32Array<ArrayBuffer>, b: Uint32Array | undefined): Uint32Array<ArrayBuffer> {
  if (b === undefined || b.length === 0) {
    return a;
  }
  const all = new Uint32Array(a.length + b.length);
  all.set(a);
  all.set(b, a.length);
  return all;
}
