/** What svm mode keeps for a device: the pool of frames, the buffers of rounds, the page table of each address space. */
import { isPromise, KernelError, traceNow, traceOn, type VirtRange } from "../../../base/index.ts";
import { syncSpace } from "../../../mm/index.ts";
import type { MmapRead, WaitOptions } from "../../../sync/index.ts";
import type { WebGpuDevice } from "../device.ts";
import type { Extent } from "../extent.ts";
import { BUSY_MEMORY, type Retry } from "../gather.ts";
import { createGpuBuffer, type OwnedBuffer } from "../gpu-buffer.ts";
import type { DeviceMirror } from "../mirror.ts";
import { BufferUsage } from "../usage.ts";
import type { BoundRanges } from "./bound-ranges.ts";
import { ControlBuffers } from "./control.ts";
import { evictFrames, FramePool } from "./frame-pool.ts";
import { mappedFlags, pageOfAddr, SvmPte } from "./page-entry.ts";
import { Prefetcher } from "./prefetch.ts";
import { type Demand, Service } from "./service.ts";
import type { SvmFrame } from "./svm-frame.ts";
import { SvmTable } from "./svm-table.ts";
import { tracePrefetch, traceService } from "./trace-svm.ts";

/** What was submitted. Not complete: an invalidation took some pages back at once, which fault again. */
export interface Submission {
  readonly finished: Promise<void>;
  readonly complete: boolean;
}

/** How a submission waits, and what it has to bring beside the demanded pages. */
export interface SubmitOptions extends WaitOptions {
  readonly timeoutMs: number;
  readonly op: string;
  readonly bound?: BoundRanges | undefined;
}

/** Protected by the device's turn. */
export class SvmDevice {
  readonly device: WebGpuDevice;
  readonly pool: FramePool;
  readonly control: ControlBuffers;
  readonly prefetcher = new Prefetcher();
  readonly #tableBuffers = new Map<SvmTable, OwnedBuffer>();
  /** Pages that became device-private. */
  pagesMigrated = 0;
  /** Device pages that came beside those that were asked for. */
  pagesPrefetched = 0;
  /** Those of them that a kernel went on to use. */
  prefetchHits = 0;
  #stamp = 0;

  constructor(device: WebGpuDevice) {
    this.device = device;
    this.pool = new FramePool(device.gpu, device.budget);
    this.control = new ControlBuffers(device.gpu);
    device.onClose(() => this.#destroy());
  }

  /** A number for the work that frames are in use by. */
  nextStamp(): number {
    return ++this.#stamp;
  }

  /**
   * The page table of a space, up to date with its mappings, with a pool and a buffer to match. The pool leaves the
   * extents in `bound` alone.
   *
   * Locks: takes mmapLock, read.
   * @throws KernelError ENOMEM over deviceMemory; ENODEV; ESRCH
   */
  async tableOf(mirror: DeviceMirror, op: string, bound: ReadonlySet<Extent> = new Set()): Promise<SvmTable> {
    const table = mirror.frames instanceof SvmTable ? mirror.frames : this.#makeTable(mirror);
    {
      using _lock = await mirror.mm.mmapLock.read();
      mirror.mm.assertAlive(op);
      table.refresh();
      // What plain arrays wrote so far is to be seen, also in pages that the device has already.
      const synced = syncSpace(mirror.mm);
      if (isPromise(synced)) {
        await synced;
      }
    }
    await this.pool.grow(table.mappedPages, bound);
    await this.#tableBuffer(table);
    return table;
  }

  /** Notes advice for the device pages of a range. Locks: takes mmapLock, read. @throws KernelError ESRCH */
  async advise(mirror: DeviceMirror, range: VirtRange, advice: number, op: string): Promise<void> {
    const table = mirror.frames instanceof SvmTable ? mirror.frames : this.#makeTable(mirror);
    using _lock = await mirror.mm.mmapLock.read();
    mirror.mm.assertAlive(op);
    table.advise(pageOfAddr(range.start), pageOfAddr(range.end - 1) + 1, advice);
  }

  #makeTable(mirror: DeviceMirror): SvmTable {
    const table = new SvmTable(mirror, this.pool, this.device.fences, () => {
      this.#tableBuffers.get(table)?.destroy();
      this.#tableBuffers.delete(table);
    });
    mirror.frames = table;
    return table;
  }

  async #tableBuffer(table: SvmTable): Promise<void> {
    // Kernels take the last entry for pages past the end: it stays 0.
    const bytes = Math.ceil((table.pages + 1) / TABLE_ENTRIES) * TABLE_ENTRIES * 4;
    const former = this.#tableBuffers.get(table);
    if (former !== undefined && former.bytes >= bytes) {
      return;
    }
    const buffer = await createGpuBuffer(
      this.device.gpu,
      { label: "pagemirror page table", bytes, usage: BufferUsage.Storage | BufferUsage.CopyDst },
      "dispatch",
    );
    former?.destroy();
    this.#tableBuffers.set(table, buffer);
    if (table.pages > 0) {
      this.device.gpu.queue.writeBuffer(buffer.buffer, 0, table.entries as Uint32Array<ArrayBuffer>);
    }
  }

  pageTableBuffer(table: SvmTable): GPUBuffer {
    const buffer = this.#tableBuffers.get(table);
    if (buffer === undefined) {
      throw new KernelError("ENODEV", "dispatch", "the device was closed");
    }
    return buffer.buffer;
  }

  /** Writes the entries that changed; takes effect before what is submitted next. Under the update lock. */
  flushEntries(table: SvmTable): void {
    const buffer = this.pageTableBuffer(table);
    table.flushEntries((entries, first, end) => {
      this.device.gpu.queue.writeBuffer(buffer, first * 4, entries as Uint32Array<ArrayBuffer>, first, end - first);
    });
  }

  /**
   * Gives every demanded page a frame, evicting others' frames if it has to, and free frames to prefetched pages.
   * Returns the demands with the prefetches that found room.
   * @throws KernelError ENOMEM when frames cannot be had
   */
  async placeFrames(
    table: SvmTable,
    demands: readonly Demand[],
    prefetch: readonly Demand[],
    window: number,
  ): Promise<Demand[]> {
    const newcomers = demands.filter(({ page }) => table.frameAt(page) === undefined);
    const homeless = newcomers.length;
    const guessed = newcomers.filter(({ optional }) => optional).length;
    for (const { page, optional } of demands) {
      const frame = optional ? undefined : table.frameAt(page);
      if (frame !== undefined) {
        frame.window = window;
      }
    }
    while (this.pool.freeFrames < homeless) {
      // A few more than needed, so that dirty ones come home together; few enough that the rest of a small pool stays.
      const some = Math.min(EVICT_AT_ONCE, this.pool.capacity >> 4);
      const victims = this.pool.victims(Math.max(homeless - this.pool.freeFrames, some), window);
      if (victims.length === 0 && this.pool.freeFrames >= homeless - guessed) {
        break;
      }
      if (victims.length === 0) {
        throw new KernelError(
          "ENOMEM",
          "dispatch",
          `${homeless} device pages are needed and ${this.pool.freeFrames} of ${this.pool.capacity} frames can be had: raise deviceMemory`,
        );
      }
      await evictFrames(victims);
    }
    const placed: Demand[] = [];
    const wantedFirst = (a: Demand, b: Demand) => Number(a.optional ?? false) - Number(b.optional ?? false);
    for (const demand of [...demands].sort((a, b) => wantedFirst(a, b) || a.page - b.page)) {
      const isNew = table.frameAt(demand.page) === undefined;
      const frame = table.frameAt(demand.page) ?? table.place(demand.page);
      if (frame !== undefined && demand.optional) {
        this.#guess(frame, isNew);
        placed.push(demand);
      } else if (frame !== undefined) {
        frame.window = window;
        frame.referenced = true;
        frame.prefetched = false;
        placed.push(demand);
      }
    }
    for (const guess of prefetch) {
      const { page } = guess;
      const frame = table.frameAt(page) === undefined ? table.place(page) : undefined;
      if (frame !== undefined) {
        this.#guess(frame, true);
        placed.push(guess);
      }
    }
    if (traceOn && prefetch.length > 0) {
      tracePrefetch(
        this.device,
        table,
        prefetch.map(({ page }) => page),
      );
    }
    return placed;
  }

  /**
   * A frame that holds no page, for the caller's own use until FramePool.put. Undefined when none can be had.
   * Locks: the device's turn, held by the caller; takes update locks. @throws KernelError as SvmTable.evict
   */
  async takeFrame(): Promise<number | undefined> {
    const window = this.nextStamp();
    for (;;) {
      const frame = this.pool.take();
      const victims = frame === undefined ? this.pool.victims(1, window) : [];
      if (frame !== undefined || victims.length === 0) {
        return frame;
      }
      await evictFrames(victims);
    }
  }

  /** Its first use is to be noted; until then it is the first to go. */
  #guess(frame: SvmFrame, isNew: boolean): void {
    if (isNew) {
      frame.prefetched = true;
      frame.referenced = false;
      this.pagesPrefetched++;
    }
  }

  /**
   * Brings a range before a kernel asks for it, as much of it as the pool holds. Returns the device pages that came.
   *
   * Locks: the device's turn, held by the caller; as {@link submit}.
   * @throws KernelError those of {@link submit}
   */
  async prefetch(table: SvmTable, range: VirtRange, write: boolean, options: SubmitOptions): Promise<number> {
    const window = this.nextStamp();
    const wanted: Demand[] = [];
    const end = Math.min(table.pages, pageOfAddr(range.end - 1) + 1);
    for (let page = Math.max(0, pageOfAddr(range.start)); page < end && wanted.length < this.pool.capacity; page++) {
      const flags = mappedFlags(table.accessOf(page));
      if (flags !== 0 && (!write || flags & SvmPte.MappedWrite) && !table.isResident(page, write)) {
        wanted.push({ page, write });
      }
    }
    if (traceOn) {
      const pages = wanted.map(({ page }) => page);
      tracePrefetch(this.device, table, pages);
    }
    for (let i = 0; i < wanted.length; i += PREFETCH_AT_ONCE) {
      const demands = await this.placeFrames(table, wanted.slice(i, i + PREFETCH_AT_ONCE), [], window);
      const { finished } = await this.submit(table, demands, options, () => {});
      await finished;
    }
    return wanted.length;
  }

  /**
   * Brings pages, and submits what `encode` adds, in one submission. `encode` runs under the update lock, when the state
   * of pages and the entries agree.
   *
   * Locks: takes mmapLock, read, and the update lock.
   * @throws KernelError those of Service.gather; EBUSY leases or invalidations were in the way for too long; ENODEV; EINTR
   */
  async submit(
    table: SvmTable,
    demands: readonly Demand[],
    options: SubmitOptions,
    encode: (encoder: GPUCommandEncoder) => void,
  ): Promise<Submission> {
    const deadline = Date.now() + options.timeoutMs;
    let wanted = demands;
    for (;;) {
      const isGuessing = wanted.some((demand) => demand.optional);
      let tried: Submission | Retry;
      try {
        tried = await this.#try(table, wanted, options, encode);
      } catch (error) {
        if (!isGuessing) {
          throw error;
        }
        // Guesses may be pages that nobody can read.
        wanted = wanted.filter((demand) => !demand.optional);
        continue;
      }
      if (!("why" in tried)) {
        return tried;
      }
      this.device.counts.restarts++;
      if (isGuessing) {
        wanted = wanted.filter((demand) => !demand.optional);
        continue;
      }
      const left = deadline - Date.now();
      if (left <= 0 || !(await tried.wait({ signal: options.signal, timeoutMs: left }))) {
        throw new KernelError("EBUSY", options.op, `${tried.why} (tried for ${options.timeoutMs} ms)`);
      }
    }
  }

  async #try(
    table: SvmTable,
    demands: readonly Demand[],
    options: SubmitOptions,
    encode: (encoder: GPUCommandEncoder) => void,
  ): Promise<Submission | Retry> {
    const { mirror, mm } = table;
    const { signal, bound } = options;
    using lock: MmapRead = mm.mmapLock.tryRead() ?? (await mm.mmapLock.read({ signal }));
    mm.assertAlive(options.op);
    if (table.isStale) {
      table.refresh("as long as it is");
    }
    using batch = this.device.transfer.begin({ op: options.op, signal });
    using boundTry = await bound?.gather(lock, signal, batch);
    if (boundTry?.retry !== undefined) {
      return boundTry.retry;
    }
    const service = new Service(table, lock);
    try {
      // What is no longer mapped is for the kernel to find out, which can say where it was going.
      const mapped = demands.filter(
        ({ page, write, optional }) => table.isMapped(page, write) && !(optional && bound?.excludes(page, write)),
      );
      for (const { page, write } of mapped) {
        bound?.check(page, write);
      }
      const since = traceNow();
      const retry = await service.gather(mapped, batch);
      if (traceOn && mapped.length > 0) {
        traceService(this.device, table, service, mapped.length, since);
      }
      const late = retry ?? (await boundTry?.isolate(batch));
      if (late !== undefined) {
        return late;
      }
      using _update = mirror.update.tryLock() ?? (await mirror.update.lock({ signal }));
      const shown = boundTry?.commit();
      if (shown?.complete === false) {
        shown.undo();
        return { wait: () => Promise.resolve(true), why: BUSY_MEMORY };
      }
      const committed = service.commit();
      let finished: Promise<void>;
      try {
        this.flushEntries(table);
        encode(batch.encoder);
        finished = batch.submit();
      } catch (error) {
        service.undo();
        shown?.undo();
        throw error;
      }
      const serial = this.device.fences.record(finished);
      table.lastSerial = serial;
      const arrived = boundTry?.submitted(serial) ?? 0;
      committed.finish();
      this.device.counts.pagesUploaded += service.pagesUploaded;
      this.pagesMigrated += committed.pagesMigrated + arrived;
      return { finished, complete: committed.complete };
    } finally {
      service.abort();
    }
  }

  #destroy(): void {
    for (const buffer of this.#tableBuffers.values()) {
      buffer.destroy();
    }
    this.#tableBuffers.clear();
    this.control.destroy();
    this.pool.destroy();
  }
}

/** Device pages that a prefetch brings with one submission: 16 MiB. */
const PREFETCH_AT_ONCE = 1024;

/** The page table's buffer grows by so many entries: 64 MiB of memory. */
const TABLE_ENTRIES = 4096;

/** Frames given up together, so that dirty ones come home in few readbacks. */
const EVICT_AT_ONCE = 64;
