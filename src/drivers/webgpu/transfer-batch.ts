/** Bytes on their way to the GPU, and the commands that use them, for one submit if they are few. */
import { invariant, isPromise, type MaybePromise, throwIfAborted } from "../../base/index.ts";
import type { GpuHandle } from "./gpu-handle.ts";
import type { GpuWaitOptions } from "./lost.ts";
import type { StagingChunk, StagingPool } from "./staging-pool.ts";

/** A stretch of a GPU buffer to be filled. */
export interface UploadRun {
  readonly buffer: GPUBuffer;
  /** A multiple of 4, as `bytes` is. */
  readonly offset: number;
  readonly bytes: number;
  /**
   * Writes the run's bytes [at, at + dst.length) to `dst`, all of them: what was there before is older data. A long run is
   * asked for in pieces, in order. `dst` is gone once the call is over, or its promise settled.
   */
  fill(dst: Uint8Array, at: number): MaybePromise<void>;
  /** Where the bytes are now, when they are all in one array, from `sourceOffset` on: `fill` is not called then. */
  readonly source?: Uint8Array | undefined;
  readonly sourceOffset?: number;
  /** Nothing that is under way uses the buffer. */
  readonly idle?: boolean;
}

/** Counts of what went over the bus, and how. */
export interface TransferStats {
  bytesToDevice: number;
  bytesToHost: number;
  /** Copy commands; neighbouring runs share one. */
  copies: number;
  submits: number;
}

/** The first submission on the way has this part of the most. */
const FIRST_FLUSH = 16;

/** What a batch needs of its engine. */
export interface BatchContext extends GpuWaitOptions {
  readonly gpu: GpuHandle;
  readonly pool: StagingPool;
  readonly stats: TransferStats;
  readonly op: string;
  /**
   * A batch submits by itself once it holds that many bytes, so that the GPU copies while the CPU fills; at first sooner, for
   * what is filled last is what somebody waits for.
   */
  readonly flushBytes: number;
}

/**
 * Uploads, clears and the caller's own commands, in the order of the calls.
 *
 * Up to `flushBytes / 16` (512 KiB) of uploads and everything recorded on {@link encoder} go in one `queue.submit`; more is
 * submitted on the way, twice as much each time. Uploads that {@link DirectUploads} takes are made at once, unless something
 * was recorded before them. Nothing that is recorded may be relied on before {@link submit}. A batch that is disposed of
 * without submit gives its staging back and drops its commands, except those that had to be submitted on the way and what
 * was written at once.
 */
export class TransferBatch implements Disposable {
  readonly #context: BatchContext;
  /** Bytes of its uploads so far. */
  bytes = 0;
  #encoder: GPUCommandEncoder | undefined;
  #chunk: StagingChunk | undefined;
  /** Chunks that the encoder's commands copy from, the current one not among them. */
  readonly #filled: StagingChunk[] = [];
  #filledBytes = 0;
  #flushAt: number;
  #busy = false;
  #ended = false;
  /** The copy that the next run may extend: from the current chunk, up to where it is used. */
  #copyTarget: GPUBuffer | undefined;
  #copyOffset = 0;
  #copyFrom = 0;

  constructor(context: BatchContext) {
    this.#context = context;
    this.#flushAt = 4 * Math.ceil(context.flushBytes / FIRST_FLUSH / 4);
  }

  /** Where the caller records its own commands. Ask anew after each upload: the former one may be finished. */
  get encoder(): GPUCommandEncoder {
    invariant(!this.#ended && !this.#busy, "I-GPU-2", () => "a batch is used after its end or during its upload");
    this.#emitCopy();
    return this.#commands();
  }

  /**
   * Records the upload of the runs. Returns at once when every fill does and staging is free.
   *
   * Errors: what a fill throws; ENODEV when the device is lost; EINTR; ENOMEM without memory for staging.
   */
  upload(runs: readonly UploadRun[]): MaybePromise<void> {
    return this.#exclusively(() => this.#uploadAny(runs));
  }

  /** Records zeroes for a stretch of a buffer; both numbers are multiples of 4. */
  clear(buffer: GPUBuffer, offset: number, bytes: number): void {
    checkAligned(offset, bytes);
    if (bytes > 0) {
      this.#context.gpu.direct?.noteGpuWrite(buffer);
      this.encoder.clearBuffer(buffer, offset, bytes);
    }
  }

  /**
   * Submits everything and ends the batch. The promise is the queue's own: it resolves when the GPU has finished. Whoever waits
   * for it does so by `DeviceLost.wait`.
   *
   * Errors: ENODEV when the device is lost; EINTR.
   */
  submit(): Promise<void> {
    invariant(!this.#ended && !this.#busy, "I-GPU-2", () => "a batch is submitted after its end or during its upload");
    this.#check();
    this.#flush();
    this.#ended = true;
    return this.#context.gpu.queue.onSubmittedWorkDone();
  }

  /** Drops what was not submitted. Idempotent. */
  [Symbol.dispose](): void {
    this.#ended = true;
    const { pool } = this.#context;
    const chunks = this.#filled.splice(0);
    if (this.#chunk !== undefined && !this.#busy) {
      chunks.push(this.#chunk);
      this.#chunk = undefined;
    }
    for (const chunk of chunks) {
      pool.release(chunk, false);
    }
    this.#encoder = undefined;
    this.#copyTarget = undefined;
  }

  #exclusively(body: () => MaybePromise<void>): MaybePromise<void> {
    invariant(!this.#ended && !this.#busy, "I-GPU-2", () => "a batch is used after its end or during its upload");
    this.#check();
    this.#busy = true;
    let result: MaybePromise<void>;
    try {
      result = body();
    } catch (error) {
      this.#busy = false;
      throw this.#translate(error);
    }
    if (!isPromise(result)) {
      this.#busy = false;
      return undefined;
    }
    const settled = () => {
      this.#busy = false;
      if (this.#ended) {
        // Disposed of while a fill was running: the chunk could not be given back then.
        this[Symbol.dispose]();
      }
    };
    return result.then(settled, (error: unknown) => {
      settled();
      throw this.#translate(error);
    });
  }

  #uploadAny(runs: readonly UploadRun[]): MaybePromise<void> {
    const { gpu, stats, flushBytes } = this.#context;
    const { direct } = gpu;
    // What was recorded before comes before.
    const first = this.#encoder === undefined && this.#chunk === undefined && this.#filled.length === 0;
    if (direct === undefined || !first || !direct.takes(runs, flushBytes)) {
      return this.#uploadFrom(runs, 0, 0);
    }
    for (const { bytes } of runs) {
      this.bytes += bytes;
      stats.bytesToDevice += bytes;
    }
    stats.copies += runs.length;
    return direct.write(runs, flushBytes, () => this.#idleTurn());
  }

  async #idleTurn(): Promise<void> {
    const { gpu, op } = this.#context;
    await gpu.lost.wait(gpu.queue.onSubmittedWorkDone(), op);
    this.#check();
  }

  #uploadFrom(runs: readonly UploadRun[], first: number, firstAt: number): MaybePromise<void> {
    let at = firstAt;
    for (let i = first; i < runs.length; i++) {
      const run = runs[i];
      if (run === undefined) {
        continue;
      }
      const index = i;
      checkAligned(run.offset, run.bytes);
      while (at < run.bytes) {
        const from = at;
        const chunk = this.#room();
        if (isPromise(chunk)) {
          return chunk.then(() => this.#uploadFrom(runs, index, from));
        }
        const piece = Math.min(run.bytes - from, this.#left(chunk));
        const { source, sourceOffset = 0 } = run;
        if (source !== undefined) {
          const start = sourceOffset + from;
          chunk.view.set(source.subarray(start, start + piece), chunk.used);
          this.#place(run.buffer, run.offset + from, piece, chunk);
          at = from + piece;
          continue;
        }
        const filled = run.fill(chunk.view.subarray(chunk.used, chunk.used + piece), from);
        if (isPromise(filled)) {
          return filled.then(() => {
            this.#check();
            this.#place(run.buffer, run.offset + from, piece, chunk);
            return this.#uploadFrom(runs, index, from + piece);
          });
        }
        this.#place(run.buffer, run.offset + from, piece, chunk);
        at = from + piece;
      }
      at = 0;
    }
  }

  /** Bytes that the chunk may still take: less than it has room for when it is to be submitted sooner. */
  #left(chunk: StagingChunk): number {
    return Math.min(chunk.bytes, this.#flushAt) - chunk.used;
  }

  /** The current chunk with room in it. */
  #room(): MaybePromise<StagingChunk> {
    const { pool, op, flushBytes } = this.#context;
    if (this.#chunk !== undefined && this.#left(this.#chunk) > 0) {
      return this.#chunk;
    }
    this.#check();
    this.#closeChunk();
    if (this.#filledBytes >= this.#flushAt) {
      this.#flush();
      this.#flushAt = Math.min(2 * this.#flushAt, flushBytes);
    }
    const chunk = pool.acquire(op, this.#context);
    if (!isPromise(chunk)) {
      this.#chunk = chunk;
      return chunk;
    }
    return chunk.then((arrived) => {
      this.#chunk = arrived;
      this.#check();
      return arrived;
    });
  }

  #check(): void {
    const { gpu, pool, op, signal } = this.#context;
    gpu.lost.check(op);
    pool.check(op);
    throwIfAborted(signal, op);
    invariant(!this.#ended, "I-GPU-2", () => "a batch was disposed of during its upload");
  }

  #place(buffer: GPUBuffer, offset: number, bytes: number, chunk: StagingChunk): void {
    const extends_ = this.#copyTarget === buffer && offset - this.#copyOffset === chunk.used - this.#copyFrom;
    if (!extends_) {
      this.#emitCopy();
      this.#context.gpu.direct?.noteGpuWrite(buffer);
      this.#copyTarget = buffer;
      this.#copyOffset = offset;
      this.#copyFrom = chunk.used;
    }
    chunk.used += bytes;
    this.bytes += bytes;
    this.#context.stats.bytesToDevice += bytes;
  }

  #emitCopy(): void {
    const chunk = this.#chunk;
    if (this.#copyTarget === undefined || chunk === undefined) {
      return;
    }
    const bytes = chunk.used - this.#copyFrom;
    this.#commands().copyBufferToBuffer(chunk.buffer, this.#copyFrom, this.#copyTarget, this.#copyOffset, bytes);
    this.#context.stats.copies++;
    this.#copyTarget = undefined;
  }

  #closeChunk(): void {
    this.#emitCopy();
    if (this.#chunk !== undefined) {
      this.#filled.push(this.#chunk);
      this.#filledBytes += this.#chunk.used;
      this.#chunk = undefined;
    }
  }

  #commands(): GPUCommandEncoder {
    this.#encoder ??= this.#context.gpu.device.createCommandEncoder({ label: this.#context.op });
    return this.#encoder;
  }

  #flush(): void {
    this.#closeChunk();
    const { gpu, pool, stats } = this.#context;
    const chunks = this.#filled.splice(0);
    this.#filledBytes = 0;
    for (const chunk of chunks) {
      chunk.unmap();
    }
    if (this.#encoder !== undefined) {
      gpu.queue.submit([this.#encoder.finish()]);
      this.#encoder = undefined;
      stats.submits++;
    }
    for (const chunk of chunks) {
      pool.remap(chunk);
    }
  }

  /** A fill that finds its memory gone failed because the device was. */
  #translate(error: unknown): unknown {
    const { lost } = this.#context.gpu;
    return lost.isLost && (error instanceof TypeError || error instanceof RangeError)
      ? lost.error(this.#context.op, error)
      : error;
  }
}

/** WebGPU copies in words. */
export function checkAligned(offset: number, bytes: number): void {
  invariant(
    offset % 4 === 0 && bytes % 4 === 0 && offset >= 0 && bytes >= 0,
    "I-GPU-3",
    () => `a transfer of ${bytes} bytes at offset ${offset} is not in whole words`,
  );
}
