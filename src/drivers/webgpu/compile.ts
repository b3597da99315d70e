/** From WGSL source to a pipeline, with errors that a kernel's author can act on. */
import { KernelError, traceNow, traceOn } from "../../base/index.ts";
import { compileModule, compilePipeline, wgslError } from "./gpu-compile.ts";
import type { GpuHandle, GpuLimits } from "./gpu-handle.ts";
import type { GpuWaitOptions } from "./lost.ts";
import { type BindingKind, type KernelReflection, reflectKernel } from "./reflect.ts";
import { traceCompile } from "./trace-gpu.ts";
import { ShaderStage } from "./usage.ts";

/** A kernel, compiled for one device. */
export interface CompiledKernel {
  readonly reflection: KernelReflection;
  readonly pipeline: GPUComputePipeline;
  /** By group number; a group that the kernel leaves out has an empty layout and needs no bind group. */
  readonly groupLayouts: readonly GPUBindGroupLayout[];
}

/** How to compile. */
export interface CompileOptions extends GpuWaitOptions {
  /** Needed when the source has several compute entry points. */
  readonly entryPoint?: string | undefined;
  /** The kernel's name in error messages and GPU debuggers. */
  readonly name?: string | undefined;
}

const BUFFER_TYPE: Record<BindingKind, GPUBufferBindingType> = {
  "storage-read": "read-only-storage",
  "storage-read-write": "storage",
  uniform: "uniform",
};

/**
 * Compiles a kernel.
 *
 * Errors: EINVAL for a WGSL error (the first one, `line:column message`, with its source line), those of
 * {@link reflectKernel}, EINVAL when the device refuses the kernel, ENOMEM when it has no room for it, ENODEV when it is
 * lost, EINTR when the signal fires.
 */
export async function compileKernel(
  gpu: GpuHandle,
  wgsl: string,
  options: CompileOptions = {},
): Promise<CompiledKernel> {
  const { name = "kernel", signal } = options;
  const { device } = gpu;
  gpu.lost.check(name);
  const since = traceNow();
  const module = await compileModule(gpu, { label: name, code: wgsl }, name, signal, (message) => {
    const line = wgsl.split(/\r\n|[\n\v\f\r\u0085\u2028\u2029]/)[message.lineNum - 1];
    return wgslError(name, message, [message.lineNum, message.linePos], line);
  });
  const reflection = reflectKernel(wgsl, options.entryPoint, name);
  checkDemands(gpu, reflection, name);
  const compiled = await compilePipeline(gpu, name, signal, async () => {
    const groupLayouts = makeLayouts(device, reflection, name);
    const pipeline = await device.createComputePipelineAsync({
      label: name,
      layout: device.createPipelineLayout({ label: name, bindGroupLayouts: [...groupLayouts] }),
      compute: { module, entryPoint: reflection.entryPoint },
    });
    return { groupLayouts, pipeline };
  });
  if (traceOn) {
    traceCompile(gpu, name, "bind", since);
  }
  return { reflection, ...compiled };
}

/** What the device would refuse with a message that names no variable. */
function checkDemands(gpu: GpuHandle, reflection: KernelReflection, name: string): void {
  const { limits } = gpu;
  const storage = reflection.bindings.filter((binding) => binding.kind !== "uniform").length;
  if (storage > limits.maxStorageBuffersPerShaderStage) {
    throw new KernelError(
      "EINVAL",
      name,
      `the kernel uses ${storage} storage buffers, this adapter allows ${limits.maxStorageBuffersPerShaderStage}: put several arrays into one`,
    );
  }
  const groups = Math.max(0, ...reflection.bindings.map((binding) => binding.group + 1));
  if (groups > limits.maxBindGroups) {
    throw new KernelError(
      "EINVAL",
      name,
      `the kernel uses @group(${groups - 1}), this adapter has groups 0 to ${limits.maxBindGroups - 1}`,
    );
  }
}

function makeLayouts(device: GPUDevice, reflection: KernelReflection, name: string): readonly GPUBindGroupLayout[] {
  const count = Math.max(0, ...reflection.bindings.map((binding) => binding.group + 1));
  return Array.from({ length: count }, (_, group) =>
    device.createBindGroupLayout({
      label: `${name} group ${group}`,
      entries: reflection.bindings
        .filter((binding) => binding.group === group)
        .map(({ binding, kind }) => ({
          binding,
          visibility: ShaderStage.Compute,
          buffer: { type: BUFFER_TYPE[kind] },
        })),
    }),
  );
}

/** How many workgroups to run: a number for x alone. */
export type Workgroups = number | readonly [x: number, y?: number, z?: number];

/** Checks a dispatch's size. Errors: EINVAL when a number is no integer, 0 or less, or over the device's limit. */
export function checkWorkgroups(limits: GpuLimits, workgroups: Workgroups, op = "dispatch"): [number, number, number] {
  const max = limits.maxComputeWorkgroupsPerDimension;
  const given: readonly unknown[] = typeof workgroups === "number" ? [workgroups] : workgroups;
  if (!Array.isArray(given) || given.length < 1 || given.length > 3) {
    throw new KernelError("EINVAL", op, `workgroups ${String(workgroups)}: give one to three numbers from 1 to ${max}`);
  }
  const [x = 1, y = 1, z = 1] = given.map((count: unknown, i) => {
    const value = count ?? (i > 0 ? 1 : count);
    if (typeof value !== "number" || !Number.isInteger(value) || value < 1 || value > max) {
      throw new KernelError(
        "EINVAL",
        op,
        `${String(value)} workgroups in ${"xyz"[i]}: use an integer from 1 to ${max}, and more than one dimension for more`,
      );
    }
    return value;
  });
  return [x, y, z];
}
