/** Bytes on their way back from the GPU. */
import { isPromise, throwIfAborted } from "../../base/index.ts";
import type { GpuHandle } from "./gpu-handle.ts";
import type { GpuWaitOptions } from "./lost.ts";
import type { StagingChunk, StagingPool } from "./staging-pool.ts";
import { checkAligned, type TransferStats } from "./transfer-batch.ts";
import { MapMode } from "./usage.ts";

/** A stretch of a GPU buffer to be read. */
export interface ReadbackRun {
  readonly buffer: GPUBuffer;
  /** A multiple of 4, as `bytes` is. */
  readonly offset: number;
  readonly bytes: number;
  /** Gets the run's bytes [at, at + src.length); a long run comes in pieces, in order. `src` is gone after the call. */
  take(src: Uint8Array, at: number): void;
}

interface Piece {
  readonly run: ReadbackRun;
  readonly at: number;
  readonly from: number;
  readonly bytes: number;
}

/** What a readback needs of its engine. */
export interface ReadbackContext extends GpuWaitOptions {
  readonly gpu: GpuHandle;
  readonly pool: StagingPool;
  readonly stats: TransferStats;
  readonly op: string;
}

/**
 * Reads runs back through staging: while one chunk is taken, the GPU copies the next. What was submitted before is in the
 * bytes. After an error no further `take` is called.
 */
export async function readBack(context: ReadbackContext, runs: readonly ReadbackRun[]): Promise<void> {
  const reader = new Reader(context);
  try {
    for (const run of runs) {
      checkAligned(run.offset, run.bytes);
      for (let at = 0; at < run.bytes; ) {
        const chunk = reader.room() ?? (await reader.nextChunk());
        at += reader.copy(run, at, chunk);
      }
    }
    reader.send();
    await reader.finished();
  } catch (error) {
    reader.cancel();
    throw error;
  }
}

class Reader {
  readonly #context: ReadbackContext;
  readonly #sent: Promise<void>[] = [];
  #chunk: StagingChunk | undefined;
  #pieces: Piece[] = [];
  #cancelled = false;

  constructor(context: ReadbackContext) {
    this.#context = context;
  }

  room(): StagingChunk | undefined {
    return this.#chunk !== undefined && this.#chunk.used < this.#chunk.bytes ? this.#chunk : undefined;
  }

  async nextChunk(): Promise<StagingChunk> {
    const { pool, op } = this.#context;
    this.send();
    const chunk = pool.acquire(op, this.#context);
    this.#chunk = isPromise(chunk) ? await chunk : chunk;
    return this.#chunk;
  }

  /** Notes as much of the run as fits; returns how much that is. */
  copy(run: ReadbackRun, at: number, chunk: StagingChunk): number {
    const bytes = Math.min(run.bytes - at, chunk.bytes - chunk.used);
    this.#pieces.push({ run, at, from: chunk.used, bytes });
    chunk.used += bytes;
    return bytes;
  }

  /** Submits the copies into the current chunk and starts to wait for them. */
  send(): void {
    const { gpu, pool, stats, op, signal } = this.#context;
    const chunk = this.#chunk;
    if (chunk === undefined) {
      return;
    }
    gpu.lost.check(op);
    throwIfAborted(signal, op);
    const pieces = this.#pieces;
    this.#chunk = undefined;
    this.#pieces = [];
    const encoder = gpu.device.createCommandEncoder({ label: op });
    for (let i = 0; i < pieces.length; ) {
      i = this.#record(encoder, pieces, i, chunk);
    }
    gpu.queue.submit([encoder.finish()]);
    stats.submits++;
    pool.markInFlight();
    const arrived = this.#receive(chunk, pieces);
    // A failure is reported by finished(); until then it is nobody's.
    arrived.catch(() => undefined);
    this.#sent.push(arrived);
  }

  async finished(): Promise<void> {
    const { gpu, op, signal } = this.#context;
    await gpu.lost.wait(Promise.all(this.#sent), op, { signal });
  }

  cancel(): void {
    this.#cancelled = true;
    if (this.#chunk !== undefined) {
      this.#context.pool.release(this.#chunk, false);
      this.#chunk = undefined;
    }
  }

  /** Records one copy for the piece and the neighbours that follow it; returns the first piece after them. */
  #record(encoder: GPUCommandEncoder, pieces: readonly Piece[], first: number, chunk: StagingChunk): number {
    const piece = pieces[first];
    if (piece === undefined) {
      return first + 1;
    }
    const { buffer } = piece.run;
    const offset = piece.run.offset + piece.at;
    let bytes = piece.bytes;
    let next = first + 1;
    for (; ; next++) {
      const neighbour = pieces[next];
      if (neighbour?.run.buffer !== buffer || neighbour.run.offset + neighbour.at !== offset + bytes) {
        break;
      }
      bytes += neighbour.bytes;
    }
    encoder.copyBufferToBuffer(buffer, offset, chunk.buffer, piece.from, bytes);
    this.#context.stats.copies++;
    return next;
  }

  async #receive(chunk: StagingChunk, pieces: readonly Piece[]): Promise<void> {
    const { gpu, pool, stats, op } = this.#context;
    try {
      await chunk.buffer.mapAsync(MapMode.Read, 0, chunk.used);
    } catch (error) {
      pool.discard(chunk, true);
      throw gpu.lost.cutOff(op, error);
    }
    try {
      if (this.#cancelled) {
        return;
      }
      gpu.lost.check(op);
      const view = new Uint8Array(chunk.buffer.getMappedRange(0, chunk.used));
      for (const { run, at, from, bytes } of pieces) {
        run.take(view.subarray(from, from + bytes), at);
        stats.bytesToHost += bytes;
      }
    } catch (error) {
      this.#cancelled = true;
      throw error;
    } finally {
      chunk.unmap();
      pool.release(chunk, true);
    }
  }
}
