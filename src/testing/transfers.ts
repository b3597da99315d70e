/** What the tests of transfers share. */
import { createGpuBuffer, type OwnedBuffer } from "../drivers/webgpu/gpu-buffer.ts";
import type { GpuHandle } from "../drivers/webgpu/gpu-handle.ts";
import type { TransferEngine } from "../drivers/webgpu/transfer.ts";
import type { UploadRun } from "../drivers/webgpu/transfer-batch.ts";
import { BufferUsage } from "../drivers/webgpu/usage.ts";

/** Small, so that a few hundred bytes already take several chunks. */
export const SMALL = { chunkBytes: 64, maxChunks: 4 };

/** A buffer to transfer to and from. */
export function storage(gpu: GpuHandle, bytes: number): Promise<OwnedBuffer> {
  const usage = BufferUsage.Storage | BufferUsage.CopyDst | BufferUsage.CopySrc;
  return createGpuBuffer(gpu, { label: "target", bytes, usage });
}

/** Bytes that say where they are. */
export function pattern(bytes: number, seed = 1): Uint8Array {
  return Uint8Array.from({ length: bytes }, (_, i) => (i * 31 + (i >> 8) * 7 + seed * 101) & 255);
}

/** A run that uploads the data, at once or after a turn of the event loop. */
export function runOf(target: OwnedBuffer, offset: number, data: Uint8Array, later = false): UploadRun {
  return {
    buffer: target.buffer,
    offset,
    bytes: data.length,
    fill(dst, at) {
      if (!later) {
        dst.set(data.subarray(at, at + dst.length));
        return undefined;
      }
      return new Promise((resolve) => {
        setImmediate(() => {
          dst.set(data.subarray(at, at + dst.length));
          resolve();
        });
      });
    },
  };
}

/** Everything that a buffer holds. */
export async function contents(engine: TransferEngine, target: OwnedBuffer): Promise<Uint8Array> {
  const bytes = new Uint8Array(target.bytes);
  await engine.readback([
    { buffer: target.buffer, offset: 0, bytes: target.bytes, take: (src, at) => bytes.set(src, at) },
  ]);
  return bytes;
}

/** A promise and what settles it. */
export function withResolvers(): { readonly promise: Promise<void>; readonly resolve: () => void } {
  const settle: (() => void)[] = [];
  const promise = new Promise<void>((resolve) => settle.push(resolve));
  return { promise, resolve: () => settle.forEach((resolve) => void resolve()) };
}
