/**
 * Rounds of invocations that go on where they were left, each as far as what is there carries it. All that can be kept run in the
 * same rounds. When they miss more than the pool holds, what they missed first comes in turn, page by page; when that gets
 * nobody further, fewer of them run.
 */
import { KernelError, throwIfAborted } from "../../../base/index.ts";
import { decodeFaults, type RoundReport } from "./control.ts";
import { MOST_MISSES, MOST_SPILL_WORDS } from "./control-layout.ts";
import { FUTILE_ROUNDS, Futility } from "./futility.ts";
import { GroupSize } from "./group-size.ts";
import { DEVICE_PAGE_WORDS } from "./page-entry.ts";
import type { Prefetcher } from "./prefetch.ts";
import type { RoundContext, RoundsJob, RoundsStats, RunRound } from "./rounds.ts";
import type { Demand } from "./service.ts";
import type { SvmTable } from "./svm-table.ts";
import type { FrameClaim } from "./work.ts";

/** Frames for each invocation of the first ones that are run so: others may fit the pool as they are. */
const FRAMES_EACH = 4;
/** Share of the pool that is given away at a time, when more is missed than it holds: the rest is likely to be used again. */
const IN_TURN = 0.75;

interface Parts {
  readonly job: RoundsJob;
  readonly table: SvmTable;
  readonly run: RunRound;
  readonly claim: FrameClaim;
  readonly prefetcher: Prefetcher;
  readonly growReplay: (records: number) => Promise<void>;
  readonly signal: AbortSignal | undefined;
  readonly timeoutMs: number;
  readonly stats: RoundsStats;
}

/** Workgroups whose invocations are kept at the same time, or some invocations of one. */
interface Block {
  readonly windowFirst: number;
  /** Ascending. */
  readonly ids: Uint32Array<ArrayBuffer>;
  readonly lanes: readonly [first: number, end: number];
  /** They are neighbours and never ran. */
  readonly fresh: boolean;
  readonly newWindow: boolean;
}

/** Those of a block that run in the same rounds. */
interface Group {
  readonly ids: Uint32Array<ArrayBuffer>;
  readonly lanes: readonly [first: number, end: number];
  readonly fresh: boolean;
}

export class ResumeRounds {
  readonly #parts: Parts;
  /** Words that an invocation keeps. */
  readonly #words: number;
  readonly #size: GroupSize;
  /** Pages that an invocation may ask for in a round. */
  #each = 1;
  /** Invocations of a block, at most. */
  #most: number;
  #asked = 0;

  constructor(parts: Parts, words: number) {
    this.#parts = parts;
    this.#words = words;
    this.#most = Math.floor(this.#room / FRAMES_EACH);
    this.#size = new GroupSize(Math.max(1, this.#most));
  }

  /** Frames for pages. */
  get #room(): number {
    return this.#parts.table.pool.capacity;
  }

  /** Invocations that can be kept at a time. */
  get #slots(): number {
    return Math.floor(MOST_SPILL_WORDS / this.#words);
  }

  /** How many of these workgroups, ascending, to run at a time. */
  workgroupsOf(ids: Uint32Array): number {
    const { invocationsPerWorkgroup } = this.#parts.job;
    const most = Math.max(1, Math.floor(Math.min(this.#slots, this.#most) / invocationsPerWorkgroup));
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
    const lanes = ids.length > 1 ? invocationsPerWorkgroup : Math.min(invocationsPerWorkgroup, this.#slots);
    this.#asked = 0;
    for (let first = 0; first < invocationsPerWorkgroup; first += lanes) {
      const end = Math.min(first + lanes, invocationsPerWorkgroup);
      const isFirst = first === 0;
      await this.#finish({
        windowFirst,
        ids,
        lanes: [first, end],
        fresh: begin.fresh && isFirst,
        newWindow: begin.newWindow && isFirst,
      });
    }
    const isTight = this.#asked > this.#room;
    this.#most = isTight ? Math.max(this.#most, ids.length * invocationsPerWorkgroup) * 2 : this.#most;
    return isTight;
  }

  /** Rounds until a block is done. */
  async #finish(block: Block): Promise<void> {
    const { claim, growReplay, signal, job, table, prefetcher } = this.#parts;
    const rest = new Rest(block);
    const futility = new Futility();
    let idle = 0;
    let isFirst = true;
    let former = 0;
    /** Since the claim was empty: invocations that came further. */
    let progressed = 0;
    /** Rounds in turn that got nobody further, while more was missed than the pool holds. */
    let stalled = 0;
    /** The last page that came in turn. */
    let cursor = -1;
    let context: RoundContext = { ...NOTHING, newWindow: block.newWindow, clearFaults: true };
    const startOver = () => {
      claim.clear();
      futility.startOver();
      progressed = 0;
      stalled = 0;
      context = { ...NOTHING, clearFaults: true };
    };
    claim.clear();
    for (;;) {
      throwIfAborted(signal, job.name);
      const group = rest.group(this.#size.most);
      const count = group.ids.length * (group.lanes[1] - group.lanes[0]);
      if (count === 1 && former > 1) {
        // What it needs has to be known exactly: nothing of what the others asked for is held against it.
        startOver();
      }
      former = count;
      const report = await this.#round(block, group, isFirst, context);
      isFirst = false;
      rest.note(group, report);
      if (rest.isDone) {
        return;
      }
      if (report.unfinished === 0) {
        startOver();
        continue;
      }
      progressed += report.progressed;
      if (report.progressed > 0) {
        futility.startOver();
        stalled = 0;
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
      const faults = decodeFaults(report.faults);
      const isLost = futility.check(faults, job.name, this.#parts.timeoutMs);
      if (progressed >= count) {
        // Each has come further: what it used before may go.
        claim.clear();
        progressed = 0;
      }
      this.#parts.stats.faults += faults.length;
      const lacking = (demands: readonly Demand[]) =>
        claim.count() + demands.filter(({ page }) => !claim.covers(table.frameAt(page))).length;
      const all = isLost ? futility.asked() : faults;
      // What many asked for in turn need not fit together.
      const together = isLost && lacking(all) <= this.#room;
      const demands = together ? all : faults;
      const needed = lacking(demands);
      const isCrowded = needed > this.#room;
      this.#size.note(count, report.turns, this.#each === 1 && needed * 2 > this.#room);
      if (!isCrowded) {
        this.#asked += demands.length;
        if (report.progressed > 0 && needed * 2 <= this.#room) {
          this.#each = Math.min(MOST_MISSES, this.#each * 2);
        }
        const prefetch = table.pool.freeFrames > 0 && !together ? prefetcher.choose(table, demands) : [];
        context = { ...NOTHING, demands, prefetch, together };
      } else if (this.#each > 1) {
        // Only what is certainly needed is worth room: what each missed first, in the end.
        this.#each = Math.max(1, Math.min(this.#each - 1, Math.floor((this.#each * this.#room) / needed)));
        startOver();
      } else if (count === 1) {
        throw this.#tooBig(needed);
      } else if (stalled > demands.length / (this.#room * IN_TURN) + 1) {
        this.#size.halve(count);
        startOver();
      } else {
        stalled++;
        claim.clear();
        progressed = 0;
        const some = inTurn(demands, cursor, Math.max(1, Math.floor(this.#room * IN_TURN)));
        cursor = some.at(-1)?.page ?? -1;
        this.#asked += some.length;
        context = { ...NOTHING, demands: some };
      }
    }
  }

  async #round(block: Block, group: Group, isFirst: boolean, context: RoundContext): Promise<RoundReport> {
    const { job, run, stats } = this.#parts;
    const { ids, lanes, fresh } = group;
    stats.rounds++;
    return await run(
      {
        grid: job.grid,
        windowFirst: block.windowFirst,
        ids: fresh ? undefined : ids,
        first: ids[0],
        count: ids.length,
        lanes,
        resume: {
          first: block.ids[0],
          laneFirst: block.lanes[0],
          lanes: block.lanes[1] - block.lanes[0],
          mostFaults: this.#each,
          clear: isFirst,
        },
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

/** What of a block is not done, in order. */
class Rest {
  readonly #lanes: Block["lanes"];
  #ids: Uint32Array<ArrayBuffer>;
  /** Workgroups at the end that never ran. */
  #fresh: number;
  /** The first of them has invocations before this one that are done. */
  #lane: number;

  constructor({ ids, lanes, fresh }: Block) {
    this.#lanes = lanes;
    this.#ids = ids;
    this.#fresh = fresh ? ids.length : 0;
    this.#lane = lanes[0];
  }

  get isDone(): boolean {
    return this.#ids.length === 0;
  }

  /** Whole workgroups, or part of one. */
  group(most: number): Group {
    const [first, end] = this.#lanes;
    const fresh = this.#fresh === this.#ids.length;
    const lane = this.#lane;
    if (most < end - first || lane > first) {
      return { ids: this.#ids.slice(0, 1), lanes: [lane, Math.min(end, lane + most)], fresh };
    }
    const some = Math.min(Math.floor(most / (end - first)), fresh ? this.#fresh : this.#ids.length - this.#fresh);
    return { ids: this.#ids.slice(0, some), lanes: this.#lanes, fresh };
  }

  /** A round of a group is over. */
  note({ ids, lanes, fresh }: Group, { unfinished, failed }: RoundReport): void {
    this.#fresh -= fresh ? ids.length : 0;
    if (lanes[0] === this.#lanes[0] && lanes[1] === this.#lanes[1]) {
      // Of a block of all their invocations it is said which workgroups are done.
      const open = unfinished === 0 ? NO_IDS : failed.length < ids.length ? failed.sort() : ids;
      this.#ids = joined(open, this.#ids.subarray(ids.length));
    } else if (unfinished === 0) {
      this.#lane = lanes[1] < this.#lanes[1] ? lanes[1] : this.#lanes[0];
      this.#ids = this.#lane === this.#lanes[0] ? this.#ids.subarray(1) : this.#ids;
    }
  }
}

const NO_IDS = new Uint32Array(0);

/** As many as fit, by rising page, after the one where the last ones ended. */
function inTurn(demands: readonly Demand[], cursor: number, room: number): Demand[] {
  const from = Math.max(
    0,
    demands.findIndex(({ page }) => page > cursor),
  );
  return [...demands.slice(from), ...demands.slice(0, from)].slice(0, room);
}

/** The first workgroups of a range, as many as may run at a time or more. */
export function idsBetween(first: number, end: number): Uint32Array<ArrayBuffer> {
  return new Uint32Array(Math.min(end - first, DEVICE_PAGE_WORDS)).map((_, i) => first + i);
}

/** One list after the other. */
export function joined(a: Uint32Array<ArrayBuffer>, b: Uint32Array | undefined): Uint32Array<ArrayBuffer> {
  if (b === undefined || b.length === 0) {
    return a;
  }
  const all = new Uint32Array(a.length + b.length);
  all.set(a);
  all.set(b, a.length);
  return all;
}

const NOTHING = { demands: [], prefetch: [], clearFaults: false, newWindow: false };
