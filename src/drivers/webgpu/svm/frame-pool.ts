/** The pool of device frames that kernels in svm mode work in, shared by all address spaces of a device. */
import { KernelError } from "../../../base/index.ts";
import { createGpuBuffer, type OwnedBuffer } from "../gpu-buffer.ts";
import type { GpuHandle } from "../gpu-handle.ts";
import type { MemoryBudget } from "../memory-budget.ts";
import { BufferUsage } from "../usage.ts";
import { DEVICE_PAGE } from "./page-entry.ts";
import type { SvmFrame } from "./svm-table.ts";

export interface FramePoolStats {
  /** Frames that were given up for others, and the bytes that had to be brought home for it. */
  readonly evictions: number;
  readonly bytesEvicted: number;
}

/** Frame 0 is never handed out: it takes accesses that must go nowhere. */
const FIRST_FRAME = 1;

/** Protected by: the device's turn, but for the state of frames (see Extent). */
export class FramePool {
  readonly #gpu: GpuHandle;
  readonly #budget: MemoryBudget;
  /** What frames see as their buffer, whatever the pool has grown to. */
  readonly handle: OwnedBuffer;
  readonly #frames: (SvmFrame | undefined)[] = [];
  readonly #free: number[] = [];
  #buffer: OwnedBuffer | undefined;
  #capacity = 0;
  #hand = FIRST_FRAME;
  #evictions = 0;
  #bytesEvicted = 0;

  constructor(gpu: GpuHandle, budget: MemoryBudget) {
    this.#gpu = gpu;
    this.#budget = budget;
    const current = () => this.#current();
    this.handle = {
      get buffer() {
        return current().buffer;
      },
      get bytes() {
        return current().bytes;
      },
      destroy() {},
    };
  }

  #current(): OwnedBuffer {
    if (this.#buffer === undefined) {
      throw this.#gpu.lost.error("dispatch");
    }
    return this.#buffer;
  }

  /** Frames that can hold pages. */
  get capacity(): number {
    return Math.max(0, this.#capacity - FIRST_FRAME);
  }

  get freeFrames(): number {
    return this.#free.length;
  }

  get bytes(): number {
    return this.#capacity * DEVICE_PAGE;
  }

  get stats(): FramePoolStats {
    return { evictions: this.#evictions, bytesEvicted: this.#bytesEvicted };
  }

  /** The most frames that the adapter and the budget allow, the reserved one included. */
  get maxFrames(): number {
    const { maxStorageBufferBindingSize, maxBufferSize } = this.#gpu.limits;
    // SwiftShader refuses a buffer of exactly its own limit.
    return Math.floor(Math.min(maxStorageBufferBindingSize, maxBufferSize - 4096, this.#budget.limit) / DEVICE_PAGE);
  }

  /**
   * Makes room for `frames` pages, or as many as budget and adapter allow. Frames keep their content and number.
   * @throws KernelError ENOMEM when not even the smallest pool fits the budget; ENODEV
   */
  async grow(frames: number): Promise<void> {
    const wanted = Math.min(this.maxFrames, Math.max(FIRST_FRAME + frames, this.#capacity));
    if (wanted <= FIRST_FRAME) {
      throw new KernelError(
        "ENOMEM",
        "dispatch",
        `deviceMemory of ${this.#budget.limit} bytes holds no page: svm mode needs at least ${2 * DEVICE_PAGE}`,
      );
    }
    if (wanted <= this.#capacity) {
      return;
    }
    // Twice the size as it grows, so that many small mappings do not copy the pool each time.
    const target = Math.min(this.maxFrames, Math.max(wanted, Math.min(this.#capacity * 2, wanted * 2)));
    const bytes = target * DEVICE_PAGE;
    await this.#budget.reserve(bytes - this.bytes, new Set(), "the pool of svm frames");
    let next: OwnedBuffer;
    try {
      next = await createGpuBuffer(
        this.#gpu,
        { label: "pagemirror frames", bytes, usage: BufferUsage.Storage | BufferUsage.CopySrc | BufferUsage.CopyDst },
        "dispatch",
      );
    } catch (error) {
      this.#budget.release(bytes - this.bytes);
      throw error;
    }
    if (this.#buffer !== undefined) {
      const encoder = this.#gpu.device.createCommandEncoder({ label: "pagemirror frames" });
      encoder.copyBufferToBuffer(this.#buffer.buffer, 0, next.buffer, 0, this.bytes);
      this.#gpu.queue.submit([encoder.finish()]);
      this.#buffer.destroy();
    }
    for (let f = target - 1; f >= Math.max(FIRST_FRAME, this.#capacity); f--) {
      this.#free.push(f);
    }
    this.#buffer = next;
    this.#capacity = target;
  }

  /** A frame number, when one is free. */
  take(): number | undefined {
    return this.#free.pop();
  }

  put(frame: number): void {
    this.#frames[frame] = undefined;
    this.#free.push(frame);
  }

  setOwner(frame: number, owner: SvmFrame): void {
    this.#frames[frame] = owner;
  }

  ownerOf(frame: number): SvmFrame | undefined {
    return this.#frames[frame];
  }

  /** Frames that the running window asked for. */
  inUse(window: number): number {
    let count = 0;
    for (const frame of this.#frames) {
      count += frame?.window === window ? 1 : 0;
    }
    return count;
  }

  /**
   * Chooses up to `count` frames to give up: the clock passes over frames that were used since it last came by, and over
   * those of the running window; clean ones go first, since they cost nothing.
   */
  victims(count: number, window: number): SvmFrame[] {
    const clean: SvmFrame[] = [];
    const dirty: SvmFrame[] = [];
    // Two rounds: the first takes the mark of use away, the second takes what was not used since.
    for (let step = 0; step < 2 * this.capacity && clean.length < count; step++) {
      const frame = this.#frames[this.#hand];
      this.#hand = this.#hand + 1 < this.#capacity ? this.#hand + 1 : FIRST_FRAME;
      if (frame === undefined || frame.window === window || frame.chosen) {
        continue;
      }
      if (frame.referenced) {
        frame.referenced = false;
        continue;
      }
      frame.chosen = true;
      (frame.ownedPages === 0 ? clean : dirty).push(frame);
    }
    const victims = [...clean, ...dirty].slice(0, count);
    for (const frame of [...clean, ...dirty]) {
      frame.chosen = false;
    }
    this.#evictions += victims.length;
    return victims;
  }

  noteEvicted(bytes: number): void {
    this.#bytesEvicted += bytes;
  }

  /** Frees the buffer. All frames were given back, or the device is lost. */
  destroy(): void {
    this.#buffer?.destroy();
    this.#buffer = undefined;
    this.#budget.release(this.bytes);
    this.#capacity = 0;
    this.#free.length = 0;
    this.#frames.length = 0;
  }
}
