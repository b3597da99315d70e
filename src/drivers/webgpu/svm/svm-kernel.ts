/** A kernel that follows pointers, and its dispatch. */
import { KernelError, quote, traceNow, traceOn } from "../../../base/index.ts";
import { AddressSpace, syncSpace } from "../../../mm/index.ts";
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
import { DispatchControls } from "./dispatch-controls.ts";
import { DispatchRun } from "./dispatch-run.ts";
import { userGroups } from "./encode-round.ts";
import { Pace } from "./pace.ts";
import { Recalls } from "./recall.ts";
import type { RoundsStats } from "./rounds.ts";
import type { SvmTable } from "./svm-table.ts";
import { windowSize } from "./windows.ts";
import { FrameClaim, newTally, type SvmWork } from "./work.ts";

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
    const run = new DispatchRun(
      { device, name, compiled, pace: this.#pace, recalls: this.#recalls },
      { svm, control: controls.of(), table, groups, compaction },
      { job, controls, work, params, onRound: options.onRound },
    );
    return await run.all();
  }

  #spaceOf(options: DispatchOptions, plan: BindPlan): AddressSpace {
    if (options.mm !== undefined && !(options.mm instanceof AddressSpace)) {
      throw new KernelError("EINVAL", this.name, `mm is ${quote(options.mm)}: give an address space, as pm.mm`);
    }
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
}
