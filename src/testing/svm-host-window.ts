/** The rounds of one window of a test's host: its buffers, the header, the passes. */
import type { GpuHandle } from "../drivers/webgpu/gpu-handle.ts";
import { type ParamValues, packParams } from "../drivers/webgpu/params.ts";
import { type Compaction, compactionPipeline } from "../drivers/webgpu/svm/compaction.ts";
import type { CompiledSvmKernel } from "../drivers/webgpu/svm/compile-svm.ts";
import { CONTROL_HEADER_WORDS, Control, MOST_MISSES, replayWords } from "../drivers/webgpu/svm/control-layout.ts";
import { BufferUsage, MapMode } from "../drivers/webgpu/usage.ts";

/** How a test's host runs a kernel. */
export interface SvmRunOptions {
  readonly grid: readonly [number, number, number];
  readonly params?: ParamValues;
  /** Quick and guarded: checked only for what such a round failed without a fault. */
  readonly pipeline?: "checked" | "quick" | "guarded" | "resident" | "resident-linear" | "resuming";
  /** Pages that an invocation may ask for in a round, with resume points. Default: any number. */
  readonly mostFaults?: number;
  /** Pages that a round brings at most, of those that were asked for; at least one. Default: a random number. */
  readonly pagesPerRound?: number;
  /** Chance that a page that nobody asked for is evicted after a round. */
  readonly evict?: number;
  /** Workgroups of a window. Default: the whole grid. */
  readonly window?: number;
  readonly fuel?: number;
  /** Faults that a round can report. */
  readonly faultCapacity?: number;
  readonly track?: boolean;
  /** Gives up after so many rounds. */
  readonly maxRounds?: number;
  readonly replayCapacity?: number;
}

/** Faults that a round can report when a test says nothing else. */
export const FAULTS = 4096;
/** Words for what invocations keep. */
const SPILL_WORDS = 2 ** 16;

/** What a window runs over. */
export interface WindowPlace {
  readonly pages: number;
  readonly pool: GPUBuffer;
  readonly table: GPUBuffer;
  /** Its first workgroup, and how many. */
  readonly first: number;
  readonly count: number;
}

type Area = "faults" | "listOut" | "listIn" | "reads" | "writes" | "accessed" | "done" | "spill" | "replay" | "words";

interface Parts {
  readonly gpu: GpuHandle;
  readonly kernel: CompiledSvmKernel;
  readonly options: SvmRunOptions;
  readonly where: WindowPlace;
  readonly compaction: Compaction;
  readonly resuming: GPUComputePipeline | undefined;
  readonly control: GPUBuffer;
  readonly head: GPUBuffer;
  readonly back: GPUBuffer;
  readonly params: GPUBuffer;
}

/** Control buffers for one window, and the rounds that are made with them. */
export class HostWindow implements Disposable {
  readonly areas: Record<Area, number>;
  readonly #parts: Parts;
  readonly #header: Uint32Array<ArrayBuffer>;

  private constructor(areas: Record<Area, number>, parts: Parts) {
    this.areas = areas;
    this.#parts = parts;
    this.#header = headerOf(areas, parts);
  }

  /** @throws Error when the kernel has no resume points and is to go on from them */
  static async open(
    gpu: GpuHandle,
    kernel: CompiledSvmKernel,
    options: SvmRunOptions,
    where: WindowPlace,
  ): Promise<HostWindow> {
    const { device, queue } = gpu;
    const bitmap = Math.ceil(where.pages / 32);
    const invocations = where.count * kernel.invocationsPerWorkgroup;
    const areas = layout({
      faults: FAULTS,
      listOut: where.count,
      listIn: where.count,
      reads: bitmap,
      writes: bitmap,
      accessed: bitmap,
      done: Math.ceil(invocations / 32),
      spill: options.pipeline === "resuming" ? SPILL_WORDS : 0,
      replay: kernel.replayRecords > 0 ? invocations * replayWords(64, kernel.recordWords) : 0,
    });
    const compaction = await compactionPipeline(gpu);
    const resuming = options.pipeline === "resuming" ? await resumingPipeline(kernel, invocations) : undefined;
    const usage = BufferUsage.Storage | BufferUsage.CopyDst | BufferUsage.CopySrc;
    const uniform = packParams(kernel.reflection.params, options.params ?? {});
    const params = device.createBuffer({
      size: Math.max(16, Math.ceil(uniform.byteLength / 16) * 16),
      usage: BufferUsage.Uniform | BufferUsage.CopyDst,
    });
    queue.writeBuffer(params, 0, uniform);
    return new HostWindow(areas, {
      gpu,
      kernel,
      options,
      where,
      compaction,
      resuming,
      control: device.createBuffer({ label: "test control", size: areas.words * 4, usage }),
      head: device.createBuffer({
        label: "test header",
        size: CONTROL_HEADER_WORDS * 4,
        usage: BufferUsage.Uniform | BufferUsage.CopyDst,
      }),
      back: device.createBuffer({
        size: (areas.done + Math.ceil(invocations / 32)) * 4,
        usage: BufferUsage.MapRead | BufferUsage.CopyDst,
      }),
      params,
    });
  }

  /** Runs all workgroups, or those of a list; returns the control buffer's words up to the done bits. */
  async round(pending: Uint32Array<ArrayBuffer> | undefined, quick: boolean, capacity: number): Promise<Uint32Array> {
    const { gpu, kernel, options, where, compaction, resuming, control, head, back } = this.#parts;
    const { device, queue } = gpu;
    const { grid, pipeline = "checked" } = options;
    const header = this.#header;
    const run = pending?.length ?? where.count;
    header[Control.Count] = run;
    header[Control.Mode] = pending === undefined ? 0 : 1;
    header[Control.ReplayCapacity] = capacity;
    queue.writeBuffer(head, 0, header);
    queue.writeBuffer(control, 0, new Uint32Array(CONTROL_HEADER_WORDS));
    if (pending !== undefined) {
      queue.writeBuffer(control, this.areas.listIn * 4, pending);
    }
    const chosen = resuming ?? (await pipelineOf(kernel, pipeline, quick));
    const encoder = device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    pass.setPipeline(chosen);
    this.#bind(pass);
    if (pipeline === "resident") {
      pass.dispatchWorkgroups(...grid);
    } else {
      const x = Math.min(run, 1000);
      pass.dispatchWorkgroups(x, Math.ceil(run / x));
    }
    pass.setPipeline(compaction.pipeline);
    const entries = [control, head].map((buffer, binding) => ({ binding, resource: { buffer } }));
    pass.setBindGroup(0, device.createBindGroup({ layout: compaction.layout, entries }));
    pass.dispatchWorkgroups(compaction.workgroupsFor(where.pages));
    pass.end();
    encoder.copyBufferToBuffer(control, 0, back, 0, back.size);
    queue.submit([encoder.finish()]);
    await gpu.lost.wait(back.mapAsync(MapMode.Read), "test");
    const words = new Uint32Array(back.getMappedRange()).slice();
    back.unmap();
    return words;
  }

  #bind(pass: GPUComputePassEncoder): void {
    const { gpu, kernel, where, control, head, params } = this.#parts;
    const runtime = [control, where.table, where.pool, head];
    kernel.groupLayouts.forEach((groupLayout, group) => {
      const entries =
        group === kernel.runtimeGroup
          ? runtime.map((buffer, binding) => ({ binding, resource: { buffer } }))
          : kernel.reflection.bindings
              .filter((binding) => binding.group === group)
              .map(({ binding }) => ({ binding, resource: { buffer: params } }));
      pass.setBindGroup(group, gpu.device.createBindGroup({ layout: groupLayout, entries }));
    });
  }

  [Symbol.dispose](): void {
    const { control, head, back, params } = this.#parts;
    for (const buffer of [control, head, back, params]) {
      buffer.destroy();
    }
  }
}

function headerOf(areas: Record<Area, number>, { kernel, options, where }: Parts): Uint32Array<ArrayBuffer> {
  const header = new Uint32Array(CONTROL_HEADER_WORDS);
  header.set(options.grid, Control.GridX);
  header[Control.First] = where.first;
  header[Control.WindowFirst] = where.first;
  header[Control.Pages] = where.pages;
  header[Control.DoneBase] = areas.done;
  header[Control.ListIn] = areas.listIn;
  header[Control.ListOut] = areas.listOut;
  header[Control.ReadBits] = areas.reads;
  header[Control.WriteBits] = areas.writes;
  header[Control.AccessedBits] = areas.accessed;
  header[Control.FaultList] = areas.faults;
  header[Control.FaultCapacity] = options.faultCapacity ?? FAULTS;
  header[Control.Fuel] = options.fuel ?? 0;
  header[Control.LaneEnd] = 0xffffffff;
  header[Control.ReplayBase] = areas.replay;
  header[Control.ReplayStride] = where.count * kernel.invocationsPerWorkgroup;
  header[Control.Invocations] = kernel.doneBits ? kernel.invocationsPerWorkgroup : 0;
  header[Control.SpillBase] = areas.spill;
  header[Control.SpillFirst] = where.first;
  header[Control.SpillLanes] = kernel.invocationsPerWorkgroup;
  header[Control.MostFaults] = options.mostFaults ?? (options.pipeline === "resuming" ? 0xffffffff : MOST_MISSES);
  return header;
}

async function resumingPipeline(kernel: CompiledSvmKernel, invocations: number): Promise<GPUComputePipeline> {
  const made = await kernel.resuming();
  if (typeof made === "string" || made.words * invocations > SPILL_WORDS) {
    throw new Error(typeof made === "string" ? made : "the test's control buffer has too little room for what is kept");
  }
  return made.pipeline;
}

async function pipelineOf(
  kernel: CompiledSvmKernel,
  pipeline: NonNullable<SvmRunOptions["pipeline"]>,
  quick: boolean,
): Promise<GPUComputePipeline> {
  switch (pipeline) {
    case "checked":
    case "resuming":
      return kernel.checked;
    case "quick":
      return quick && kernel.quick !== undefined ? await kernel.quick() : kernel.checked;
    case "guarded":
      return quick && kernel.guarded !== undefined ? await kernel.guarded() : kernel.checked;
    case "resident":
      return kernel.resident;
    case "resident-linear":
      return await kernel.residentLinear();
    default:
      return pipeline satisfies never;
  }
}

function layout<K extends string>(sizes: Record<K, number>): Record<K | "words", number> {
  let at: number = CONTROL_HEADER_WORDS;
  const places: Record<string, number> = {};
  for (const [name, words] of Object.entries<number>(sizes)) {
    places[name] = at;
    at += words;
  }
  places.words = at;
  return places as Record<K | "words", number>;
}
