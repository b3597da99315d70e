/** What compiling has in common for kernels of both modes: what the GPU refuses, and how that is said. */
import { KernelError } from "../../base/index.ts";
import type { GpuHandle } from "./gpu-handle.ts";
import { gpuMessage } from "./gpu-message.ts";

/**
 * Makes a shader module. `refused` says what is wrong with WGSL whose first error is this.
 * @throws KernelError that of `refused`; EINVAL the GPU refuses it otherwise; ENODEV; EINTR
 */
export async function compileModule(
  { device, lost }: GpuHandle,
  { label, code }: { readonly label: string; readonly code: string },
  op: string,
  signal: AbortSignal | undefined,
  refused: (message: GPUCompilationMessage) => KernelError,
): Promise<GPUShaderModule> {
  device.pushErrorScope("validation");
  const module = device.createShaderModule({ label, code });
  const validated = device.popErrorScope();
  const info = await lost.wait(module.getCompilationInfo(), op, { signal });
  const error = info.messages.find((message) => message.type === "error");
  if (error !== undefined) {
    throw refused(error);
  }
  const invalid = await lost.wait(validated, op, { signal });
  if (invalid !== null) {
    throw new KernelError("EINVAL", op, `the GPU refuses the WGSL: ${gpuMessage(invalid.message)}`);
  }
  return module;
}

/**
 * Makes a pipeline, and what `make` makes on the way to it.
 * @throws KernelError EINVAL the GPU refuses it; ENOMEM it has no room for it; ENODEV; EINTR
 */
export async function compilePipeline<T>(
  { device, lost }: GpuHandle,
  op: string,
  signal: AbortSignal | undefined,
  make: () => Promise<T>,
): Promise<T> {
  device.pushErrorScope("validation");
  device.pushErrorScope("out-of-memory");
  const making = make();
  making.catch(() => undefined);
  const scopes = Promise.all([device.popErrorScope(), device.popErrorScope()]);
  const [outOfMemory, invalid] = await lost.wait(scopes, op, { signal });
  if (outOfMemory !== null) {
    throw new KernelError("ENOMEM", op, "the GPU has no memory for the kernel: free buffers first");
  }
  if (invalid !== null) {
    throw new KernelError("EINVAL", op, `the GPU refuses the kernel: ${gpuMessage(invalid.message)}`);
  }
  try {
    return await lost.wait(making, op, { signal });
  } catch (cause) {
    if (cause instanceof KernelError) {
      throw cause;
    }
    const why = cause instanceof Error ? gpuMessage(cause.message) : String(cause);
    throw new KernelError("EINVAL", op, `the GPU refuses the kernel: ${why}`, { cause });
  }
}

/** An error in the user's WGSL, with the line that it is in; `line` 0 says that it is in none. */
export function wgslError(
  op: string,
  message: GPUCompilationMessage,
  [line, column]: readonly [line: number, column: number],
  source: string | undefined,
): KernelError {
  const place = line > 0 ? `${line}:${column} ` : "";
  const text = source?.trim() ?? "";
  const quoted = text.length > 100 ? `${text.slice(0, 100)}…` : text;
  return new KernelError(
    "EINVAL",
    op,
    `${place}${gpuMessage(message.message)}${quoted === "" ? "" : `, in: ${quoted}`}`,
  );
}
