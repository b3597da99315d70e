/** The rounds of one slice of workgroups, until all of them are done. */
import { KernelError, throwIfAborted } from "../../../base/index.ts";
import type { BegunSlice, Lane } from "./begun-slice.ts";
import { decodeFaults, type FatalAccess, type RoundReport, type RoundRun } from "./control.ts";
import { MOST_MISSES } from "./control-layout.ts";
import type { FramePlacer } from "./frame-placer.ts";
import { Futility } from "./futility.ts";
import type { Pace } from "./pace.ts";
import { Prefetcher } from "./prefetch.ts";
import { joined, ResumeRounds } from "./resume-rounds.ts";
import type { RoundContext, RoundsJob, RoundsStats, RunRound } from "./rounds.ts";
import { scoutsOf } from "./scout.ts";
import type { Demand } from "./service.ts";
import type { SvmTable } from "./svm-table.ts";
import { nextLane } from "./windows.ts";
import type { FrameClaim, SvmWork } from "./work.ts";

/** Share of the pool that the working set of a slice is fitted to. */
export const FILL = 0.75;

/**
 * Rounds in turn that ran all of their work from its beginning once more, and the milliseconds that they took, after which it
 * goes on from resume points: in fewer rounds each tells of twice as much, and less time does not pay for another pipeline.
 */
const MANY_RESTARTS = 8;
const LONG_RESTARTS = 300;

/** Parts of a dispatch, each less than a workgroup, that would be run one after the other; fewer pay for no other pipeline. */
const MANY_PARTS = 64;

/** Share of a slice's invocations that a first round has to get done, or it is better left to scouts. */
const WORTH = 1 / 8;

/** All invocations of a workgroup. */
export const ALL_LANES = [0, 0xffff_ffff] as const;

/** A round like the last one. */
export const NOTHING: RoundContext = { demands: [], prefetch: [], clearFaults: false, newWindow: false };

/** What the rounds of a dispatch are made with. */
export interface RoundsParts {
  readonly job: RoundsJob;
  readonly table: SvmTable;
  /** Bring these with the first round, if that is possible. */
  readonly guessed: readonly Demand[];
  /** What is known of the kernel, if it can be run quickly. */
  readonly pace: Pace | undefined;
  /** All pages can be read, when it begins: the first round of a slice is likely to be its last, and guarded will do. */
  readonly isReadable: boolean;
  readonly run: RunRound;
  readonly work: SvmWork;
  readonly placer: FramePlacer;
  readonly growReplay: (records: number) => Promise<void>;
  /** Called before a slice is begun beside another one: whether it can be. */
  readonly beside: () => Promise<boolean>;
  /** Called with the pages that a slice asked for, when it is done, guesses among them. */
  readonly onSlice: (asked: readonly Demand[]) => void;
  /** Called when a single invocation does not fit the pool: makes it go on from resume points, or says why it cannot. */
  readonly resume: () => Promise<number | string>;
  /** Says that more was stored than can be kept back, and why there are no resume points. */
  readonly fail: (fatal: FatalAccess, why: string) => never;
}

/** Protected by run-to-completion. One slice is gone on with at a time. */
export class SliceRounds {
  readonly #job: RoundsJob;
  readonly #table: SvmTable;
  readonly #prefetcher = new Prefetcher();
  readonly #pace: Pace | undefined;
  readonly #run: RunRound;
  readonly #claim: FrameClaim;
  readonly #placer: FramePlacer;
  readonly #signal: AbortSignal | undefined;
  readonly #timeoutMs: number;
  readonly #growReplay: (records: number) => Promise<void>;
  readonly #resume: () => Promise<number | string>;
  readonly #fail: (fatal: FatalAccess, why: string) => never;
  readonly stats: RoundsStats = { rounds: 0, faults: 0 };
  /** As in {@link RoundsParts}, until others need the room. */
  isReadable: boolean;
  /** Workgroups to run at a time. */
  limit: number;
  /** Of the slice that is gone on with. */
  lane: Lane = 0;
  /** Once they were needed. */
  resumeRounds: ResumeRounds | undefined;
  /** The last workgroups needed resume points: the next ones are likely to. */
  isResuming = false;
  /** Invocations store more than can be kept back: resume points commit it on the way. */
  #storesMuch = false;

  constructor(parts: RoundsParts, limit: number) {
    this.#job = parts.job;
    this.#table = parts.table;
    this.#pace = parts.pace;
    this.isReadable = parts.isReadable;
    this.#run = parts.run;
    this.#claim = parts.work.claim;
    this.#placer = parts.placer;
    this.#growReplay = parts.growReplay;
    this.#resume = parts.resume;
    this.#fail = parts.fail;
    this.#signal = parts.work.signal;
    // How long rounds may go on that bring nothing new and get nothing done.
    this.#timeoutMs = parts.work.timeoutMs;
    this.limit = limit;
  }

  /**
   * Runs a slice's workgroups until all of them are done, in smaller slices when their working set does not fit. Returns the
   * most frames that they were seen to need at once, and the pages that they asked for, the predicted ones included.
   */
  async finish(
    windowFirst: number,
    { first, count, predicted, scouts, quick: wasQuick, report: begun }: BegunSlice,
  ): Promise<{ readonly used: number; readonly demands: readonly Demand[] }> {
    let used = predicted.length;
    const asked: Demand[] = [...predicted];
    let pending: Uint32Array<ArrayBuffer> | undefined;
    let context: RoundContext = NOTHING;
    let lanes = this.#job.invocationsPerWorkgroup;
    let laneFirst = 0;
    let idle = 0;
    const futility = new Futility();
    let thorough = false;
    let mostMisses = MOST_MISSES;
    let restarts = 0;
    let restartMs = 0;
    let beganInVain = false;
    const invocations = count * this.#job.invocationsPerWorkgroup;
    const firstRound = scouts ? 1 : 0;
    if (scouts) {
      const { faults, overflow, unfinished } = await begun;
      beganInVain = scoutsOf(count) - unfinished < WORTH * scoutsOf(count);
      const found = decodeFaults(faults);
      this.stats.faults += found.length;
      asked.push(...found);
      const demands = found.slice(0, Math.floor(this.#placer.share * FILL));
      const prefetch = this.#prefetcher.choose(this.#table, demands);
      used += demands.length;
      context = { ...NOTHING, demands, prefetch, clearFaults: overflow };
    }
    for (let round = firstRound; ; round++) {
      throwIfAborted(this.#signal, this.#job.name);
      const ids = pending?.subarray(0, this.limit) as Uint32Array<ArrayBuffer> | undefined;
      const rest = pending?.subarray(ids?.length ?? 0);
      const running = ids?.length ?? count;
      const single = running === 1 && this.#job.doneBits;
      const quick: boolean = round === 0 ? wasQuick : !thorough && this.#pace?.isQuick(round) === true;
      const report: RoundReport =
        round === 0
          ? await begun
          : await this.round(
              {
                grid: this.#job.grid,
                windowFirst,
                ids,
                first,
                count: running,
                lanes: single ? [laneFirst, laneFirst + lanes] : ALL_LANES,
                mostMisses,
              },
              { ...context, pipeline: quick ? this.quickPipeline(round, scouts) : undefined, lane: this.lane },
            );
      if (report.failed.length === 0 && (rest === undefined || rest.length === 0)) {
        if (!this.isReadable) {
          scouts ? this.#pace?.noteScouted(round + 1, beganInVain) : this.#pace?.note(round + 1, beganInVain);
        }
        return { used, demands: asked };
      }
      if (round === firstRound) {
        this.#claim.dropUnused();
        const done = report.completed * this.#job.invocationsPerWorkgroup + report.doneInvocations;
        beganInVain = scouts ? beganInVain : done < WORTH * invocations;
      }
      const { fatal } = report;
      if (fatal !== undefined) {
        const resuming = await this.#resumable((why) => this.#fail(fatal, why));
        this.#storesMuch = true;
        await this.#resumeAll(resuming, windowFirst, joined(report.failed.sort(), rest));
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
      restarts = progress ? 0 : restarts + 1;
      restartMs = progress ? 0 : restartMs + report.took;
      thorough = quick && report.faults.length === 0;
      if (thorough) {
        // Perhaps others needed the room.
        this.isReadable = false;
        pending = joined(report.failed, rest);
        context = NOTHING;
        continue;
      }
      if (report.replayNeeded > 0) {
        await this.#growReplay(report.replayNeeded);
      }
      if (report.faults.length === 0) {
        // Nobody missed anything, yet not all are done: those at rest are next, or what was missed came meanwhile.
        idle = progress ? 0 : idle + 1;
        if (single && lanes < this.#job.invocationsPerWorkgroup) {
          laneFirst = nextLane(laneFirst, lanes, this.#job.invocationsPerWorkgroup);
        }
        if (idle > 2 * this.#job.invocationsPerWorkgroup + 16) {
          throw this.#stuck(report, running);
        }
        pending = joined(report.failed, rest);
        context = { ...context, demands: [], prefetch: [], clearFaults: false, newWindow: false };
        this.grow(used, count);
        continue;
      }
      idle = 0;
      const faults = decodeFaults(report.faults);
      const together = futility.check(faults, this.#job.name, this.#timeoutMs);
      pending = joined(report.failed, rest);
      this.stats.faults += faults.length;
      asked.push(...faults);
      const demands = together ? futility.asked() : faults;
      // Beside others a slice is content with its share, but what cannot be made less gets the whole pool.
      const room = running > 1 ? this.#placer.share : this.#table.pool.capacity;
      const inUse = this.#claim.count();
      // What is there already but was not asked for by this slice may not be evicted for the rest either.
      const missing = demands.filter(({ page }) => !this.#claim.covers(this.#table.frameAt(page))).length;
      used = Math.max(used, missing + inUse);
      // Faults that the report had no room for wait in the bitmaps, for the next one.
      if (missing + inUse <= room && restarts >= MANY_RESTARTS && restartMs >= LONG_RESTARTS) {
        const resuming = await this.#resuming();
        if (typeof resuming !== "string" && resuming.workgroupsOf(pending) === pending.length) {
          await this.#resumeAll(resuming, windowFirst, pending);
          return { used, demands: asked };
        }
      }
      if (missing + inUse <= room) {
        const prefetch = together ? [] : this.#prefetcher.choose(this.#table, demands);
        if (progress) {
          this.grow(missing + inUse, count);
        }
        // To begin again costs more each time: it is to find out as much as there is already.
        if (!progress && !together && missing >= mostMisses && 3 * missing + inUse <= room) {
          mostMisses *= 2;
        }
        context = { ...NOTHING, demands, prefetch, together };
        continue;
      }
      // The working set of what runs does not fit: run less of it.
      const demand = missing + inUse;
      if (running > 1) {
        this.limit = Math.max(1, Math.min(running - 1, Math.floor((running * room * FILL) / demand)));
        context = this.#startOver(futility);
      } else if (this.#job.doneBits && lanes > 1 && !(await this.#isBetterResumed((lanes * room * FILL) / demand))) {
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
          left = left.subarray(await this.resumeSome(resuming, windowFirst, left));
        } while (this.isResuming && left.length > 0);
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

  /** Of rounds that need not find out everything. `scouted`: scouts have told what is missing. */
  quickPipeline(round: number, scouted = false): "quick" | "guarded" {
    const isLast = this.#pace?.isLast(round) === true && (!scouted || this.#pace.trustsScouts);
    return this.isReadable || isLast ? "guarded" : "quick";
  }

  async #resumable(refuse: (why: string) => never): Promise<ResumeRounds> {
    const resuming = await this.#resuming();
    return typeof resuming === "string" ? refuse(resuming) : resuming;
  }

  /** Whether to go on from resume points when only so many invocations of a workgroup fit the pool at a time, all that they need. */
  async #isBetterResumed(lanes: number): Promise<boolean> {
    const { grid, invocationsPerWorkgroup } = this.#job;
    const parts = (grid[0] * grid[1] * grid[2] * invocationsPerWorkgroup) / Math.max(1, lanes);
    return parts >= MANY_PARTS && typeof (await this.#resuming()) !== "string";
  }

  /** What goes on from resume points, or why the kernel has none. */
  async #resuming(): Promise<ResumeRounds | string> {
    if (this.resumeRounds === undefined) {
      const words = await this.#resume();
      if (typeof words === "string") {
        return words;
      }
      this.resumeRounds = new ResumeRounds(
        {
          job: this.#job,
          table: this.#table,
          run: (run, round) => this.#run(run, { ...round, lane: this.lane }),
          claim: this.#claim,
          prefetcher: this.#prefetcher,
          growReplay: this.#growReplay,
          signal: this.#signal,
          timeoutMs: this.#timeoutMs,
          stats: this.stats,
        },
        words,
      );
    }
    return this.resumeRounds;
  }

  async #resumeAll(resuming: ResumeRounds, windowFirst: number, ids: Uint32Array<ArrayBuffer>): Promise<void> {
    for (let left = ids; left.length > 0; ) {
      left = left.subarray(await this.resumeSome(resuming, windowFirst, left));
    }
  }

  /** Finishes the first few of these workgroups, which are done then. `newWindow` is given for those that never ran. */
  async resumeSome(
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
    this.isResuming = isTight || this.#storesMuch;
    return some;
  }

  /** Less of the slice runs, or in more room: what the rest asked for is not needed now. */
  #startOver(futility: Futility): RoundContext {
    this.#claim.clear();
    futility.startOver();
    return { ...NOTHING, clearFaults: true };
  }

  /** What ran used less than half of the pool: run more of it at a time. */
  grow(used: number, count: number): void {
    if (used * 2 < this.#placer.share) {
      this.limit = Math.min(count, this.limit * 2);
    }
  }

  async round(run: RoundRun, context: RoundContext): Promise<RoundReport> {
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
