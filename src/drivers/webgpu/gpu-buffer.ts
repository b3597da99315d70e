/** Making GPU buffers: checked against the limits, counted, out of memory told apart from everything else. */
import { KernelError, type LedgerEntry, ledgerTrack } from "../../base/index.ts";
import type { GpuHandle } from "./gpu-handle.ts";
import { gpuMessage } from "./gpu-message.ts";

/** A GPUBuffer that this library made. `destroy` is idempotent. */
export interface OwnedBuffer {
  readonly buffer: GPUBuffer;
  readonly bytes: number;
  destroy(): void;
}

/** What kind of buffer to make. */
export interface BufferOptions {
  readonly label: string;
  /** A multiple of 4, more than 0. */
  readonly bytes: number;
  /** Bits of `BufferUsage`. */
  readonly usage: number;
  /** Gives the memory mapped for writing. */
  readonly mapped?: boolean;
}

/**
 * Makes a buffer.
 *
 * Errors: EINVAL when the size is over the device's `maxBufferSize` or no multiple of 4, ENOMEM when the GPU has not that
 * much memory, ENODEV when the device is lost.
 */
export async function createGpuBuffer(gpu: GpuHandle, options: BufferOptions, op = "buffer"): Promise<OwnedBuffer> {
  const { label, bytes, usage, mapped = false } = options;
  const { maxBufferSize } = gpu.limits;
  gpu.lost.check(op);
  if (!Number.isSafeInteger(bytes) || bytes <= 0 || bytes % 4 !== 0) {
    throw new KernelError("EINVAL", op, `a GPU buffer of ${bytes} bytes: use a positive multiple of 4`);
  }
  if (bytes > maxBufferSize) {
    throw new KernelError(
      "EINVAL",
      op,
      `${label} needs ${bytes} bytes, a buffer of this adapter holds ${maxBufferSize}: bind a smaller range`,
    );
  }
  const { device } = gpu;
  device.pushErrorScope("validation");
  device.pushErrorScope("out-of-memory");
  let buffer: GPUBuffer | undefined;
  let thrown: unknown;
  try {
    buffer = device.createBuffer({ label, size: bytes, usage, mappedAtCreation: mapped });
  } catch (error) {
    thrown = error;
  }
  const scopes = Promise.all([device.popErrorScope(), device.popErrorScope()]);
  const ledger = ledgerTrack("gpu buffer");
  const owned = own(gpu, buffer, bytes, ledger);
  try {
    const [outOfMemory, invalid] = await gpu.lost.wait(scopes, op);
    if (invalid !== null) {
      throw new KernelError("EINVAL", op, `the GPU refuses ${label}: ${gpuMessage(invalid.message)}`);
    }
    if (outOfMemory !== null || owned === undefined) {
      // mappedAtCreation reports a lack of host memory by throwing.
      throw new KernelError(
        "ENOMEM",
        op,
        `the GPU has no memory for the ${bytes} bytes of ${label}: use less, or bind a smaller range`,
        { cause: thrown },
      );
    }
    return owned;
  } catch (error) {
    owned?.destroy();
    ledger.end();
    throw error;
  }
}

function own(
  gpu: GpuHandle,
  buffer: GPUBuffer | undefined,
  bytes: number,
  ledger: LedgerEntry,
): OwnedBuffer | undefined {
  if (buffer === undefined) {
    return undefined;
  }
  let counted = bytes;
  gpu.bufferBytes += counted;
  return {
    buffer,
    bytes,
    destroy() {
      buffer.destroy();
      gpu.bufferBytes -= counted;
      counted = 0;
      ledger.end();
    },
  };
}
