/** From a kernel that uses pm_ functions to its pipelines. */
import { KernelError, traceNow, traceOn } from "../../../base/index.ts";
import type { CompileOptions } from "../compile.ts";
import { compileModule, compilePipeline, wgslError } from "../gpu-compile.ts";
import type { GpuHandle } from "../gpu-handle.ts";
import { gpuMessage } from "../gpu-message.ts";
import type { BindingKind, KernelReflection } from "../reflect.ts";
import { traceCompile } from "../trace-gpu.ts";
import { ShaderStage } from "../usage.ts";
import { ORDERED_RECORD, REPLAY_RECORD } from "./control-layout.ts";
import { ENTRY } from "./entry.ts";
import type { KernelFeatures } from "./kernel-features.ts";
import { canBeQuick } from "./runtime-checked.ts";
import { sourceOffset } from "./source-text.ts";
import { type PipelineKind, type TransformedKernel, type TransformedText, transformKernel } from "./transform.ts";

/** A kernel in svm mode, compiled for one device. */
export interface CompiledSvmKernel {
  /** Of the user's own bindings, parameters and workgroup size. */
  readonly reflection: KernelReflection;
  readonly features: KernelFeatures;
  /** By group number: the user's groups, then the runtime's. */
  readonly groupLayouts: readonly GPUBindGroupLayout[];
  readonly runtimeGroup: number;
  /** For memory that may be missing. */
  readonly checked: GPUComputePipeline;
  /** For a few invocations of each workgroup, see scout.ts. Made at the first call; undefined for kernels that have none. */
  readonly scout: (() => Promise<GPUComputePipeline>) | undefined;
  /**
   * Faster, but it finds out one missed page of an invocation, and not why an access can never be made: what it fails without
   * a fault is for `checked`. Made at the first call; undefined for kernels that have none.
   */
  readonly quick: (() => Promise<GPUComputePipeline>) | undefined;
  /**
   * Like `quick`, where loads are likely to miss nothing: they tell of nothing that they miss. Made at the first call;
   * undefined for kernels that have none.
   */
  readonly guarded: (() => Promise<GPUComputePipeline>) | undefined;
  /** For memory that is all there, dispatched with the kernel's own grid. */
  readonly resident: GPUComputePipeline;
  /** Like `resident`, for grids over the device's limit in a dimension. Made at the first call. */
  residentLinear(): Promise<GPUComputePipeline>;
  /** Resume points, made at the first call; why the kernel has none when it is a text. */
  resuming(): Promise<ResumingPipeline | string>;
  /** It stores, or changes words by atomics. */
  readonly writes: boolean;
  readonly invocationsPerWorkgroup: number;
  /** Its invocations are done one by one; false when whole workgroups are run again. */
  readonly doneBits: boolean;
  /** Records an invocation that its replay log should have room for; 0 when it needs none. */
  readonly replayRecords: number;
  /** Words of one such record. */
  readonly recordWords: number;
}

const BUFFER_TYPES: Readonly<Record<BindingKind, GPUBufferBindingType>> = {
  uniform: "uniform",
  "storage-read": "read-only-storage",
  "storage-read-write": "storage",
};

const RUNTIME_BINDINGS: readonly GPUBufferBindingType[] = ["storage", "read-only-storage", "storage", "uniform"];
const RUNTIME_STORAGE = RUNTIME_BINDINGS.filter((type) => type !== "uniform").length;

/** A pipeline whose invocations can be left at loops and gone on with. */
export interface ResumingPipeline {
  readonly pipeline: GPUComputePipeline;
  /** Words that an invocation keeps while it is left. */
  readonly words: number;
}

/**
 * Compiles a kernel that uses pm_ functions.
 *
 * Errors: those of {@link transformKernel}, EINVAL for a WGSL error (`line:column message`, of the user's source) and when
 * the device refuses the kernel, ENOMEM when it has no room for it, ENODEV when it is lost, EINTR when the signal fires.
 */
export async function compileSvmKernel(
  gpu: GpuHandle,
  wgsl: string,
  options: CompileOptions = {},
): Promise<CompiledSvmKernel> {
  const { name = "kernel", signal } = options;
  gpu.lost.check(name);
  const kernel = transformKernel(wgsl, options.entryPoint, name);
  const { reflection, features, runtimeGroup } = kernel;
  checkDemands(gpu, reflection, runtimeGroup, name);
  const groupLayouts = makeLayouts(gpu.device, reflection, runtimeGroup, name);
  const compiler = new Compiler(gpu, wgsl, kernel, groupLayouts, name, signal);
  const compiling = [compiler.compile("resident"), compiler.compile("checked")] as const;
  compiling[1].catch(() => undefined);
  // When both are refused: the resident text has fewer edits: its messages fit the source best.
  const resident = await compiling[0];
  const checked = await compiling[1];
  const [x, y, z] = reflection.workgroupSize;
  let linear: Promise<GPUComputePipeline> | undefined;
  let resuming: Promise<ResumingPipeline | string> | undefined;
  let scout: Promise<GPUComputePipeline> | undefined;
  let quick: Promise<GPUComputePipeline> | undefined;
  let guarded: Promise<GPUComputePipeline> | undefined;
  return {
    reflection,
    features,
    groupLayouts,
    runtimeGroup,
    checked,
    scout: canBeQuick(features)
      ? () => {
          scout ??= compiler.compile("scout");
          return scout;
        }
      : undefined,
    quick: canBeQuick(features)
      ? () => {
          quick ??= compiler.compile("quick");
          return quick;
        }
      : undefined,
    guarded: canBeQuick(features)
      ? () => {
          guarded ??= compiler.compile("guarded");
          return guarded;
        }
      : undefined,
    resident,
    residentLinear() {
      linear ??= compiler.compile("resident-linear");
      return linear;
    },
    resuming() {
      const text = kernel.resume();
      resuming ??=
        typeof text === "string"
          ? Promise.resolve(text)
          : compiler.compile("resuming").then((pipeline) => ({ pipeline, words: text.words }), refusal);
      return resuming;
    },
    writes: features.writes,
    invocationsPerWorkgroup: x * y * z,
    doneBits: !features.collective,
    replayRecords: features.replayRecords,
    recordWords: features.replayOrder ? ORDERED_RECORD : REPLAY_RECORD,
  };
}

/** A kernel whose second text the GPU refuses has no resume points, and is good otherwise. @throws what is no refusal */
function refusal(error: unknown): string {
  if (error instanceof KernelError && error.code === "EINVAL") {
    return error.message;
  }
  throw error;
}

class Compiler {
  readonly #gpu: GpuHandle;
  readonly #source: string;
  readonly #kernel: TransformedKernel;
  readonly #layout: GPUPipelineLayout;
  readonly #name: string;
  readonly #signal: AbortSignal | undefined;

  constructor(
    gpu: GpuHandle,
    source: string,
    kernel: TransformedKernel,
    layouts: readonly GPUBindGroupLayout[],
    name: string,
    signal: AbortSignal | undefined,
  ) {
    this.#gpu = gpu;
    this.#source = source;
    this.#kernel = kernel;
    this.#layout = gpu.device.createPipelineLayout({ label: name, bindGroupLayouts: [...layouts] });
    this.#name = name;
    this.#signal = signal;
  }

  async compile(kind: PipelineKind): Promise<GPUComputePipeline> {
    const gpu = this.#gpu;
    const since = traceNow();
    const [name, signal] = [this.#name, this.#signal];
    const text = this.#kernel.text(kind);
    const label = `${name} (${kind})`;
    const module = await compileModule(gpu, { label, code: text.wgsl }, name, signal, (message) =>
      this.#wgslError(text, message),
    );
    const pipeline = await compilePipeline(gpu, name, signal, () =>
      gpu.device.createComputePipelineAsync({ label, layout: this.#layout, compute: { module, entryPoint: ENTRY } }),
    );
    if (traceOn) {
      traceCompile(gpu, name, kind, since);
    }
    return pipeline;
  }

  /** Of the place in the user's source, if it is in the user's part. */
  #wgslError(text: TransformedText, message: GPUCompilationMessage): KernelError {
    const lines = text.wgsl.split("\n");
    const offset = lines
      .slice(0, message.lineNum - 1)
      .reduce((sum, line) => sum + line.length + 1, message.linePos - 1);
    if (message.lineNum === 0 || offset >= text.user.text.length) {
      const what = gpuMessage(message.message);
      return new KernelError("EINVAL", this.#name, `the GPU refuses the rewritten kernel: ${what}`);
    }
    const before = this.#source.slice(0, sourceOffset(text.user, offset)).split("\n");
    const place = [before.length, (before.at(-1)?.length ?? 0) + 1] as const;
    return wgslError(this.#name, message, place, this.#source.split("\n")[before.length - 1]);
  }
}

function checkDemands(gpu: GpuHandle, reflection: KernelReflection, runtimeGroup: number, name: string): void {
  const { limits } = gpu;
  const storage = reflection.bindings.filter((binding) => binding.kind !== "uniform").length;
  const all = storage + RUNTIME_STORAGE;
  if (all > limits.maxStorageBuffersPerShaderStage) {
    throw new KernelError(
      "EINVAL",
      name,
      `the kernel uses ${storage} storage buffers and svm mode ${RUNTIME_STORAGE}, this adapter allows ${limits.maxStorageBuffersPerShaderStage}: put several arrays into one`,
    );
  }
  const uniforms = reflection.bindings.length - storage;
  if (uniforms >= limits.maxUniformBuffersPerShaderStage) {
    throw new KernelError(
      "EINVAL",
      name,
      `the kernel uses ${uniforms} uniform buffers and svm mode one, this adapter allows ${limits.maxUniformBuffersPerShaderStage}: put several values into one`,
    );
  }
  if (runtimeGroup >= limits.maxBindGroups) {
    throw new KernelError(
      "EINVAL",
      name,
      `the kernel uses @group(${runtimeGroup - 1}) and svm mode the one after it, this adapter has groups 0 to ${limits.maxBindGroups - 1}: use lower groups`,
    );
  }
}

function makeLayouts(
  device: GPUDevice,
  reflection: KernelReflection,
  runtimeGroup: number,
  name: string,
): readonly GPUBindGroupLayout[] {
  const groups = Array.from({ length: runtimeGroup }, (_, group) =>
    reflection.bindings
      .filter((binding) => binding.group === group)
      .map(({ binding, kind }) => ({ binding, type: BUFFER_TYPES[kind] })),
  );
  const runtime = RUNTIME_BINDINGS.map((type, binding) => ({ binding, type }));
  return [...groups, runtime].map((bindings, group) =>
    device.createBindGroupLayout({
      label: `${name} group ${group}`,
      entries: bindings.map(({ binding, type }) => ({
        binding,
        visibility: ShaderStage.Compute,
        buffer: { type },
      })),
    }),
  );
}
