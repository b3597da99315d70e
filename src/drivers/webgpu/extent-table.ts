/** The extents of one mirror: made to fit what is bound, merged as bindings grow, evicted under the device's budget. */
import { formatRange, KernelError, PAGE_SIZE, type VirtAddr, type VirtRange } from "../../base/index.ts";
import { RangeMap } from "../../collections/index.ts";
import {
  type DevicePagemap,
  PageFlag,
  PteKind,
  pteIsKind,
  pteOfKind,
  ptePfn,
  rewriteEntries,
  waitWhileBusy,
} from "../../mm/index.ts";
import { type Mutex, WaitQueue } from "../../sync/index.ts";
import { Extent, PageState } from "./extent.ts";
import type { FenceTimeline } from "./fence.ts";
import { createGpuBuffer, type OwnedBuffer } from "./gpu-buffer.ts";
import type { GpuHandle } from "./gpu-handle.ts";
import type { MemoryBudget } from "./memory-budget.ts";
import { BufferUsage } from "./usage.ts";
import { bringHome } from "./way-home.ts";

/** What a table needs of its mirror and device. */
export interface ExtentContext {
  readonly gpu: GpuHandle;
  readonly fences: FenceTimeline;
  readonly budget: MemoryBudget;
  readonly pagemap: DevicePagemap;
  readonly update: Mutex<"update">;
}

/** The extents of one mirror, by address and by frame. */
export class ExtentTable {
  readonly #context: ExtentContext;
  readonly #byAddress = new RangeMap<Extent>();
  readonly #byFrame = new RangeMap<Extent>();
  /** Woken when a readback of an extent ends. */
  readonly readbacksDone = new WaitQueue();

  constructor(context: ExtentContext) {
    this.#context = context;
  }

  get size(): number {
    return this.#byAddress.size;
  }

  /** The extent that holds a device frame. */
  ofFrame(frame: number): Extent | undefined {
    return this.#byFrame.find(frame);
  }

  /** Extents that overlap `[start, end)`, by rising address. */
  *overlapping(start: number, end: number): IterableIterator<Extent> {
    for (const extent of this.#byAddress.values(start)) {
      if (extent.start >= end) {
        return;
      }
      yield extent;
    }
  }

  all(): Extent[] {
    return [...this.#byAddress.values()];
  }

  /** The extent that contains the whole range, if there is one. */
  containing(range: VirtRange): Extent | undefined {
    const extent = this.#byAddress.find(range.start);
    return extent !== undefined && extent.end >= range.end ? extent : undefined;
  }

  /**
   * Makes one extent contain the range: the one that does, or a new one over the range and everything it overlaps, which
   * takes over what the former ones hold. `what` names it in errors.
   *
   * Locks: the device's turn, held by the caller; takes the update lock.
   * @throws KernelError ENOMEM over the budget, or the GPU's memory; EINVAL over the adapter's buffer size; ENODEV
   */
  async ensure(range: VirtRange, keep: ReadonlySet<Extent>, what: string): Promise<Extent> {
    const found = this.containing(range);
    if (found !== undefined) {
      found.unmapped = false;
      return found;
    }
    await this.reap();
    const former = [...this.overlapping(range.start, range.end)];
    if (former.length === 0) {
      return this.#create(range, keep, [], what);
    }
    const hull = {
      start: Math.min(range.start, ...former.map((extent) => extent.start)) as VirtAddr,
      end: Math.max(range.end, ...former.map((extent) => extent.end)) as VirtAddr,
    };
    const all = new Set([...keep, ...former]);
    const { budget, gpu } = this.#context;
    const bytes = hull.end - hull.start;
    // Old and new exist side by side while one is copied into the other.
    if (bytes <= gpu.limits.maxBufferSize && budget.couldHold(bytes + sumBytes(all))) {
      return this.#create(hull, all, former, what);
    }
    for (const extent of former) {
      await this.evict(extent);
    }
    return this.#create(range, keep, [], what);
  }

  async #create(range: VirtRange, keep: ReadonlySet<Extent>, former: readonly Extent[], what: string): Promise<Extent> {
    const { budget, gpu, pagemap, update } = this.#context;
    const bytes = range.end - range.start;
    await budget.reserve(bytes, keep, what);
    let frame: number | undefined;
    let buffer: OwnedBuffer | undefined;
    try {
      frame = pagemap.addFrames(bytes / PAGE_SIZE);
      buffer = await createGpuBuffer(
        gpu,
        {
          label: `pagemirror ${formatRange(range)}`,
          bytes,
          usage: BufferUsage.Storage | BufferUsage.CopySrc | BufferUsage.CopyDst,
        },
        "dispatch",
      );
      const extent = new Extent(range, buffer, frame);
      for (;;) {
        for (const old of former) {
          await this.#quiesce(old);
        }
        using _lock = await update.lock();
        if (former.every((old) => this.#isQuiet(old))) {
          for (const old of former) {
            this.#adopt(old, extent);
          }
          this.#byAddress.insert(range.start, range.end, extent);
          this.#byFrame.insert(frame, frame + extent.pages, extent);
          return extent;
        }
      }
    } catch (error) {
      buffer?.destroy();
      if (frame !== undefined) {
        pagemap.removeFrames(frame, bytes / PAGE_SIZE);
      }
      budget.release(bytes);
      throw error;
    }
  }

  /** Waits for pages of the extent that are on their way home: they are known by the frames that they leave. */
  async #quiesce(extent: Extent): Promise<void> {
    for (const run of extent.ownedRuns()) {
      await waitWhileBusy(run.object, run.page, run.page + run.count);
    }
    await this.readbacksDone.wait(() => extent.readbacks === 0);
  }

  #isQuiet(extent: Extent): boolean {
    return (
      extent.readbacks === 0 &&
      extent.ownedRuns().every((run) => !(run.object.flagSummary(run.page, run.page + run.count) & PageFlag.Busy))
    );
  }

  /** Moves everything an extent holds into one that contains it, on the GPU. */
  #adopt(old: Extent, into: Extent): void {
    const { gpu, pagemap } = this.#context;
    const shift = into.pageAt(old.start);
    const encoder = gpu.device.createCommandEncoder({ label: "pagemirror extent merge" });
    gpu.direct?.noteGpuWrite(into.buffer.buffer);
    encoder.copyBufferToBuffer(old.buffer.buffer, 0, into.buffer.buffer, shift * PAGE_SIZE, old.bytes);
    gpu.queue.submit([encoder.finish()]);
    into.state.set(
      old.state.map((bits) => bits & ~PageState.Owned),
      shift,
    );
    for (const run of old.ownedRuns()) {
      into.own(shift + run.at, shift + run.at + run.count, run.object, run.page);
      into.update(shift + run.at, shift + run.at + run.count, 0, PageState.Valid | PageState.Write);
      for (let i = 0; i < run.count; i++) {
        into.state[shift + run.at + i] |= old.state[run.at + i] & (PageState.Valid | PageState.Write);
        run.object.setDevicePfn(run.page + i, pagemap.pfnOf(into.frame + shift + run.at + i));
      }
      rewriteEntries(run.object, run.page, run.page + run.count, (pte, _vma, page) =>
        pteIsKind(pte, PteKind.DevicePrivate) && pagemap.frameOf(ptePfn(pte)) !== undefined
          ? pteOfKind(PteKind.DevicePrivate, run.object.devicePfnOf(page), (pte & 2) as 0 | 2)
          : pte,
      );
    }
    old.disown(0, old.pages);
    into.lastSerial = Math.max(into.lastSerial, old.lastSerial);
    this.#remove(old);
  }

  #remove(extent: Extent): void {
    const { budget, pagemap } = this.#context;
    this.#byAddress.delete(extent.start);
    this.#byFrame.delete(extent.frame);
    extent.buffer.destroy();
    pagemap.removeFrames(extent.frame, extent.pages);
    budget.release(extent.bytes);
  }

  /**
   * Brings everything that only this extent holds home, and frees its buffer. Returns the bytes that came home.
   * @throws KernelError ENOMEM when the host has no room; the extent stays then
   */
  async evict(extent: Extent): Promise<number> {
    let bytes = 0;
    for (;;) {
      const runs = extent.ownedRuns();
      for (const run of runs) {
        await bringHome(run.object, run.page, run.page + run.count, "evict");
        bytes += run.count * PAGE_SIZE;
      }
      await this.#quiesce(extent);
      if (!this.#context.fences.isDone(extent.lastSerial)) {
        await this.#context.fences.idle();
      }
      using _lock = await this.#context.update.lock();
      if (this.#byAddress.find(extent.start) !== extent) {
        return bytes;
      }
      if (extent.ownedPages === 0 && extent.readbacks === 0) {
        this.#remove(extent);
        return bytes;
      }
    }
  }

  /** Frees extents whose addresses were unmapped and that hold nobody's only copy. */
  async reap(): Promise<void> {
    for (const extent of this.all()) {
      if (extent.unmapped && extent.ownedPages === 0) {
        await this.evict(extent);
      }
    }
  }

  /** After the loss of the device: the buffers are gone; `poison` gets what only they held. */
  dropAll(poison: (extent: Extent) => void): void {
    for (const extent of this.all()) {
      poison(extent);
      extent.disown(0, extent.pages);
      extent.update(0, extent.pages, 0, PageState.Valid | PageState.Write);
      extent.unmapped = true;
    }
  }
}

function sumBytes(extents: Iterable<Extent>): number {
  let bytes = 0;
  for (const extent of extents) {
    bytes += extent.bytes;
  }
  return bytes;
}

/** Says that one mapping cannot be bound as asked. */
export function bindConflict(a: string, b: string): KernelError {
  return new KernelError(
    "EINVAL",
    "dispatch",
    `${a} and ${b} bind the same memory and one of them writes it: WebGPU forbids that; bind ranges that share no 4096-byte page, or use one variable`,
  );
}
