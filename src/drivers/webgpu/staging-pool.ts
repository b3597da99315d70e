/**
 * Staging buffers: memory that the CPU fills or reads and the GPU copies from or to, made once and used again and again.
 */
import {
  KernelError,
  type LedgerEntry,
  ledgerTrack,
  type MaybePromise,
  throwIfAborted,
  trace,
  traceNow,
  traceOn,
} from "../../base/index.ts";
import type { GpuHandle } from "./gpu-handle.ts";
import type { GpuWaitOptions } from "./lost.ts";
import { BufferUsage, MapMode } from "./usage.ts";

/** One staging buffer. Upload chunks are mapped whenever the CPU has them, download chunks only while they are read. */
export class StagingChunk {
  readonly buffer: GPUBuffer;
  readonly bytes: number;
  /** The mapped memory; empty while the GPU has the chunk. */
  view: Uint8Array;
  /** Bytes in use, from the start. */
  used = 0;
  /** Tells whether there was memory for it, as long as nobody has asked: null when there was. */
  outOfMemory: Promise<GPUError | null> | undefined;
  readonly #ledger: LedgerEntry;

  constructor(buffer: GPUBuffer, bytes: number, view: Uint8Array) {
    this.buffer = buffer;
    this.bytes = bytes;
    this.view = view;
    this.#ledger = ledgerTrack("gpu buffer");
  }

  /** Hands the memory to the GPU. */
  unmap(): void {
    this.view = EMPTY;
    this.buffer.unmap();
  }

  destroy(): void {
    this.view = EMPTY;
    this.buffer.destroy();
    this.#ledger.end();
  }
}

const EMPTY = new Uint8Array(0);

/** Which way the bytes go. */
export type StagingKind = "upload" | "download";

/** The pool's size. */
export interface StagingOptions {
  readonly chunkBytes: number;
  readonly maxChunks: number;
}

interface Waiter {
  readonly resolve: (chunk: MaybePromise<StagingChunk>) => void;
  readonly reject: (error: unknown) => void;
}

/**
 * The chunks of one direction. At most `maxChunks` exist, except when all of them are held by batches of uploads that are
 * not yet submitted: waiting for those could be waiting for ourselves, so one more is made and given up on its return.
 */
export class StagingPool {
  readonly #gpu: GpuHandle;
  readonly #kind: StagingKind;
  readonly #options: StagingOptions;
  readonly #free: StagingChunk[] = [];
  readonly #all = new Set<StagingChunk>();
  readonly #waiters: Waiter[] = [];
  /** Chunks that come back by themselves: the GPU has them. */
  #inFlight = 0;
  #destroyed = false;

  constructor(gpu: GpuHandle, kind: StagingKind, options: StagingOptions) {
    this.#gpu = gpu;
    this.#kind = kind;
    this.#options = options;
  }

  get chunkBytes(): number {
    return this.#options.chunkBytes;
  }

  /** Bytes of all chunks that exist. */
  get bytes(): number {
    return this.#all.size * this.#options.chunkBytes;
  }

  /** Throws ENODEV when the pool was destroyed. */
  check(op: string): void {
    if (this.#destroyed) {
      throw new KernelError("ENODEV", op, "the transfer engine was destroyed: open another device");
    }
  }

  /**
   * Takes an empty chunk, at once when one is free or may be made.
   *
   * Errors: ENOMEM when the first chunk cannot be made, ENODEV when the device is lost, EINTR when the signal fires.
   */
  acquire(op: string, { signal }: GpuWaitOptions = {}): MaybePromise<StagingChunk> {
    this.#gpu.lost.check(op);
    throwIfAborted(signal, op);
    this.check(op);
    const chunk = this.#free.pop() ?? this.#grow(op);
    if (chunk !== undefined) {
      return this.#proven(chunk, op, signal);
    }
    return traceOn ? this.#tracedWait(op, signal) : this.#waitForOne(op, signal);
  }

  /** A chunk of which it is known that it has memory. */
  #proven(chunk: StagingChunk, op: string, signal?: AbortSignal): MaybePromise<StagingChunk> {
    const { outOfMemory } = chunk;
    if (outOfMemory === undefined) {
      return chunk;
    }
    return this.#gpu.lost.wait(outOfMemory, op, { signal }).then(
      (error) => {
        if (error !== null) {
          this.discard(chunk, false);
          throw this.#noMemory(op, error);
        }
        chunk.outOfMemory = undefined;
        return chunk;
      },
      (error: unknown) => {
        this.discard(chunk, false);
        throw error;
      },
    );
  }

  #noMemory(op: string, cause: unknown): KernelError {
    const { chunkBytes } = this.#options;
    const why = `the GPU has no memory for a staging buffer of ${chunkBytes} bytes: free buffers first`;
    return new KernelError("ENOMEM", op, why, { cause });
  }

  /** Says that the chunk comes back through {@link release} or {@link remap} without anybody's doing. */
  markInFlight(): void {
    this.#inFlight++;
  }

  /** Maps an upload chunk again once the GPU has copied it, and puts it back. */
  remap(chunk: StagingChunk): void {
    this.markInFlight();
    this.#gpu.lost.wait(chunk.buffer.mapAsync(MapMode.Write), "transfer").then(
      () => {
        // The device may have been destroyed between the mapping and this callback.
        if (chunk.buffer.mapState === "mapped") {
          chunk.view = new Uint8Array(chunk.buffer.getMappedRange());
          this.release(chunk, true);
        } else {
          this.discard(chunk, true);
        }
      },
      () => this.discard(chunk, true),
    );
  }

  /** Puts a chunk back that is ready for its next use. */
  release(chunk: StagingChunk, wasInFlight: boolean): void {
    this.#inFlight -= wasInFlight ? 1 : 0;
    chunk.used = 0;
    const waiter = this.#destroyed ? undefined : this.#waiters.shift();
    if (waiter !== undefined) {
      waiter.resolve(chunk);
    } else if (this.#destroyed || this.#all.size > this.#options.maxChunks) {
      this.#remove(chunk);
    } else {
      this.#free.push(chunk);
    }
  }

  /** Gives up a chunk that cannot be used again. */
  discard(chunk: StagingChunk, wasInFlight: boolean): void {
    this.#inFlight -= wasInFlight ? 1 : 0;
    this.#remove(chunk);
    this.#serve(this.#waiters.shift());
  }

  /** Destroys every chunk, also those in use: who waits for one gets an error. Idempotent. */
  destroy(): void {
    this.#destroyed = true;
    this.#free.length = 0;
    for (const chunk of [...this.#all]) {
      this.#remove(chunk);
    }
    for (const waiter of this.#waiters.splice(0)) {
      waiter.reject(this.#gpu.lost.error("transfer"));
    }
  }

  #remove(chunk: StagingChunk): void {
    if (this.#all.delete(chunk)) {
      this.#gpu.bufferBytes -= chunk.bytes;
    }
    chunk.destroy();
  }

  /** One waiter lost the chunk that it counted on: makes another one for it. */
  #serve(waiter: Waiter | undefined): void {
    if (waiter === undefined) {
      return;
    }
    try {
      const chunk = this.#free.pop() ?? this.#grow("transfer");
      if (chunk === undefined) {
        this.#waiters.push(waiter);
      } else {
        waiter.resolve(this.#proven(chunk, "transfer"));
      }
    } catch (error) {
      waiter.reject(error);
    }
  }

  /** Makes a chunk; undefined when the pool is full and one will come back for who waits. */
  #grow(op: string): StagingChunk | undefined {
    this.#gpu.lost.check(op);
    // Who reads back waits for nothing between taking a chunk and submitting it: each comes back, sooner or later.
    const comesBack = this.#kind === "download" || this.#inFlight > this.#waiters.length;
    if (this.#all.size >= this.#options.maxChunks && comesBack) {
      return undefined;
    }
    const { chunkBytes } = this.#options;
    const upload = this.#kind === "upload";
    const { device } = this.#gpu;
    try {
      // A buffer that is mapped from the start throws when there is no memory; another one says so to an error scope.
      if (!upload) {
        device.pushErrorScope("out-of-memory");
      }
      const buffer = device.createBuffer({
        label: `staging for ${this.#kind}`,
        size: chunkBytes,
        usage: upload ? BufferUsage.MapWrite | BufferUsage.CopySrc : BufferUsage.MapRead | BufferUsage.CopyDst,
        mappedAtCreation: upload,
      });
      const chunk = new StagingChunk(buffer, chunkBytes, upload ? new Uint8Array(buffer.getMappedRange()) : EMPTY);
      chunk.outOfMemory = upload ? undefined : device.popErrorScope();
      this.#all.add(chunk);
      this.#gpu.bufferBytes += chunkBytes;
      return chunk;
    } catch (error) {
      this.#gpu.lost.check(op);
      if (this.#inFlight > this.#waiters.length) {
        return undefined;
      }
      throw this.#noMemory(op, error);
    }
  }

  async #tracedWait(op: string, signal: AbortSignal | undefined): Promise<StagingChunk> {
    const since = traceNow();
    const chunk = await this.#waitForOne(op, signal);
    trace("gpu.throttle", { device: this.#gpu.label, pool: op }, since);
    return chunk;
  }

  #waitForOne(op: string, signal: AbortSignal | undefined): Promise<StagingChunk> {
    let waiter: Waiter | undefined;
    const promise = new Promise<StagingChunk>((resolve, reject) => {
      waiter = { resolve, reject };
      this.#waiters.push(waiter);
    });
    return this.#gpu.lost.wait(promise, op, { signal }).catch((error: unknown) => {
      const at = waiter === undefined ? -1 : this.#waiters.indexOf(waiter);
      if (at >= 0) {
        this.#waiters.splice(at, 1);
      } else {
        // The chunk arrived together with the end of the wait.
        promise.then(
          (chunk) => this.release(chunk, false),
          () => undefined,
        );
      }
      throw error;
    });
  }
}
