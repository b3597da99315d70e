/** What one dispatch runs on the GPU: the kernel at once where all memory is there, and else its rounds. */
import { trace, traceNow, traceOn } from "../../../base/index.ts";
import { addrOfSvm } from "../../../mm/index.ts";
import type { WebGpuDevice } from "../device.ts";
import type { DispatchOptions } from "../kernel.ts";
import type { CompiledSvmKernel } from "./compile-svm.ts";
import type { FatalAccess, RoundReport, RoundRun } from "./control.ts";
import { Fatal, type FatalCode } from "./control-layout.ts";
import type { DispatchControls } from "./dispatch-controls.ts";
import { encodeCompaction, encodeKernel, physicalGrid, type RoundBindings } from "./encode-round.ts";
import { fatalError } from "./fatal-error.ts";
import { namedPages } from "./named-pages.ts";
import type { Pace } from "./pace.ts";
import type { Recalls } from "./recall.ts";
import { type RoundContext, Rounds, type RoundsJob, type RoundsStats } from "./rounds.ts";
import { scoutGroups } from "./scout.ts";
import type { Demand } from "./service.ts";
import { traceRound } from "./trace-svm.ts";
import type { SvmWork } from "./work.ts";

/** A kernel, and what its dispatches before have taught. */
export interface RunningKernel {
  readonly device: WebGpuDevice;
  readonly name: string;
  readonly compiled: CompiledSvmKernel;
  readonly pace: Pace;
  readonly recalls: Recalls;
}

/** A dispatch that has its turn, its table and its control buffers. */
export interface DispatchParts {
  readonly job: RoundsJob;
  /** Those that the bindings' `control` is the first of. */
  readonly controls: DispatchControls;
  readonly work: SvmWork;
  /** What the uniform holds. */
  readonly params: Uint32Array;
  readonly onRound: DispatchOptions["onRound"];
}

/** One dispatch, from its first round to its last. */
export class DispatchRun {
  readonly #kernel: RunningKernel;
  readonly #bindings: RoundBindings;
  readonly #parts: DispatchParts;
  /** Workgroups of the whole grid, and those that are done. */
  readonly #workgroups: number;
  #done = 0;
  /** With resume points, once they are needed. */
  #resuming: GPUComputePipeline | undefined;

  constructor(kernel: RunningKernel, bindings: RoundBindings, parts: DispatchParts) {
    this.#kernel = kernel;
    this.#bindings = bindings;
    this.#parts = parts;
    const [x, y, z] = parts.job.grid;
    this.#workgroups = x * y * z;
  }

  /** Until every invocation has run once. @throws KernelError as SvmKernel.dispatch */
  async all(): Promise<RoundsStats> {
    return (await this.#resident()) ?? (await this.#rounds());
  }

  /** All memory is with the device already: one run, without checks. Undefined when it is not. */
  async #resident(): Promise<RoundsStats | undefined> {
    const { svm, control, table } = this.#bindings;
    const { compiled, device } = this.#kernel;
    const { work, job } = this.#parts;
    const { grid } = job;
    if (!this.#isThere(compiled.writes)) {
      return undefined;
    }
    const total = this.#workgroups;
    const linear = Math.max(...grid) > device.gpu.limits.maxComputeWorkgroupsPerDimension;
    const pipeline = linear ? await compiled.residentLinear() : compiled.resident;
    const round = { grid, windowFirst: 0, ids: undefined, first: 0, count: total, lanes: [0, 0xffff_ffff] as const };
    let ran = false;
    await svm.submit(table, [], work, (encoder) => {
      // Looked at again under the update lock.
      ran = this.#isThere(compiled.writes);
      if (ran) {
        control.write(round);
        const shape = linear ? physicalGrid(device.gpu, total) : grid;
        encodeKernel(this.#bindings, compiled, encoder, pipeline, shape);
        control.record(encoder, 0);
      }
    });
    if (!ran) {
      return undefined;
    }
    const report = await control.read(0);
    if (report.fatal !== undefined) {
      this.#throwFatal(report.fatal);
    }
    const stats = { rounds: 1, faults: 0 };
    this.#noteDone(total, stats);
    return stats;
  }

  async #rounds(): Promise<RoundsStats> {
    const { svm, table } = this.#bindings;
    const { compiled, pace, recalls } = this.#kernel;
    const { job, controls, work, params } = this.#parts;
    const { guarded, quick } = compiled;
    const recall = recalls.of(table, svm.placer.share);
    const brought = recall?.choose(table) ?? [];
    const missed: Demand[] = [];
    // Most memory is only read, and need not be the device's own for a kernel to be quick.
    const isLikelyReadable = this.#isThere(false) || (brought.length > 0 && recall?.isTrusted === true);
    const isReadable = guarded !== undefined && pace.isKnown && isLikelyReadable;
    const rounds: Rounds = new Rounds({
      job,
      table,
      guessed: [...namedPages(table, params, brought), ...brought],
      pace: quick === undefined ? undefined : pace,
      isReadable,
      run: async (round, context) => {
        const report = await this.#round(round, context);
        this.#noteDone(report.completed, rounds.stats);
        return report;
      },
      work,
      placer: svm.placer,
      beside: () => controls.second(),
      onSlice: (asked) => {
        for (const demand of recall === undefined ? [] : asked) {
          if (!demand.optional) {
            missed.push(demand);
          }
        }
      },
      resume: () => this.#resume(),
      fail: (fatal, why) => this.#throwFatal(fatal, why),
      growReplay: (replayRecords) => this.#bindings.control.grow({ replayRecords }),
    });
    await rounds.all();
    recall?.note(table, brought, missed, !isReadable);
    return rounds.stats;
  }

  /** From now on invocations can be left. Returns the words that each keeps, or why not. */
  async #resume(): Promise<number | string> {
    const made = await this.#kernel.compiled.resuming();
    if (typeof made === "string") {
      return made;
    }
    const { svm, table } = this.#bindings;
    const { work, controls } = this.#parts;
    work.claim.clear();
    await svm.placer.grow(table.mappedPages, true, work.signal);
    await controls.spill(made.words);
    this.#resuming = made.pipeline;
    return made.words;
  }

  async #round(round: RoundRun, context: RoundContext): Promise<RoundReport> {
    const { svm, table } = this.#bindings;
    const { device, name, compiled } = this.#kernel;
    const { work, controls } = this.#parts;
    const control = controls.of(context.lane);
    const bindings = control === this.#bindings.control ? this.#bindings : { ...this.#bindings, control };
    const scouts = context.pipeline === "scout";
    const grid = physicalGrid(device.gpu, scouts ? scoutGroups(round.count) : round.count);
    const since = traceNow();
    const quick = context.pipeline === undefined ? undefined : await compiled[context.pipeline]?.();
    const pipeline = round.resume === undefined ? quick : this.#resuming;
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
      encodeKernel(bindings, compiled, encoder, pipeline ?? compiled.checked, grid);
      encodeCompaction(bindings, encoder);
      control.record(encoder, round.count);
    };
    await svm.submit(table, demands, work, encode, context.together);
    context.onSubmitted?.();
    const submitted = traceNow();
    const report = await control.read(round.count);
    if (traceOn) {
      trace("gpu.fence", { device: device.label, why: "round" }, submitted);
      traceRound(device, table, { kernel: name, workgroups: round.count }, report, since);
    }
    work.tally.prefetchHits += table.noteAccessed(report.accessed);
    const { fatal } = report;
    if (fatal === undefined || (round.resume === undefined && RESUMABLE.has(fatal.code))) {
      return report;
    }
    if (await this.#isMappedSince(fatal.address)) {
      return { ...report, fatal: undefined };
    }
    this.#throwFatal(fatal);
  }

  /** A mapping may have come since the table was made: then the address is no mistake. */
  async #isMappedSince(address: number): Promise<boolean> {
    const { table } = this.#bindings;
    const page = address >>> 12;
    const before = table.accessOf(page);
    using _lock = await table.mm.mmapLock.read({ signal: this.#parts.work.signal });
    if (table.mm.vmas.find(addrOfSvm(address)) === undefined || page >= table.pages) {
      return false;
    }
    table.refresh("as long as it is");
    return table.accessOf(page) !== before;
  }

  /** `unresumed`: why there are no resume points. */
  #throwFatal(fatal: FatalAccess, unresumed?: string): never {
    const { name, compiled } = this.#kernel;
    if (fatal.code === Fatal.ReadUnmapped || fatal.code === Fatal.WriteUnmapped) {
      this.#parts.work.bound?.check(fatal.address >>> 12, fatal.code === Fatal.WriteUnmapped);
    }
    throw fatalError(name, compiled, this.#bindings.table.mm, fatal, unresumed);
  }

  /** Whether the device has all memory, but for what is written through a variable: no pointer may lead there. */
  #isThere(write: boolean): boolean {
    const { bound } = this.#parts.work;
    return this.#bindings.table.allResident(write, (page) => bound?.excludes(page, false) ?? false);
  }

  #noteDone(workgroups: number, { rounds, faults }: RoundsStats): void {
    const { work, onRound } = this.#parts;
    this.#done += workgroups;
    const progress = {
      rounds,
      workgroups: this.#workgroups,
      workgroupsDone: this.#done,
      deviceFaults: faults,
      bytesToDevice: work.tally.bytesToDevice,
    };
    this.#bindings.svm.running.set(work, progress);
    onRound?.(progress);
  }
}

/** What committing stores on the way can help against. */
const RESUMABLE: ReadonlySet<FatalCode> = new Set([Fatal.StoreLogFull, Fatal.BoundReread]);
