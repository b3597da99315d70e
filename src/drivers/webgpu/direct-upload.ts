/** Uploads without staging, for a GPU whose memory is the processor's: one call and one copy for each run. */
import type { MaybePromise } from "../../base/index.ts";
import { checkAligned, type UploadRun } from "./transfer-batch.ts";

/** Memory as `queue.writeBuffer` takes it, where that call is one copy into the GPU's memory, made at once. */
export interface DirectWrites {
  /** The same bytes, as memory that is not shared; undefined when there is no such view. Good as long as `buffer` is. */
  unshared(buffer: ArrayBufferLike): ArrayBuffer | undefined;
}

/**
 * The direct uploads of one device. Dawn makes `queue.writeBuffer` such a copy as long as nothing under way uses the buffer and
 * the GPU itself has never written to it; else it keeps the bytes in memory of its own, which nobody counts, and has the GPU
 * copy them.
 */
export class DirectUploads {
  readonly #queue: GPUQueue;
  readonly #writes: DirectWrites;
  readonly #writtenByGpu = new WeakSet<GPUBuffer>();

  constructor(queue: GPUQueue, writes: DirectWrites) {
    this.#queue = queue;
    this.#writes = writes;
  }

  /** A command that writes to the buffer is about to be recorded. */
  noteGpuWrite(buffer: GPUBuffer): void {
    this.#writtenByGpu.add(buffer);
  }

  /**
   * Whether the runs can be uploaded directly: their bytes are in arrays, and what would have to wait for the GPU is not more
   * than `limit` bytes.
   */
  takes(runs: readonly UploadRun[], limit: number): boolean {
    let waiting = 0;
    let view: Uint8Array | undefined;
    let former: GPUBuffer | undefined;
    let written = false;
    for (const { buffer, offset, bytes, source, idle } of runs) {
      checkAligned(offset, bytes);
      if (buffer !== former) {
        former = buffer;
        written = this.#writtenByGpu.has(buffer);
      }
      if (!idle || written) {
        waiting += bytes;
      }
      if (source === undefined || waiting > limit) {
        return false;
      }
      // Mostly all are in one. Asking a view for its buffer is a call into the engine.
      if (source !== view) {
        view = source;
        if (this.#writes.unshared(source.buffer) === undefined) {
          return false;
        }
      }
    }
    return true;
  }

  /** Writes the runs from byte `at` of run `first` on; `turn` gives way after each `turnBytes`. */
  write(
    runs: readonly UploadRun[],
    turnBytes: number,
    turn: () => Promise<void>,
    first = 0,
    at = 0,
  ): MaybePromise<void> {
    let left = turnBytes;
    let view: Uint8Array | undefined;
    let plain: ArrayBuffer | undefined;
    let done = at;
    for (let i = first; i < runs.length; i++) {
      const { buffer, offset, bytes, source, sourceOffset = 0 } = runs[i];
      if (source === undefined) {
        continue;
      }
      if (source !== view) {
        view = source;
        plain = this.#writes.unshared(source.buffer);
      }
      const from = source.byteOffset + sourceOffset;
      while (done < bytes && plain !== undefined) {
        if (left === 0) {
          return turn().then(() => this.write(runs, turnBytes, turn, i, done));
        }
        const piece = Math.min(bytes - done, left);
        this.#queue.writeBuffer(buffer, offset + done, plain, from + done, piece);
        left -= piece;
        done += piece;
      }
      done = 0;
    }
  }
}
