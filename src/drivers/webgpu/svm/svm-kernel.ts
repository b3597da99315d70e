/** A kernel that follows pointers, and its dispatch. */
import { KernelError, trace, traceNow, traceOn } from "../../../base/index.ts";
import { type AddressSpace, addrOfSvm, syncSpace } from "../../../mm/index.ts";
import { lockdepTask } from "../../../sync/index.ts";
import type { BindPlan } from "../bind-plan.ts";
import type { WebGpuDevice } from "../device.ts";
import { checkDispatch, type DispatchOptions, type WebGpuKernel, withUniform } from "../kernel.ts";
import type { DeviceMirror } from "../mirror.ts";
import { type PlacedRange, placedAlready, placeRanges } from "../place.ts";
import type { KernelReflection } from "../reflect.ts";
import { type DispatchStats, withUser } from "../submit.ts";
import { traceDispatch } from "../trace-gpu.ts";
import { BoundRanges } from "./bound-ranges.ts";
import { compactionPipeline } from "./compaction.ts";
import type { CompiledSvmKernel } from "./compile-svm.ts";
import type { FatalAccess, RoundReport, RoundRun } from "./control.ts";
import { Fatal, type FatalCode } from "./control-layout.ts";
import { DispatchControls } from "./dispatch-controls.ts";
import { encodeCompaction, encodeKernel, physicalGrid, type RoundBindings, userGroups } from "./encode-round.ts";
import { fatalError } from "./fatal-error.ts";
import { namedPages } from "./named-pages.ts";
import { Pace } from "./pace.ts";
import { Recalls } from "./recall.ts";
import { type RoundContext, Rounds, type RoundsStats } from "./rounds.ts";
import { scoutGroups } from "./scout.ts";
import type { Demand } from "./service.ts";
import type { SvmTable } from "./svm-table.ts";
import { traceRound } from "./trace-svm.ts";
import { windowSize } from "./windows.ts";
import { FrameClaim, newTally, type SvmWork } from "./work.ts";

interface Run extends RoundBindings {
  readonly grid: readonly [number, number, number];
  readonly work: SvmWork;
  readonly params: Uint32Array;
  readonly onRound: DispatchOptions["onRound"];
  /** Those that `control` is the first of. */
  readonly controls: DispatchControls;
  /** Workgroups that are done. */
  done: number;
  /** With resume points, once they are needed. */
  resuming?: GPUComputePipeline;
}

/** The device's turn and what it was taken for. */
interface Turn extends Disposable {
  readonly mirror: DeviceMirror;
  readonly placed: readonly PlacedRange[];
}

/** A checked dispatch. */
interface Job {
  readonly mm: AddressSpace;
  readonly grid: readonly [number, number, number];
  readonly plan: BindPlan;
  readonly uniform: GPUBuffer | undefined;
  /** What the uniform holds. */
  readonly params: Uint32Array;
  readonly options: DispatchOptions;
}

/** Got from WebGpuDevice.kernel for WGSL that calls `pm_*` functions. */
export class SvmKernel implements WebGpuKernel {
  readonly mode = "svm";
  readonly device: WebGpuDevice;
  readonly name: string;
  readonly compiled: CompiledSvmKernel;
  readonly #pace = new Pace();
  readonly #recalls = new Recalls();

  /** @internal Use WebGpuDevice.kernel. */
  constructor(device: WebGpuDevice, compiled: CompiledSvmKernel, name: string) {
    this.device = device;
    this.compiled = compiled;
    this.name = name;
  }

  /** The entry point, its own variables, the layout of `params`. */
  get reflection(): KernelReflection {
    return this.compiled.reflection;
  }

  /**
   * Runs the kernel as if all memory of `mm` were there; resolves when every invocation has run once.
   * @throws KernelError as WebGpuKernel.dispatch, and EFAULT an address outside every mapping; EPERM a store to read-only
   *   memory; ENOTSUP more stores in one invocation than can be kept back while it reads them again; ENOMEM one invocation
   *   needs more than the pool between two resume points, or at all when it has none, as those of a kernel with barriers
   */
  async dispatch(options: DispatchOptions): Promise<DispatchStats> {
    const { workgroups, params, plan } = checkDispatch(this, options);
    const mm = this.#spaceOf(options, plan);
    const words = new Uint32Array(params.buffer);
    return withUniform(this, params, (uniform) =>
      withUser(mm, this.name, () =>
        lockdepTask(this.name, () =>
          this.#inTurn({ mm, grid: workgroups, plan, uniform: uniform?.buffer, params: words, options }),
        ),
      ),
    );
  }

  /** Beside other svm dispatches of the device, in a pool that all share. */
  async #inTurn(job: Job): Promise<DispatchStats> {
    const { device, name } = this;
    const since = traceNow();
    const { signal, timeoutMs = 1000 } = job.options;
    using turn = await this.#takeTurn(job);
    const { mirror } = turn;
    // Pointers may lead anywhere: what plain arrays wrote anywhere is announced first.
    await syncSpace(job.mm);
    const { svm } = device;
    const bound = new BoundRanges(device, mirror, turn.placed);
    const { table, uses } = await svm.tableOf(mirror, name, signal);
    using _uses = uses;
    const work = { signal, timeoutMs, op: name, bound, claim: new FrameClaim(), tally: newTally() };
    using controls = new DispatchControls(svm);
    svm.placer.enter(bound.extents);
    try {
      const { rounds, faults } = await this.#run(job, table, controls, work);
      device.counts.dispatches++;
      const took: DispatchStats = { ...work.tally, rounds, deviceFaults: faults };
      if (traceOn) {
        traceDispatch(device, name, "svm", took, since);
      }
      return took;
    } finally {
      svm.running.delete(work);
      svm.placer.leave(bound.extents, work.claim);
    }
  }

  /** The device's turn, for reading. Bound ranges that are not placed yet are while nobody else has it. */
  async #takeTurn({ mm, plan, options }: Job): Promise<Turn> {
    const { device, name } = this;
    const { signal } = options;
    const reading = device.turn.tryRead() ?? (await device.turn.read({ signal }));
    try {
      device.assertOpen(name);
      const mirror = await device.mirrorOf(mm);
      const placed = placedAlready(device, mirror, plan.ranges);
      if (placed !== undefined) {
        return { mirror, placed, [Symbol.dispose]: () => reading.release() };
      }
    } catch (error) {
      reading.release();
      throw error;
    }
    reading.release();
    const writing = await device.turn.write({ signal });
    try {
      device.assertOpen(name);
      const mirror = await device.mirrorOf(mm);
      const placed = await placeRanges(device, mirror, plan.ranges);
      const turn = writing.downgrade();
      return { mirror, placed, [Symbol.dispose]: () => turn.release() };
    } catch (error) {
      writing.release();
      throw error;
    }
  }

  async #run(
    { grid, uniform, params, options }: Job,
    table: SvmTable,
    controls: DispatchControls,
    work: SvmWork & { readonly bound: BoundRanges },
  ): Promise<RoundsStats> {
    const { device, name, compiled } = this;
    const { svm } = device;
    await svm.placer.grow(table.mappedPages, false, work.signal);
    const job = {
      name,
      grid,
      invocationsPerWorkgroup: compiled.invocationsPerWorkgroup,
      doneBits: compiled.doneBits,
      replayRecords: compiled.replayRecords,
      recordWords: compiled.recordWords,
    };
    await controls.prepare({
      window: windowSize(job),
      invocationsPerWorkgroup: compiled.invocationsPerWorkgroup,
      pages: table.pages,
      replayRecords: compiled.replayRecords,
      recordWords: compiled.recordWords,
      doneBits: compiled.doneBits,
      spillWords: 0,
    });
    const compaction = await compactionPipeline(device.gpu);
    const groups = userGroups(device, compiled, uniform, work.bound.placed);
    const { onRound } = options;
    const run: Run = {
      svm,
      control: controls.of(),
      controls,
      table,
      grid,
      groups,
      compaction,
      work,
      params,
      onRound,
      done: 0,
    };
    return (await this.#runResident(run)) ?? (await this.#runRounds(run, job));
  }

  #spaceOf(options: DispatchOptions, plan: BindPlan): AddressSpace {
    if (options.mm !== undefined && plan.mm !== undefined && plan.mm !== options.mm) {
      throw new KernelError(
        "EINVAL",
        this.name,
        `${plan.ranges[0].binding.name} is bound to memory of another address space than the kernel's pointers name: use one`,
      );
    }
    const mm = options.mm ?? plan.mm;
    if (mm === undefined) {
      throw new KernelError(
        "EINVAL",
        this.name,
        "the kernel follows pointers: name their address space, dispatch({ mm, … })",
      );
    }
    return mm;
  }

  /** All memory is with the device already: one run, without checks. Undefined when it is not. */
  async #runResident(run: Run): Promise<RoundsStats | undefined> {
    const { svm, control, table, grid } = run;
    const { writes } = this.compiled;
    if (!isThere(run, writes)) {
      return undefined;
    }
    const total = grid[0] * grid[1] * grid[2];
    const { gpu } = this.device;
    const linear = Math.max(...grid) > gpu.limits.maxComputeWorkgroupsPerDimension;
    const pipeline = linear ? await this.compiled.residentLinear() : this.compiled.resident;
    const round = { grid, windowFirst: 0, ids: undefined, first: 0, count: total, lanes: [0, 0xffff_ffff] as const };
    let ran = false;
    await svm.submit(table, [], run.work, (encoder) => {
      // Looked at again under the update lock.
      ran = isThere(run, writes);
      if (ran) {
        control.write(round);
        encodeKernel(run, this.compiled, encoder, pipeline, linear ? physicalGrid(gpu, total) : grid);
        control.record(encoder, 0);
      }
    });
    if (!ran) {
      return undefined;
    }
    const report = await control.read(0);
    if (report.fatal !== undefined) {
      this.#throwFatal(run, report.fatal);
    }
    run.done = total;
    const stats = { rounds: 1, faults: 0 };
    noteProgress(run, stats);
    return stats;
  }

  async #runRounds(run: Run, job: ConstructorParameters<typeof Rounds>[0]["job"]) {
    const { table } = run;
    const { guarded, quick } = this.compiled;
    const recall = this.#recalls.of(table, run.svm.placer.share);
    const brought = recall?.choose(table) ?? [];
    const missed: Demand[] = [];
    // Most memory is only read, and need not be the device's own for a kernel to be quick.
    const isLikelyReadable = isThere(run, false) || (brought.length > 0 && recall?.isTrusted === true);
    const isReadable = guarded !== undefined && this.#pace.isKnown && isLikelyReadable;
    const rounds: Rounds = new Rounds({
      job,
      table,
      guessed: [...namedPages(table, run.params, brought), ...brought],
      pace: quick === undefined ? undefined : this.#pace,
      isReadable,
      run: async (round, context) => {
        const report = await this.#round(run, round, context);
        run.done += report.completed;
        noteProgress(run, rounds.stats);
        return report;
      },
      work: run.work,
      placer: run.svm.placer,
      beside: () => run.controls.second(),
      onSlice: (asked) => {
        for (const demand of recall === undefined ? [] : asked) {
          if (!demand.optional) {
            missed.push(demand);
          }
        }
      },
      resume: () => this.#resume(run),
      fail: (fatal, why) => this.#throwFatal(run, fatal, why),
      growReplay: (replayRecords) => run.control.grow({ replayRecords }),
    });
    await rounds.all();
    recall?.note(table, brought, missed, !isReadable);
    return rounds.stats;
  }

  /** From now on invocations can be left. Returns the words that each keeps, or why not. */
  async #resume(run: Run): Promise<number | string> {
    const made = await this.compiled.resuming();
    if (typeof made === "string") {
      return made;
    }
    const { claim, signal } = run.work;
    claim.clear();
    await run.svm.placer.grow(run.table.mappedPages, true, signal);
    await run.controls.spill(made.words);
    run.resuming = made.pipeline;
    return made.words;
  }

  async #round(run: Run, round: RoundRun, context: RoundContext): Promise<RoundReport> {
    const { svm, table, work } = run;
    const control = run.controls.of(context.lane);
    const bindings = control === run.control ? run : { ...run, control };
    const scouts = context.pipeline === "scout";
    const grid = physicalGrid(this.device.gpu, scouts ? scoutGroups(round.count) : round.count);
    const since = traceNow();
    const quick = context.pipeline === undefined ? undefined : await this.compiled[context.pipeline]?.();
    const pipeline = round.resume === undefined ? quick : run.resuming;
    const demands = context.isPlaced
      ? context.demands
      : await svm.placer.place(table, context.demands, context.prefetch, work);
    const encode = (encoder: GPUCommandEncoder) => {
      if (context.newWindow) {
        control.clear(encoder, "all");
      } else if (context.clearFaults) {
        control.clear(encoder, "faults");
      }
      control.clearAccessed(encoder);
      control.write(round, !scouts);
      if (round.resume?.clear) {
        control.clearSpill(encoder);
      }
      encodeKernel(bindings, this.compiled, encoder, pipeline ?? this.compiled.checked, grid);
      encodeCompaction(bindings, encoder);
      control.record(encoder, round.count);
    };
    await svm.submit(table, demands, run.work, encode, context.together);
    context.onSubmitted?.();
    const submitted = traceNow();
    const report = await control.read(round.count);
    if (traceOn) {
      trace("gpu.fence", { device: this.device.label, why: "round" }, submitted);
      traceRound(this.device, table, { kernel: this.name, workgroups: round.count }, report, since);
    }
    work.tally.prefetchHits += table.noteAccessed(report.accessed);
    const { fatal } = report;
    if (fatal === undefined || (round.resume === undefined && RESUMABLE.has(fatal.code))) {
      return report;
    }
    if (await this.#isMappedSince(run, fatal.address)) {
      return { ...report, fatal: undefined };
    }
    this.#throwFatal(run, fatal);
  }

  /** A mapping may have come since the table was made: then the address is no mistake. */
  async #isMappedSince({ table, work }: Run, address: number): Promise<boolean> {
    const page = address >>> 12;
    const before = table.accessOf(page);
    using _lock = await table.mm.mmapLock.read({ signal: work.signal });
    if (table.mm.vmas.find(addrOfSvm(address)) === undefined || page >= table.pages) {
      return false;
    }
    table.refresh("as long as it is");
    return table.accessOf(page) !== before;
  }

  /** `unresumed`: why there are no resume points. */
  #throwFatal({ table, work }: Run, fatal: FatalAccess, unresumed?: string): never {
    if (fatal.code === Fatal.ReadUnmapped || fatal.code === Fatal.WriteUnmapped) {
      work.bound?.check(fatal.address >>> 12, fatal.code === Fatal.WriteUnmapped);
    }
    throw fatalError(this.name, this.compiled, table.mm, fatal, unresumed);
  }
}

/** What committing stores on the way can help against. */
const RESUMABLE: ReadonlySet<FatalCode> = new Set([Fatal.StoreLogFull, Fatal.BoundReread]);

/** Whether the device has all memory, but for what is written through a variable: no pointer may lead there. */
function isThere({ table, work }: Run, write: boolean): boolean {
  return table.allResident(write, (page) => work.bound?.excludes(page, false) ?? false);
}

function noteProgress({ svm, grid, work, done, onRound }: Run, { rounds, faults }: RoundsStats): void {
  const progress = {
    rounds,
    workgroups: grid[0] * grid[1] * grid[2],
    workgroupsDone: done,
    deviceFaults: faults,
    bytesToDevice: work.tally.bytesToDevice,
  };
  svm.running.set(work, progress);
  onRound?.(progress);
}
