/** A compiled kernel, and its dispatch. */
import type { AddressSpace } from "../../mm/index.ts";
import { assertWait } from "../../sync/index.ts";
import { type BindPlan, type BindTarget, planBindings } from "./bind-plan.ts";
import { type CompiledKernel, checkWorkgroups, type Workgroups } from "./compile.ts";
import type { WebGpuDevice } from "./device.ts";
import type { OwnedBuffer } from "./gpu-buffer.ts";
import { type ParamValues, packParams } from "./params.ts";
import type { KernelReflection } from "./reflect.ts";
import { type DispatchStats, submitDispatch } from "./submit.ts";

/** How far an svm dispatch is. */
export interface DispatchProgress {
  readonly rounds: number;
  readonly workgroups: number;
  readonly workgroupsDone: number;
  /** Device pages that rounds found missing, and the bytes that were sent for them and others. */
  readonly deviceFaults: number;
  readonly bytesToDevice: number;
}

/** What a kernel runs over, how often, and how long it may take. */
export interface DispatchOptions {
  /** Memory for each storage variable of the kernel, by the variable's name. */
  readonly bind?: Readonly<Record<string, BindTarget>> | undefined;
  /** Members of the uniform variable `params`. */
  readonly params?: ParamValues | undefined;
  /** In svm mode: the address space whose memory the kernel's pointers name. */
  readonly mm?: AddressSpace | undefined;
  /** How many workgroups, x alone or [x, y, z]. */
  readonly workgroups: Workgroups;
  readonly signal?: AbortSignal | undefined;
  /** How long to try while leases or invalidations are in the way. Default 1000 ms. */
  readonly timeoutMs?: number | undefined;
  /** In svm mode: called after each round. What it throws fails the dispatch. */
  readonly onRound?: ((progress: DispatchProgress) => void) | undefined;
}

/** A kernel compiled for a device; got from WebGpuDevice.kernel. */
export interface WebGpuKernel {
  /** How it sees memory: ranges bound to its variables, or addresses that it follows (WGSL that calls `pm_*`). */
  readonly mode: "bind" | "svm";
  readonly device: WebGpuDevice;
  readonly name: string;
  /** The entry point, its variables, the layout of `params`. */
  readonly reflection: KernelReflection;
  /**
   * Runs the kernel over memory of one address space; resolves when the GPU has finished.
   * @throws KernelError see {@link BindKernel.dispatch} and SvmKernel.dispatch
   */
  dispatch(options: DispatchOptions): Promise<DispatchStats>;
}

/** A kernel over bound ranges. */
export class BindKernel implements WebGpuKernel {
  readonly mode = "bind";
  readonly device: WebGpuDevice;
  readonly name: string;
  readonly compiled: CompiledKernel;

  /** @internal Use WebGpuDevice.kernel. */
  constructor(device: WebGpuDevice, compiled: CompiledKernel, name: string) {
    this.device = device;
    this.compiled = compiled;
    this.name = name;
  }

  /** The entry point, its variables, the layout of `params`. */
  get reflection(): KernelReflection {
    return this.compiled.reflection;
  }

  /**
   * Runs the kernel over memory of one address space; resolves when the GPU has finished.
   *
   * Only pages that changed since this device last had them are uploaded. What the kernel may write becomes device-private
   * and comes back when the CPU leases it.
   * @throws KernelError EINVAL bindings, params or workgroups that do not fit the kernel or the adapter; ENOTSUP; EACCES a
   *   written variable over a read-only mapping; EFAULT unmapped memory, or past its object's end; EHWPOISON; EIO the file
   *   behind a mapping cannot be read; EBUSY leases or invalidations were in the way for `timeoutMs`; ENOMEM over
   *   `deviceMemory`; ENODEV the device is lost or closed; EINTR; ESRCH the address space has exited
   */
  async dispatch(options: DispatchOptions): Promise<DispatchStats> {
    const { workgroups, params, plan } = checkDispatch(this, options);
    return withUniform(this, params, (uniform) =>
      submitDispatch(
        { kernel: this, plan, workgroups, uniform },
        { signal: options.signal, timeoutMs: options.timeoutMs ?? 1000 },
      ),
    );
  }
}

/** What can be said of a dispatch before anything is touched. */
export interface CheckedDispatch {
  readonly workgroups: [number, number, number];
  readonly params: Uint8Array<ArrayBuffer>;
  readonly plan: BindPlan;
}

/** @throws KernelError ENODEV the device is closed; EINVAL, EACCES, ENOTSUP what does not fit the kernel or the adapter */
export function checkDispatch(kernel: WebGpuKernel, options: DispatchOptions): CheckedDispatch {
  const { device, name, reflection } = kernel;
  device.assertOpen(name);
  assertWait(name, options);
  const { limits } = device.gpu;
  return {
    workgroups: checkWorkgroups(limits, options.workgroups, name),
    params: packParams(reflection.params, options.params ?? {}, name),
    plan: planBindings(reflection, options.bind ?? {}, limits, name),
  };
}

/** Runs `body` with a uniform buffer that holds the params, for a kernel that has some. @throws KernelError ENOMEM, ENODEV */
export async function withUniform<T>(
  { device, name, reflection }: WebGpuKernel,
  params: Uint8Array<ArrayBuffer>,
  body: (uniform: OwnedBuffer | undefined) => Promise<T>,
): Promise<T> {
  if (reflection.params === undefined) {
    return body(undefined);
  }
  const uniform = await device.getUniform(Math.ceil(params.byteLength / 16) * 16, name);
  try {
    device.gpu.queue.writeBuffer(uniform.buffer, 0, params);
    return await body(uniform);
  } finally {
    device.putUniform(uniform);
  }
}
