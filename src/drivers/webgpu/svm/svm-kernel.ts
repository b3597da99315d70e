/** A kernel that follows pointers, and its dispatch. */
import { formatAddr, KernelError, trace, traceNow, traceOn } from "../../../base/index.ts";
import { type AddressSpace, addrOfSvm, syncSpace } from "../../../mm/index.ts";
import { lockdepTask } from "../../../sync/index.ts";
import { type BindPlan, planBindings } from "../bind-plan.ts";
import { checkWorkgroups } from "../compile.ts";
import type { WebGpuDevice } from "../device.ts";
import { type DispatchOptions, takeUniform, type WebGpuKernel } from "../kernel.ts";
import { packParams } from "../params.ts";
import { type PlacedRange, placeRanges } from "../place.ts";
import type { KernelReflection } from "../reflect.ts";
import { type DispatchStats, withUser } from "../submit.ts";
import { traceDispatch } from "../trace-gpu.ts";
import { BoundRanges } from "./bound-ranges.ts";
import { type Compaction, compactionPipeline } from "./compaction.ts";
import type { CompiledSvmKernel } from "./compile-svm.ts";
import type { RoundReport, RoundRun } from "./control.ts";
import { Fatal, type FatalCode } from "./control-layout.ts";
import { Pace } from "./pace.ts";
import { DEVICE_PAGE } from "./page-entry.ts";
import type { SpillFrame } from "./resume-rounds.ts";
import { type RoundContext, Rounds, type RoundsStats, windowSize } from "./rounds.ts";
import type { SubmitOptions, SvmDevice } from "./svm-device.ts";
import type { SvmTable } from "./svm-table.ts";
import { traceRound } from "./trace-svm.ts";

interface Run {
  readonly svm: SvmDevice;
  readonly table: SvmTable;
  readonly grid: readonly [number, number, number];
  readonly groups: readonly (GPUBindGroup | undefined)[];
  readonly compaction: Compaction;
  readonly options: SubmitOptions;
  /** With resume points, once they are needed: the frame is given back when the dispatch ends. */
  resuming?: { readonly pipeline: GPUComputePipeline; readonly frame: number };
}

/** A checked dispatch. */
interface Job {
  readonly mm: AddressSpace;
  readonly grid: readonly [number, number, number];
  readonly plan: BindPlan;
  readonly uniform: GPUBuffer | undefined;
  readonly options: DispatchOptions;
}

/** Got from WebGpuDevice.kernel for WGSL that calls `pm_*` functions. */
export class SvmKernel implements WebGpuKernel {
  readonly mode = "svm";
  readonly device: WebGpuDevice;
  readonly name: string;
  readonly compiled: CompiledSvmKernel;
  readonly #pace = new Pace();

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
    const { device, name } = this;
    device.assertOpen(name);
    const grid = checkWorkgroups(device.gpu.limits, options.workgroups, name);
    const params = packParams(this.reflection.params, options.params ?? {}, name);
    const plan = planBindings(this.reflection, options.bind ?? {}, device.gpu.limits, name);
    const mm = this.#spaceOf(options, plan);
    const uniform = await takeUniform(device, this.reflection, params, name);
    try {
      return await withUser(mm, name, () =>
        lockdepTask(name, () => this.#inTurn({ mm, grid, plan, uniform: uniform?.buffer, options })),
      );
    } finally {
      if (uniform !== undefined) {
        device.putUniform(uniform);
      }
    }
  }

  /** One svm dispatch at a time has the device: it works in a pool that all share. */
  async #inTurn({ mm, grid, plan, uniform, options }: Job): Promise<DispatchStats> {
    const { device, name, compiled } = this;
    const since = traceNow();
    using _turn = device.turn.tryLock() ?? (await device.turn.lock({ signal: options.signal }));
    device.assertOpen(name);
    const mirror = await device.mirrorOf(mm);
    // Pointers may lead anywhere: what plain arrays wrote anywhere is announced first.
    await syncSpace(mm);
    const svm = device.svm;
    const bound = new BoundRanges(device, mirror, await placeRanges(device, mirror, plan.ranges));
    const table = await svm.tableOf(mirror, name, bound.extents);
    const waits = { signal: options.signal, timeoutMs: options.timeoutMs ?? 1000, op: name, bound };
    const before = this.#counts(svm);
    const job = {
      name,
      grid,
      invocationsPerWorkgroup: compiled.invocationsPerWorkgroup,
      doneBits: compiled.doneBits,
      replayRecords: compiled.replayRecords,
    };
    await svm.control.prepare({
      window: windowSize(job),
      invocationsPerWorkgroup: compiled.invocationsPerWorkgroup,
      pages: table.pages,
      replayRecords: compiled.replayRecords,
      doneBits: compiled.doneBits,
    });
    const compaction = await compactionPipeline(device.gpu);
    const run: Run = { svm, table, grid, groups: this.#userGroups(uniform, bound), compaction, options: waits };
    const stats = (await this.#runResident(run)) ?? (await this.#runRounds(run, job));
    const after = this.#counts(svm);
    device.counts.dispatches++;
    const took: DispatchStats = {
      rounds: stats.rounds,
      deviceFaults: stats.faults,
      pagesPrefetched: after.pagesPrefetched - before.pagesPrefetched,
      prefetchHits: after.prefetchHits - before.prefetchHits,
      bytesToDevice: after.bytesToDevice - before.bytesToDevice,
      pagesUploaded: after.pagesUploaded - before.pagesUploaded,
      pagesMigrated: after.pagesMigrated - before.pagesMigrated,
      evictions: after.evictions - before.evictions,
      restarts: after.restarts - before.restarts,
    };
    if (traceOn) {
      traceDispatch(device, name, "svm", took, since);
    }
    return took;
  }

  #counts(svm: SvmDevice) {
    const { pagesUploaded, restarts } = this.device.counts;
    const { evictions } = svm.pool.stats;
    return {
      pagesUploaded,
      restarts,
      evictions,
      pagesMigrated: svm.pagesMigrated,
      pagesPrefetched: svm.pagesPrefetched,
      prefetchHits: svm.prefetchHits,
      bytesToDevice: this.device.transfer.stats.bytesToDevice,
    };
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

  #userGroups(uniform: GPUBuffer | undefined, { placed }: BoundRanges): (GPUBindGroup | undefined)[] {
    const { groupLayouts, runtimeGroup, reflection } = this.compiled;
    return groupLayouts.map((layout, group) => {
      const entries = reflection.bindings.filter((binding) => binding.group === group);
      if (group === runtimeGroup || entries.length === 0) {
        return undefined;
      }
      return this.device.gpu.device.createBindGroup({
        layout,
        entries: entries.flatMap((wanted) => {
          const { binding } = wanted;
          const range = placed.find(({ bound }) => bound.binding === wanted);
          if (range !== undefined) {
            return { binding, resource: boundResource(range) };
          }
          return uniform === undefined ? [] : { binding, resource: { buffer: uniform } };
        }),
      });
    });
  }

  /** All memory is with the device already: one run, without checks. Undefined when it is not. */
  async #runResident(run: Run): Promise<RoundsStats | undefined> {
    const { svm, table, grid } = run;
    const { writes } = this.compiled;
    // What is written through a variable no pointer may lead to.
    const { bound } = run.options;
    const isThere = () => table.allResident(writes, (page) => bound?.excludes(page, false) ?? false);
    if (!isThere()) {
      return undefined;
    }
    const total = grid[0] * grid[1] * grid[2];
    const linear = Math.max(...grid) > this.device.gpu.limits.maxComputeWorkgroupsPerDimension;
    const pipeline = linear ? await this.compiled.residentLinear() : this.compiled.resident;
    const round = { grid, windowFirst: 0, ids: undefined, first: 0, count: total, lanes: [0, 0xffff_ffff] as const };
    let ran = false;
    await svm.submit(table, [], run.options, (encoder) => {
      // Looked at again under the update lock.
      ran = isThere();
      if (ran) {
        svm.control.write(round);
        this.#encode(run, encoder, pipeline, linear ? this.#physicalGrid(total) : grid);
        svm.control.record(encoder, 0);
      }
    });
    if (!ran) {
      return undefined;
    }
    const report = await svm.control.read(0);
    if (report.fatal !== undefined) {
      this.#throwFatal(run, report.fatal);
    }
    return { rounds: 1, faults: 0 };
  }

  async #runRounds(run: Run, job: ConstructorParameters<typeof Rounds>[0]["job"]) {
    const rounds = new Rounds({
      job,
      table: run.table,
      prefetcher: run.svm.prefetcher,
      pace: this.compiled.quick === undefined ? undefined : this.#pace,
      run: (round, context) => this.#round(run, round, context),
      nextStamp: () => run.svm.nextStamp(),
      growReplay: (records) => run.svm.control.growReplay(records),
      resume: () => this.#resume(run),
      signal: run.options.signal,
      timeoutMs: run.options.timeoutMs,
    });
    try {
      await rounds.all();
    } finally {
      if (run.resuming !== undefined) {
        run.svm.pool.put(run.resuming.frame);
      }
    }
    return rounds.stats;
  }

  /** From now on invocations can be left: they keep themselves in a frame of the pool. Or why not. */
  async #resume(run: Run): Promise<SpillFrame | string> {
    const made = await this.compiled.resuming();
    if (typeof made === "string") {
      return made;
    }
    const frame = run.svm.pool.capacity > 1 ? await run.svm.takeFrame() : undefined;
    if (frame === undefined) {
      return "its variables need a page of the pool, too";
    }
    run.resuming = { pipeline: made.pipeline, frame };
    return { frame, words: made.words };
  }

  async #round(run: Run, round: RoundRun, context: RoundContext): Promise<RoundReport> {
    const { svm, table } = run;
    const since = traceNow();
    const quick = context.quick ? await this.compiled.quick?.() : undefined;
    const pipeline = round.resume === undefined ? quick : run.resuming?.pipeline;
    const demands = await svm.placeFrames(table, context.demands, context.prefetch, context.window);
    await svm.submit(table, demands, run.options, (encoder) => {
      if (context.newWindow) {
        svm.control.clear(encoder, "all");
      } else if (context.clearFaults) {
        svm.control.clear(encoder, "faults");
      }
      svm.control.clearAccessed(encoder);
      svm.control.write(round);
      if (round.resume?.clear) {
        encoder.clearBuffer(svm.pool.handle.buffer, round.resume.frame * DEVICE_PAGE, DEVICE_PAGE);
      }
      this.#encode(run, encoder, pipeline ?? this.compiled.checked, this.#physicalGrid(round.count));
      this.#encodeCompaction(run, encoder);
      svm.control.record(encoder, round.count);
    });
    const submitted = traceNow();
    const report = await svm.control.read(round.count);
    if (traceOn) {
      trace("gpu.fence", { device: this.device.label, why: "round" }, submitted);
      traceRound(this.device, table, { kernel: this.name, workgroups: round.count }, report, since);
    }
    svm.prefetchHits += table.noteAccessed(report.accessed);
    if (report.fatal !== undefined && !(await this.#isMappedSince(run, report.fatal.address))) {
      this.#throwFatal(run, report.fatal);
    }
    return report;
  }

  /** A mapping may have come since the table was made: then the address is no mistake. */
  async #isMappedSince({ table, options }: Run, address: number): Promise<boolean> {
    const page = address >>> 12;
    const before = table.accessOf(page);
    using _lock = await table.mm.mmapLock.read({ signal: options.signal });
    if (table.mm.vmas.find(addrOfSvm(address)) === undefined || page >= table.pages) {
      return false;
    }
    table.refresh("as long as it is");
    return table.accessOf(page) !== before;
  }

  #throwFatal(run: Run, fatal: NonNullable<RoundReport["fatal"]>): never {
    const { entryPoint } = this.reflection;
    if (fatal.code === Fatal.ReadUnmapped || fatal.code === Fatal.WriteUnmapped) {
      run.options.bound?.check(fatal.address >>> 12, fatal.code === Fatal.WriteUnmapped);
    }
    const addr = addrOfSvm(fatal.address);
    const vma = run.table.mm.vmas.find(addr);
    const where = `svm address ${fatal.address} (${formatAddr(addr)})`;
    const who = `${entryPoint}, workgroup ${fatal.workgroup}, invocation ${fatal.lane},`;
    const inside = vma === undefined ? "outside every mapping" : `in ${vma.name}`;
    const messages: Record<Exclude<FatalCode, 0>, readonly ["EFAULT" | "EPERM" | "ENOTSUP", string]> = {
      1: ["EFAULT", `${who} reads ${where}, ${inside}: check the kernel's pointers`],
      2: ["EFAULT", `${who} writes ${where}, ${inside}: check the kernel's pointers`],
      3: ["EPERM", `${who} writes ${where}, ${inside}, which is mapped read-only: map it writable`],
      4: [
        "ENOTSUP",
        `${who} stores more words than can be kept back and reads them again, last ${where}: store less in one invocation, or dispatch when all memory is resident`,
      ],
      5: [
        "ENOTSUP",
        `${who} took another way when it was run again after an atomic operation, at ${where}: let its path depend on data that no other invocation changes`,
      ],
      7: [
        "ENOTSUP",
        `${who} reads ${this.compiled.features.reread.join(" or ")} at index ${fatal.address}, where it has stored before: keep the value in a variable of the function`,
      ],
      6: ["EFAULT", `${who} uses an index past the end of its span at ${where}: check it against the span's length`],
    };
    const [code, why] = messages[fatal.code === 0 ? 1 : fatal.code];
    throw new KernelError(code, this.name, why);
  }

  #encode(
    run: Run,
    encoder: GPUCommandEncoder,
    pipeline: GPUComputePipeline,
    grid: readonly [number, number, number],
  ): void {
    const { runtimeGroup } = this.compiled;
    const pass = encoder.beginComputePass({ label: this.name });
    pass.setPipeline(pipeline);
    run.groups.forEach((group, index) => {
      if (group !== undefined) {
        pass.setBindGroup(index, group);
      }
    });
    pass.setBindGroup(runtimeGroup, this.#runtimeGroup(run));
    pass.dispatchWorkgroups(...grid);
    pass.end();
  }

  /** A grid of at least `count` workgroups, each dimension within the limit. */
  #physicalGrid(count: number): readonly [number, number, number] {
    const x = Math.min(count, this.device.gpu.limits.maxComputeWorkgroupsPerDimension);
    return [x, Math.ceil(count / x), 1];
  }

  #runtimeGroup({ svm, table }: Run): GPUBindGroup {
    return this.device.gpu.device.createBindGroup({
      layout: this.compiled.groupLayouts[this.compiled.runtimeGroup],
      entries: [
        { binding: 0, resource: { buffer: svm.control.buffer } },
        { binding: 1, resource: { buffer: svm.pageTableBuffer(table) } },
        { binding: 2, resource: { buffer: svm.pool.handle.buffer } },
        { binding: 3, resource: { buffer: svm.control.header } },
      ],
    });
  }

  #encodeCompaction({ svm, table, compaction }: Run, encoder: GPUCommandEncoder): void {
    const group = this.device.gpu.device.createBindGroup({
      layout: compaction.layout,
      entries: [
        { binding: 0, resource: { buffer: svm.control.buffer } },
        { binding: 1, resource: { buffer: svm.control.header } },
      ],
    });
    const pass = encoder.beginComputePass({ label: "pagemirror compaction" });
    pass.setPipeline(compaction.pipeline);
    pass.setBindGroup(0, group);
    pass.dispatchWorkgroups(compaction.workgroupsFor(table.pages));
    pass.end();
  }
}

function boundResource({ bound, extent }: PlacedRange): GPUBindingResource {
  const offset = extent.bufferOffset + (bound.start - extent.start);
  return { buffer: extent.buffer.buffer, offset, size: bound.bytes };
}
