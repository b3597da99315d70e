/**
 * Rounds of invocations that need more memory than the pool holds: each goes on where it was left, as far as what is there
 * carries it, and asks for what comes next. Few of them run at a time, so that each has some frames.
 */
import { KernelError, throwIfAborted } from "../../../base/index.ts";
import { decodeFault, type RoundReport } from "./control.ts";
import { SPILL_WORDS } from "./control-layout.ts";
import { FUTILE_ROUNDS, Futility } from "./futility.ts";
import { DEVICE_PAGE_WORDS } from "./page-entry.ts";
import type { RoundContext, RoundsJob, RoundsStats, RunRound } from "./rounds.ts";
import type { Demand } from "./service.ts";
import type { SvmTable } from "./svm-table.ts";
import type { FrameClaim } from "./work.ts";

/** Frames that each invocation should have, of a pool that is large enough for several. */
const FRAMES_EACH = 4;

interface Parts {
  readonly job: RoundsJob;
  readonly table: SvmTable;
  readonly run: RunRound;
  readonly claim: FrameClaim;
  readonly growReplay: (records: number) => Promise<void>;
  readonly signal: AbortSignal | undefined;
  readonly timeoutMs: number;
  readonly stats: RoundsStats;
}

/** Invocations that run in the same rounds. */
interface Group {
  readonly windowFirst: number;
  /** Workgroups, ascending. */
  readonly ids: Uint32Array<ArrayBuffer>;
  readonly lanes: readonly [first: number, end: number];
}

/** How the first round of a group differs. */
interface Begin {
  /** They are neighbours and never ran. */
  readonly fresh: boolean;
  readonly newWindow: boolean;
  readonly clearSpill: boolean;
}

export class ResumeRounds {
  readonly #parts: Parts;
  /** Words that an invocation keeps. */
  readonly #words: number;
  #asked = 0;
  /** Where the invocations under way keep themselves. */
  #slots = { first: 0, laneFirst: 0, lanes: 0 };

  constructor(parts: Parts, words: number) {
    this.#parts = parts;
    this.#words = words;
  }

  /** Frames for pages. */
  get #room(): number {
    return this.#parts.table.pool.capacity;
  }

  /** Invocations to run at a time. */
  get #atOnce(): number {
    const slots = Math.floor(SPILL_WORDS / this.#words);
    return Math.max(1, Math.min(slots, Math.floor(this.#room / FRAMES_EACH)));
  }

  /** How many of these workgroups, ascending, to run at a time. */
  workgroupsOf(ids: Uint32Array): number {
    const most = Math.max(1, Math.floor(this.#atOnce / this.#parts.job.invocationsPerWorkgroup));
    const [first = 0] = ids;
    const beyond = ids.findIndex((id) => id - first >= most);
    return beyond < 0 ? ids.length : beyond;
  }

  /**
   * Runs as many workgroups as {@link workgroupsOf} says until they are done. Returns whether they needed more than the pool.
   * @throws KernelError as WebGpuKernel.dispatch; ENOMEM one invocation needs more between two resume points
   */
  async workgroups(
    windowFirst: number,
    ids: Uint32Array<ArrayBuffer>,
    begin: { readonly fresh: boolean; readonly newWindow: boolean },
  ): Promise<boolean> {
    const { invocationsPerWorkgroup } = this.#parts.job;
    const lanes = ids.length > 1 ? invocationsPerWorkgroup : Math.min(invocationsPerWorkgroup, this.#atOnce);
    this.#asked = 0;
    for (let first = 0; first < invocationsPerWorkgroup; first += lanes) {
      const end = Math.min(first + lanes, invocationsPerWorkgroup);
      this.#slots = { first: ids[0], laneFirst: first, lanes };
      await this.#drain(
        { windowFirst, ids, lanes: [first, end] },
        { fresh: begin.fresh && first === 0, newWindow: begin.newWindow && first === 0, clearSpill: true },
      );
    }
    return this.#asked > this.#room;
  }

  /** Rounds until the group is done; when the pool is too small for all of it, one half after the other. */
  async #drain(group: Group, begin: Begin): Promise<void> {
    const { job, claim, growReplay, signal } = this.#parts;
    const count = group.ids.length * (group.lanes[1] - group.lanes[0]);
    const futility = new Futility();
    let idle = 0;
    let progressed = 0;
    // Only what is certainly needed: what an invocation missed first.
    let cautious = false;
    let next = begin;
    let context: RoundContext = { ...NOTHING, newWindow: begin.newWindow, clearFaults: true };
    claim.clear();
    for (;;) {
      throwIfAborted(signal, job.name);
      const free = this.#room - claim.count();
      const report = await this.#round(group, next, cautious ? 1 : Math.max(1, Math.floor(free / count)), context);
      next = { fresh: false, newWindow: false, clearSpill: false };
      if (report.unfinished === 0) {
        return;
      }
      progressed += report.progressed;
      if (report.progressed > 0) {
        futility.startOver();
      }
      if (report.replayNeeded > 0) {
        await growReplay(report.replayNeeded);
      }
      if (report.faults.length === 0) {
        idle = report.progressed > 0 ? 0 : idle + 1;
        if (idle > FUTILE_ROUNDS) {
          throw this.#stuck(report);
        }
        context = NOTHING;
        continue;
      }
      idle = 0;
      futility.check(report.faults, this.#parts.job.name, this.#parts.timeoutMs);
      if (progressed >= count) {
        // Each has come further: what it used before may go.
        claim.clear();
        progressed = 0;
        cautious = false;
      }
      const demands = [...report.faults].map(decodeFault).sort((a, b) => a.page - b.page);
      this.#parts.stats.faults += demands.length;
      const needed = this.#needed(demands);
      this.#asked += demands.length;
      if (needed <= this.#room) {
        context = { ...NOTHING, demands };
      } else if (!cautious) {
        cautious = true;
        progressed = 0;
        claim.clear();
        context = { ...NOTHING, clearFaults: true };
      } else if (count > 1) {
        for (const half of halves(group)) {
          await this.#drain(half, next);
        }
        return;
      } else {
        throw this.#tooBig(needed);
      }
    }
  }

  #needed(demands: readonly Demand[]): number {
    const { table, claim } = this.#parts;
    return demands.filter(({ page }) => !claim.covers(table.frameAt(page))).length + claim.count();
  }

  async #round(group: Group, begin: Begin, mostFaults: number, context: RoundContext): Promise<RoundReport> {
    const { job, run, stats } = this.#parts;
    stats.rounds++;
    return await run(
      {
        grid: job.grid,
        windowFirst: group.windowFirst,
        ids: begin.fresh ? undefined : group.ids,
        first: group.ids[0],
        count: group.ids.length,
        lanes: group.lanes,
        resume: { ...this.#slots, mostFaults, clear: begin.clearSpill },
      },
      context,
    );
  }

  #tooBig(needed: number): KernelError {
    return new KernelError(
      "ENOMEM",
      this.#parts.job.name,
      `one invocation needs at least ${needed} device pages of 16 KiB between two turns of its loops, the pool holds ${this.#room}: raise deviceMemory, or touch less memory in one turn`,
    );
  }

  #stuck(report: RoundReport): KernelError {
    return new KernelError(
      "EIO",
      this.#parts.job.name,
      `${report.unfinished} invocations make no progress from their resume points although they miss no page: report this as a bug`,
    );
  }
}

/** The first workgroups of a range, as many as may run at a time or more. */
export function idsBetween(first: number, end: number): Uint32Array<ArrayBuffer> {
  return new Uint32Array(Math.min(end - first, DEVICE_PAGE_WORDS)).map((_, i) => first + i);
}

const NOTHING = { demands: [], prefetch: [], clearFaults: false, newWindow: false };

function halves(group: Group): Group[] {
  const { ids, lanes } = group;
  if (ids.length > 1) {
    const middle = ids.length >> 1;
    return [
      { ...group, ids: ids.slice(0, middle) },
      { ...group, ids: ids.slice(middle) },
    ];
  }
  const middle = (lanes[0] + lanes[1]) >> 1;
  return [
    { ...group, lanes: [lanes[0], middle] },
    { ...group, lanes: [middle, lanes[1]] },
  ];
}
