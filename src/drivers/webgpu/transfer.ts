/** Moves bytes between host memory and GPU buffers: reused staging, few commands, bounded memory. */
import type { GpuHandle } from "./gpu-handle.ts";
import type { GpuWaitOptions } from "./lost.ts";
import { type ReadbackRun, readBack } from "./readback.ts";
import { StagingPool } from "./staging-pool.ts";
import { TransferBatch, type TransferStats } from "./transfer-batch.ts";

const MIB = 1024 * 1024;

/** Sizes, for those who measured theirs. */
export interface TransferOptions {
  /** Bytes of a staging buffer, a multiple of 4. */
  readonly chunkBytes?: number;
  /** The most staging buffers to upload with; half as many, at least two, read back. */
  readonly maxChunks?: number;
}

/** What a batch or a readback takes. */
export interface TransferCallOptions extends GpuWaitOptions {
  /** The operation's name in errors. */
  readonly op?: string;
}

/**
 * The transfers of one device. Staging takes at most `chunkBytes * maxChunks * 1.5` bytes: 36 MiB unless told otherwise.
 */
export class TransferEngine {
  readonly #gpu: GpuHandle;
  readonly #uploads: StagingPool;
  readonly #downloads: StagingPool;
  readonly #stats: TransferStats = { bytesToDevice: 0, bytesToHost: 0, copies: 0, submits: 0 };

  constructor(gpu: GpuHandle, options: TransferOptions = {}) {
    const { chunkBytes = Math.min(4 * MIB, gpu.limits.maxBufferSize), maxChunks = 6 } = options;
    this.#gpu = gpu;
    this.#uploads = new StagingPool(gpu, "upload", { chunkBytes, maxChunks });
    this.#downloads = new StagingPool(gpu, "download", {
      chunkBytes,
      maxChunks: Math.max(2, Math.floor(maxChunks / 2)),
    });
  }

  /** Counts since the engine was made. */
  get stats(): Readonly<TransferStats> {
    return { ...this.#stats };
  }

  /** Bytes of staging that exist now. */
  get stagingBytes(): number {
    return this.#uploads.bytes + this.#downloads.bytes;
  }

  /** Starts to collect uploads and commands. Errors: ENODEV when the device is lost. */
  begin(options: TransferCallOptions = {}): TransferBatch {
    const { op = "upload", signal } = options;
    this.#gpu.lost.check(op);
    const pool = this.#uploads;
    return new TransferBatch({ gpu: this.#gpu, pool, stats: this.#stats, op, signal, flushBytes: 2 * pool.chunkBytes });
  }

  /**
   * Reads runs back, after everything that was submitted before.
   *
   * Errors: ENODEV when the device is or gets lost, EINTR when the signal fires, ENOMEM without memory for staging, and
   * what a `take` throws.
   */
  async readback(runs: readonly ReadbackRun[], options: TransferCallOptions = {}): Promise<void> {
    const { op = "readback", signal } = options;
    this.#gpu.lost.check(op);
    await readBack({ gpu: this.#gpu, pool: this.#downloads, stats: this.#stats, op, signal }, runs);
  }

  /** Destroys the staging. Transfers that are going on fail with ENODEV. Idempotent; call it before the device's end. */
  destroy(): void {
    this.#uploads.destroy();
    this.#downloads.destroy();
  }
}
