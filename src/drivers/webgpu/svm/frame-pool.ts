/** The pool of device frames that kernels in svm mode work in, shared by all address spaces of a device. */
import { KernelError } from "../../../base/index.ts";
import type { Extent } from "../extent.ts";
import { createGpuBuffer, type OwnedBuffer } from "../gpu-buffer.ts";
import type { GpuHandle } from "../gpu-handle.ts";
import type { MemoryBudget } from "../memory-budget.ts";
import { BufferUsage } from "../usage.ts";
import { DEVICE_PAGE } from "./page-entry.ts";
import type { SvmFrame } from "./svm-frame.ts";
import type { SvmTable } from "./svm-table.ts";
import type { FrameClaim } from "./work.ts";

/** Frames whose states are made together. */
const STATES = 1024;

/** Frames to choose from, for each that is to be given up. */
const CHOICE = 4;

/** Frame 0 is never handed out: it takes accesses that must go nowhere. */
const FIRST_FRAME = 1;

/** Protected by: the placer's lock, or the device's turn for writing, but for the state of frames (see Extent). */
export class FramePool {
  readonly #gpu: GpuHandle;
  readonly #budget: MemoryBudget;
  /** What frames see as their buffer, whatever the pool has grown to. */
  readonly handle: OwnedBuffer;
  readonly #frames: (SvmFrame | undefined)[] = [];
  readonly #free: number[] = [];
  /** Words for the state of frames: a buffer of its own for each would be most of the work of making one. */
  #states = new Uint32Array(0);
  #statesUsed = 0;
  #buffer: OwnedBuffer | undefined;
  #capacity = 0;
  #hand = FIRST_FRAME;
  /** Makes way for nobody while it grows. */
  #growing = false;
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

  /** What had to be brought home so that frames could be given up. */
  get bytesEvicted(): number {
    return this.#bytesEvicted;
  }

  /** The most frames that the adapter and the budget allow, the reserved one included. */
  get maxFrames(): number {
    const { maxStorageBufferBindingSize, maxBufferSize } = this.#gpu.limits;
    // SwiftShader refuses a buffer of exactly its own limit.
    return Math.floor(Math.min(maxStorageBufferBindingSize, maxBufferSize - 4096, this.#budget.limit) / DEVICE_PAGE);
  }

  /**
   * Makes room for `frames` pages, or as many as adapter and budget allow beside `bound`. Frames keep their content, unless
   * old and new do not fit the budget together: then what they hold comes home first.
   *
   * Locks: the placer's, for placing and (for writing) for serving, held by the caller.
   * @throws KernelError ENOMEM when not even the smallest pool fits the budget; ENODEV
   */
  async grow(frames: number, bound: ReadonlySet<Extent> = new Set()): Promise<void> {
    if (this.#capacity >= FIRST_FRAME + frames && this.#capacity > FIRST_FRAME) {
      return;
    }
    const target = this.#targetFor(FIRST_FRAME + Math.max(1, frames), bound);
    if (target <= FIRST_FRAME) {
      throw new KernelError(
        "ENOMEM",
        "dispatch",
        `deviceMemory of ${this.#budget.limit} bytes, ${sumBytes(bound)} of them for bound ranges, holds no page: svm mode needs at least ${2 * DEVICE_PAGE}`,
      );
    }
    if (target <= this.#capacity) {
      return;
    }
    this.#growing = true;
    try {
      await this.#replace(target, bound);
    } finally {
      this.#growing = false;
    }
  }

  /** How large to become: extents that are not bound now make way for half of the budget, and are left alone beyond. */
  #targetFor(wanted: number, bound: ReadonlySet<Extent>): number {
    const { limit, used } = this.#budget;
    const frames = (bytes: number) => Math.min(this.maxFrames, Math.max(0, Math.floor(bytes / DEVICE_PAGE)));
    const most = frames(limit - sumBytes(bound));
    const unused = frames(limit - used + this.bytes);
    const room = Math.min(most, Math.max(unused, frames(limit / 2)));
    // Twice the size as it grows, so that many small mappings do not copy the pool each time.
    const doubled = Math.min(room, Math.max(wanted, Math.min(this.#capacity * 2, wanted * 2)));
    // The last time it grows is the one where old and new do not fit beside each other.
    return (doubled + this.#capacity) * DEVICE_PAGE + sumBytes(bound) > limit ? room : doubled;
  }

  async #replace(target: number, bound: ReadonlySet<Extent>): Promise<void> {
    const bytes = target * DEVICE_PAGE;
    if (bytes + this.bytes + sumBytes(bound) > this.#budget.limit) {
      await this.#empty();
    }
    await this.#budget.reserve(bytes, bound, "the pool of svm frames");
    let next: OwnedBuffer;
    try {
      next = await createGpuBuffer(
        this.#gpu,
        { label: "pagemirror frames", bytes, usage: BufferUsage.Storage | BufferUsage.CopySrc | BufferUsage.CopyDst },
        "dispatch",
      );
    } catch (error) {
      this.#budget.release(bytes);
      throw error;
    }
    // Pages on their way home are copied from the buffer that they were in when they left.
    for (let busy = this.#leaving(); busy !== undefined; busy = this.#leaving()) {
      const frame = busy;
      await frame.table.mirror.extents.readbacksDone.wait(() => frame.readbacks === 0);
    }
    if (this.#buffer !== undefined) {
      const encoder = this.#gpu.device.createCommandEncoder({ label: "pagemirror frames" });
      encoder.copyBufferToBuffer(this.#buffer.buffer, 0, next.buffer, 0, this.bytes);
      this.#gpu.queue.submit([encoder.finish()]);
      this.#buffer.destroy();
      this.#budget.release(this.bytes);
    }
    for (let f = target - 1; f >= Math.max(FIRST_FRAME, this.#capacity); f--) {
      this.#free.push(f);
    }
    this.#buffer = next;
    this.#capacity = target;
  }

  #leaving(): SvmFrame | undefined {
    return this.#frames.find((frame) => frame !== undefined && frame.readbacks > 0);
  }

  /**
   * Gives all memory back, for others. False when there is none to give.
   *
   * Locks: the device's turn, held for writing by the caller; takes update locks.
   * @throws KernelError ENOMEM when the host has no room for what only the device has; the rest stays
   */
  async makeWay(): Promise<boolean> {
    if (this.#growing || this.#capacity === 0) {
      return false;
    }
    await this.#empty();
    return true;
  }

  async #empty(): Promise<void> {
    for (;;) {
      const frames = this.#frames.filter((frame) => frame !== undefined);
      if (frames.length === 0) {
        break;
      }
      await evictFrames(frames);
    }
    this.destroy();
  }

  /** A frame number, when one is free. */
  take(): number | undefined {
    return this.#free.pop();
  }

  put(frame: number): void {
    this.#frames[frame] = undefined;
    this.#free.push(frame);
  }

  /** Room for the state of a frame's pages, all zero, that no other frame has or had. */
  freshState(): Uint32Array<ArrayBuffer> {
    if (this.#statesUsed === this.#states.length) {
      this.#states = new Uint32Array(STATES);
      this.#statesUsed = 0;
    }
    return this.#states.subarray(this.#statesUsed, ++this.#statesUsed);
  }

  setOwner(frame: number, owner: SvmFrame): void {
    this.#frames[frame] = owner;
  }

  ownerOf(frame: number): SvmFrame | undefined {
    return this.#frames[frame];
  }

  /** Whether frames cannot be had only because others have claimed them, or bring pages to them. */
  isCrowded(claim: FrameClaim): boolean {
    return this.#frames.some(
      (frame) => frame !== undefined && !claim.covers(frame) && (frame.claims > 0 || frame.isServed),
    );
  }

  someServed(): boolean {
    return this.#frames.some((frame) => frame?.isServed);
  }

  /**
   * Chooses up to `count` frames to give up: the clock passes over frames that were used since it last came by, and over
   * those that running slices have claimed, unless only its own claims count; clean ones go first, since they cost nothing.
   * Those that were advised to stay here go when there are no others.
   */
  victims(count: number, claim: FrameClaim, overClaims: boolean): SvmFrame[] {
    const clean: SvmFrame[] = [];
    const dirty: SvmFrame[] = [];
    const preferred = new Set<SvmFrame>();
    // Two rounds: the first takes the mark of use away, the second takes what was not used since. Among a few times as many
    // as are wanted, clean ones are preferred; not among all, which would be the used ones before the unused.
    const enough = () => clean.length >= count || clean.length + dirty.length >= CHOICE * count;
    for (let step = 0; step < 2 * this.#capacity && !enough(); step++) {
      const frame = this.#frames[this.#hand];
      this.#hand = this.#hand + 1 < this.#capacity ? this.#hand + 1 : FIRST_FRAME;
      if (frame === undefined || frame.chosen || frame.isServed || claim.covers(frame)) {
        continue;
      }
      if (frame.claims > 0 && !overClaims) {
        continue;
      }
      if (frame.isPreferred) {
        preferred.add(frame);
        continue;
      }
      if (frame.referenced) {
        frame.referenced = false;
        continue;
      }
      frame.chosen = true;
      (frame.ownedPages === 0 ? clean : dirty).push(frame);
    }
    const others = [...clean, ...dirty];
    for (const frame of others) {
      frame.chosen = false;
    }
    return (others.length > 0 ? others : [...preferred]).slice(0, count);
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
    this.#hand = FIRST_FRAME;
    this.#free.length = 0;
    this.#frames.length = 0;
  }
}

/** {@link SvmTable.evict} of frames of any spaces. @throws KernelError as that */
export async function evictFrames(frames: readonly SvmFrame[]): Promise<number> {
  const groups = new Map<SvmTable, SvmFrame[]>();
  for (const frame of frames) {
    const group = groups.get(frame.table) ?? [];
    groups.set(frame.table, group);
    group.push(frame);
  }
  let evicted = 0;
  for (const [table, group] of groups) {
    const went = await table.evict(group);
    evicted += went;
  }
  return evicted;
}

function sumBytes(extents: Iterable<Extent>): number {
  let bytes = 0;
  for (const extent of extents) {
    bytes += extent.bytes;
  }
  return bytes;
}
