/** One device's mirror of one address space: the device page table, and invalidation. */
import { finallyDo, type MaybePromise, type VirtRange } from "../../base/index.ts";
import { HmmMirror, type HmmMirrorOps } from "../../hmm/index.ts";
import {
  type AddressSpace,
  DevicePagemap,
  type DevicePagemapOps,
  forEachPart,
  type MmuNotifierRange,
  PageFlag,
  type PartedRange,
  poisonPages,
} from "../../mm/index.ts";
import { Mutex } from "../../sync/index.ts";
import type { Extent } from "./extent.ts";
import { ExtentTable } from "./extent-table.ts";
import type { FenceTimeline } from "./fence.ts";
import type { GpuHandle } from "./gpu-handle.ts";
import type { MemoryBudget } from "./memory-budget.ts";
import { migrateToRam } from "./migrate-to-ram.ts";
import { OpenWaits } from "./open-waits.ts";
import type { TransferEngine } from "./transfer.ts";

/** Extents that an svm dispatch made: one a device page, in a pool that all spaces of the device share. */
export interface FrameStore {
  overlapping(start: number, end: number): Iterable<Extent>;
  ofFrame(frame: number): Extent | undefined;
  /** Mappings of a range go, or lose permissions. */
  noteMappings(range: VirtRange, event: "unmap" | "protection-vma"): void;
  /** The device is lost: forget everything; `poison` gets what only it held. */
  dropAll(poison: (extent: Extent) => void): void;
  /** Brings everything home and gives the frames back; returns the bytes that came home. */
  close(): Promise<number>;
}

/** A range whose pages are on their way into device memory of a kind. */
export type Isolation = VirtRange & { readonly into: "extents" | "frames" };

/** The kind of device memory that an invalidation of the mirror's own spares. */
type Kept = "extents" | "frames" | undefined;

/** What a mirror needs of its device. */
export interface MirrorContext {
  readonly gpu: GpuHandle;
  readonly fences: FenceTimeline;
  readonly budget: MemoryBudget;
  readonly transfer: TransferEngine;
  /** The address space has exited; called from its release callback. */
  onExit(mirror: DeviceMirror): void;
}

/**
 * Lock order: `update` is the innermost lock. Invalidations take it, wait for the device under it, and drop entries;
 * a dispatch takes it to check that its ranges are still valid and to submit. So either the submission's fence is seen
 * by the invalidation, or the invalidation by the submission.
 */
export class DeviceMirror {
  readonly mm: AddressSpace;
  readonly hmm: HmmMirror;
  readonly pagemap: DevicePagemap;
  readonly extents: ExtentTable;
  readonly update = new Mutex("update");
  readonly waits = new OpenWaits();
  /** Frames of the pool for kernels that follow pointers; made by the first of them. */
  frames: FrameStore | undefined;
  /**
   * Ranges that this mirror is isolating for migrations, and where their pages go: its own announcements need not drop the
   * copies there, which it reuses.
   */
  readonly #isolating = new Set<Isolation>();
  readonly #context: MirrorContext;
  #pfns = new Uint32Array(0);
  #closed: Promise<number> | undefined;

  constructor(context: MirrorContext, mm: AddressSpace) {
    this.#context = context;
    this.mm = mm;
    const pagemapOps: DevicePagemapOps = {
      migrateToRam: (runs, take) => migrateToRam(this, context, runs, take),
      pageFree: (frame, count) => this.#pageFree(frame, count),
    };
    this.pagemap = new DevicePagemap(mm.memory, this, pagemapOps);
    const ops: HmmMirrorOps = {
      name: context.gpu.label,
      syncCpuDevicePagetables: (_mirror, update) => this.#sync(update),
      release: () => this.#release(),
    };
    this.hmm = new HmmMirror(ops);
    this.extents = new ExtentTable({
      gpu: context.gpu,
      fences: context.fences,
      budget: context.budget,
      pagemap: this.pagemap,
      update: this.update,
    });
  }

  get isLost(): boolean {
    return this.#context.gpu.lost.isLost;
  }

  /** Room for the entries of a fault, used again by the next one: their values are good only until then. */
  scratchPfns(pages: number): Uint32Array {
    if (this.#pfns.length < pages) {
      this.#pfns = new Uint32Array(pages);
    }
    return this.#pfns;
  }

  /** amdgpu's way: wait for the fence, then drop what the device knows about the pages. */
  #sync(update: MmuNotifierRange): MaybePromise<0 | "EAGAIN"> {
    if (update.event === "unmap" || update.event === "protection-vma") {
      this.frames?.noteMappings(update, update.event);
    }
    if (update.owner === this && update.event === "protection-page") {
      // The host's pages are protected for copies that are about to be made; what is valid stays so.
      return 0;
    }
    const kept = update.owner === this ? this.#isolationOf(update)?.into : undefined;
    let serial = -1;
    for (const extent of this.#overlapping(update, kept)) {
      serial = Math.max(serial, extent.lastSerial);
    }
    if (serial < 0) {
      return 0;
    }
    const guard = this.update.tryLock();
    if (guard !== undefined && this.#context.fences.isDone(serial)) {
      this.#drop(update, kept);
      guard.release();
      return 0;
    }
    if (!update.blockable) {
      guard?.release();
      return "EAGAIN";
    }
    return this.#waitAndDrop(update, kept, guard);
  }

  #isolationOf({ start, end }: VirtRange): Isolation | undefined {
    for (const range of this.#isolating) {
      if (start >= range.start && end <= range.end) {
        return range;
      }
    }
    return undefined;
  }

  /** Isolates pages of a range that become the device's own. */
  isolate<T>(range: Isolation, isolate: () => MaybePromise<T>): MaybePromise<T> {
    this.#isolating.add(range);
    return finallyDo(isolate, () => this.#isolating.delete(range));
  }

  async #waitAndDrop(update: MmuNotifierRange, kept: Kept, held: Disposable | undefined): Promise<0> {
    using _guard = held ?? (await this.update.lock());
    for (const extent of this.#overlapping(update, kept)) {
      if (!this.#context.fences.isDone(extent.lastSerial)) {
        await this.#context.fences.idle();
      }
    }
    this.#drop(update, kept);
    return 0;
  }

  /** Only the copy of a page that the host has too is forgotten; what is device-private stays until it is asked for. */
  #drop(update: MmuNotifierRange, kept: Kept): void {
    for (const extent of this.#overlapping(update, kept)) {
      extent.drop(update);
      extent.epoch++;
      if (update.event === "unmap" && update.start <= extent.start && update.end >= extent.end) {
        extent.unmapped = true;
      }
    }
  }

  /** On return the device uses nothing of the address space. Unregistration is left to the device, later. */
  async #release(): Promise<void> {
    await this.#context.fences.idle();
    this.#context.onExit(this);
  }

  /** Extents that hold pages of the range, of every kind but the one to be kept as it is. */
  #overlapping(range: PartedRange, kept: Kept): Iterable<Extent> {
    const only = this.frames === undefined && kept !== "extents" ? this.extents.containing(range) : undefined;
    if (only !== undefined) {
      // The usual case, a page or a few inside one extent, makes no iterators.
      return [only];
    }
    const found = new Set<Extent>();
    forEachPart(range, (start, end) => {
      if (kept !== "extents") {
        for (const extent of this.extents.overlapping(start, end)) {
          found.add(extent);
        }
      }
      if (kept !== "frames" && this.frames !== undefined) {
        for (const frame of this.frames.overlapping(start, end)) {
          found.add(frame);
        }
      }
    });
    return found;
  }

  /** What holds a frame of the pagemap. */
  ofFrame(frame: number): Extent | undefined {
    return this.extents.ofFrame(frame) ?? this.frames?.ofFrame(frame);
  }

  #pageFree(frame: number, count: number): void {
    for (let f = frame; f < frame + count; ) {
      const extent = this.ofFrame(f);
      if (extent === undefined) {
        return;
      }
      const page = f - extent.frame;
      const stop = Math.min(extent.pages, page + (frame + count - f));
      extent.disown(page, stop);
      f = extent.frame + stop;
    }
  }

  /** The device is lost: whatever only it held is reported lost to whoever touches it. */
  poison(): void {
    const poison = (extent: Extent) => {
      for (const { object, page, count } of extent.ownedRuns()) {
        for (let p = page; p < page + count; p++) {
          // A page in transit is poisoned by whoever moves it, when he finds out.
          if (!(object.flagsOf(p) & PageFlag.Busy)) {
            poisonPages(object, p, p + 1);
          }
        }
      }
    };
    this.extents.dropAll(poison);
    this.frames?.dropAll(poison);
  }

  /**
   * Brings everything home and ends the subscription. No dispatch is running or will come.
   * Idempotent: the exit of its address space and the end of its device may both ask for it.
   * @throws KernelError ENOMEM when the host has no room for some pages: they are lost, all else is done
   */
  close(): Promise<number> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  async #close(): Promise<number> {
    let bytes = 0;
    let failure: { readonly error: unknown } | undefined;
    const attempt = async (step: () => Promise<number> | undefined) => {
      try {
        bytes += (await step()) ?? 0;
      } catch (error) {
        failure ??= { error };
      }
    };
    await attempt(() => this.frames?.close());
    for (const extent of this.extents.all()) {
      await attempt(() => this.extents.evict(extent));
    }
    if (failure !== undefined) {
      this.poison();
      await attempt(() => this.frames?.close());
      for (const extent of this.extents.all()) {
        await attempt(() => this.extents.evict(extent));
      }
    }
    await this.waits.end();
    await this.hmm.unregister();
    if (failure !== undefined) {
      throw failure.error;
    }
    return bytes;
  }
}
