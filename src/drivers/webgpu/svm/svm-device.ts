/** What svm mode keeps for a device: the pool of frames, the buffers of rounds, the page table of each address space. */
import { isPromise, KernelError, traceNow, traceOn, type VirtRange } from "../../../base/index.ts";
import { syncSpace } from "../../../mm/index.ts";
import { type Held, type MmapRead, Mutex } from "../../../sync/index.ts";
import type { WebGpuDevice } from "../device.ts";
import { type Retry, TRY_AGAIN } from "../gather.ts";
import { createGpuBuffer, type OwnedBuffer } from "../gpu-buffer.ts";
import type { DispatchProgress } from "../kernel.ts";
import type { DeviceMirror } from "../mirror.ts";
import { BufferUsage } from "../usage.ts";
import { ControlBuffers } from "./control.ts";
import { bringNear } from "./far-pages.ts";
import { FramePlacer } from "./frame-placer.ts";
import { FramePool } from "./frame-pool.ts";
import { pageOfAddr } from "./page-entry.ts";
import { type Demand, Service } from "./service.ts";
import { APART, allowed, oneTogether, serve, servedOf, TRIES_TOGETHER } from "./serving.ts";
import { SvmTable } from "./svm-table.ts";
import { tracePrefetch, traceService } from "./trace-svm.ts";
import { FrameClaim, newTally, type SvmWork } from "./work.ts";

/** What was submitted. Not complete: an invalidation took some pages back at once, which fault again. */
export interface Submission {
  readonly finished: Promise<void>;
  readonly complete: boolean;
}

/** Bytes are on their way: with nothing held, wait for them. */
interface Coming {
  readonly coming: Promise<unknown>;
}

/**
 * Several dispatches work at once: each has the device's turn for reading, control buffers, and a claim on frames of its own.
 * What they share is protected by the placer's locks (frames), a mirror's update lock (what frames hold), and the table's
 * `uses` (its length).
 */
export class SvmDevice {
  readonly device: WebGpuDevice;
  readonly pool: FramePool;
  readonly placer: FramePlacer;
  /** How far the dispatches under way are. */
  readonly running = new Map<SvmWork, DispatchProgress>();
  readonly #controls: ControlBuffers[] = [];
  readonly #tableBuffers = new Map<SvmTable, OwnedBuffer>();
  /** Held by the tries of dispatches with bound ranges. */
  readonly #binding = new Mutex("x-svm-binding");
  #isClosed = false;

  constructor(device: WebGpuDevice) {
    this.device = device;
    this.pool = new FramePool(device.gpu, device.budget);
    this.placer = new FramePlacer(device, this.pool);
    device.onClose(() => this.#destroy());
  }

  /** Control buffers for one dispatch. Give them back with {@link putControl}. */
  takeControl(): ControlBuffers {
    return this.#controls.pop() ?? new ControlBuffers(this.device.gpu);
  }

  putControl(control: ControlBuffers): void {
    this.#isClosed ? control.destroy() : this.#controls.push(control);
  }

  /**
   * The page table of a space, up to date with its mappings, and with a buffer to match. Until the guard is released it keeps
   * its length, which the buffers of rounds are made for; a mapping past its end waits for that.
   *
   * Locks: takes mmapLock, read; returns with the table's `uses`, read.
   * @throws KernelError ENOMEM over deviceMemory; ENODEV; ESRCH; EINTR
   */
  async tableOf(
    mirror: DeviceMirror,
    op: string,
    signal?: AbortSignal,
  ): Promise<{ readonly table: SvmTable; readonly uses: Held<"x-svm-table", "read"> }> {
    const table = mirror.frames instanceof SvmTable ? mirror.frames : this.#makeTable(mirror);
    let uses = table.uses.tryRead() ?? (await table.uses.read({ signal }));
    try {
      if (!(await this.#refresh(table, op, false))) {
        uses.release();
        const alone = await table.uses.write({ signal });
        try {
          await this.#refresh(table, op, true);
          await this.#tableBuffer(table);
        } catch (error) {
          alone.release();
          throw error;
        }
        uses = alone.downgrade();
      }
      return { table, uses };
    } catch (error) {
      uses.release();
      throw error;
    }
  }

  /** False when the table is too short, and may not grow. */
  async #refresh(table: SvmTable, op: string, mayGrow: boolean): Promise<boolean> {
    using _lock = await table.mm.mmapLock.read();
    table.mm.assertAlive(op);
    if (!mayGrow && !table.reachesAll()) {
      return false;
    }
    table.refresh(mayGrow ? "grow" : "as long as it is");
    // What plain arrays wrote so far is to be seen, also in pages that the device has already.
    const synced = syncSpace(table.mm);
    if (isPromise(synced)) {
      await synced;
    }
    return true;
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
    const bytes = (table.pages + 1) * 4;
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
      this.device.gpu.queue.writeBuffer(buffer.buffer, 0, table.entries.words);
    }
  }

  /** What kernels read the table's entries in. @throws KernelError ENODEV the device was closed */
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
    table.entries.flush((words, first, end) => {
      this.device.gpu.queue.writeBuffer(buffer, first * 4, words, first, end - first);
    });
  }

  /**
   * Brings a range before a kernel asks for it, as much of it as the pool holds. Returns the device pages that came.
   *
   * Locks: the device's turn, read, held by the caller; the table's `uses`, and as {@link submit}.
   * @throws KernelError those of {@link submit}
   */
  async prefetch(
    mirror: DeviceMirror,
    range: VirtRange,
    write: boolean,
    waits: Pick<SvmWork, "op" | "signal" | "timeoutMs">,
  ): Promise<number> {
    const { table, uses } = await this.tableOf(mirror, waits.op, waits.signal);
    using _uses = uses;
    const work = { ...waits, claim: new FrameClaim(), tally: newTally() };
    this.placer.enter(new Set());
    try {
      return await this.#prefetch(table, range, write, work);
    } finally {
      this.placer.leave(new Set(), work.claim);
    }
  }

  async #prefetch(table: SvmTable, range: VirtRange, write: boolean, work: SvmWork): Promise<number> {
    await this.placer.grow(table.mappedPages, false, work.signal);
    const wanted: Demand[] = [];
    const end = Math.min(table.pages, pageOfAddr(range.end - 1) + 1);
    for (let page = Math.max(0, pageOfAddr(range.start)); page < end && wanted.length < this.pool.capacity; page++) {
      if (table.isMapped(page, write) && !table.isResident(page, write)) {
        wanted.push({ page, write });
      }
    }
    if (traceOn) {
      const pages = wanted.map(({ page }) => page);
      tracePrefetch(this.device, table, pages);
    }
    for (let i = 0; i < wanted.length; i += PREFETCH_AT_ONCE) {
      const demands = await this.placer.place(table, wanted.slice(i, i + PREFETCH_AT_ONCE), [], work);
      const { finished } = await this.submit(table, demands, work, () => {});
      await this.device.gpu.lost.wait(finished, work.op, { signal: work.signal });
    }
    return wanted.length;
  }

  /**
   * Brings pages, and submits what `encode` adds, in one submission. `encode` runs under the update lock, when the state
   * of pages and the entries agree. `together` asks for a moment in which all of the demanded pages are there.
   *
   * Locks: takes that of tries together, the placer's for serving, read; mmapLock, read; the update lock.
   * @throws KernelError those of Service.gather; EBUSY leases or invalidations were in the way for too long; ENODEV; EINTR
   */
  async submit(
    table: SvmTable,
    demands: readonly Demand[],
    work: SvmWork,
    encode: (encoder: GPUCommandEncoder) => void,
    together = false,
  ): Promise<Submission> {
    const deadline = Date.now() + work.timeoutMs;
    let tries = together ? TRIES_TOGETHER : 0;
    let wanted = demands;
    // Once: what has come and gone again is read where it is needed.
    let mayWait = true;
    for (;;) {
      const isGuessing = wanted.some((demand) => demand.optional);
      let tried: Submission | Retry | Coming | "being served";
      try {
        tried = await this.#try(table, wanted, work, encode, { mayWait, together: tries > 0 });
      } catch (error) {
        if (!isGuessing) {
          throw error;
        }
        // Guesses may be pages that nobody can read.
        wanted = wanted.filter((demand) => !demand.optional);
        continue;
      }
      if (tried === "being served") {
        // Another dispatch brings some of these pages: no reason to fail, however long that takes.
        const pages = wanted;
        await this.placer.served.wait(() => !servedOf(table, pages), { signal: work.signal });
        continue;
      }
      if ("coming" in tried) {
        mayWait = false;
        await this.device.gpu.lost.wait(tried.coming, work.op, { signal: work.signal });
        continue;
      }
      if (!("why" in tried)) {
        return tried;
      }
      this.device.counts.restarts++;
      work.tally.restarts++;
      if (isGuessing) {
        wanted = wanted.filter((demand) => !demand.optional);
        continue;
      }
      if (tried === APART) {
        tries = Date.now() < deadline ? tries - 1 : 0;
        continue;
      }
      const left = deadline - Date.now();
      if (left <= 0 || !(await tried.wait({ signal: work.signal, timeoutMs: left }))) {
        throw new KernelError("EBUSY", work.op, `${tried.why} (tried for ${work.timeoutMs} ms)`);
      }
    }
  }

  async #try(
    table: SvmTable,
    demands: readonly Demand[],
    work: SvmWork,
    encode: (encoder: GPUCommandEncoder) => void,
    { mayWait, together }: { readonly mayWait: boolean; readonly together: boolean },
  ): Promise<Submission | Retry | Coming | "being served"> {
    const { mirror, mm } = table;
    const { signal, bound, tally } = work;
    const { placer } = this;
    using _together = together ? await oneTogether(mm.memory).lock({ signal }) : undefined;
    // Two that bring the same range would not know whose bytes come last.
    using _bound = bound?.isEmpty === false ? await this.#binding.lock({ signal }) : undefined;
    using _serving = placer.serving.tryRead() ?? (await placer.serving.read({ signal }));
    using lock: MmapRead = mm.mmapLock.tryRead() ?? (await mm.mmapLock.read({ signal }));
    mm.assertAlive(work.op);
    if (table.isStale) {
      table.refresh("as long as it is");
    }
    if (servedOf(table, demands)) {
      return "being served";
    }
    const coming = mayWait ? bringNear(table, demands) : undefined;
    if (coming !== undefined) {
      return { coming };
    }
    // Others may have taken some since they were placed: those fault again.
    const placed = demands.filter(({ page }) => table.frameAt(page) !== undefined);
    const frames = placed.flatMap(({ page }) => table.frameAt(page) ?? []);
    using _served = serve(placer, frames);
    using batch = this.device.transfer.begin({ op: work.op, signal });
    using boundTry = bound?.attempt(lock, signal);
    const early = await boundTry?.gather(batch);
    if (early !== undefined) {
      return early;
    }
    const service = new Service(table, lock);
    try {
      const mapped = allowed(table, placed).filter(
        ({ page, write, optional }) => !(optional && bound?.excludes(page, write)),
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
        return TRY_AGAIN;
      }
      const committed = service.commit();
      if (together && !mapped.every(({ page, write }) => table.isResident(page, write))) {
        service.undo();
        shown?.undo();
        return APART;
      }
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
      for (const frame of frames) {
        if (frame.isGuess && table.isResident(frame.page, false)) {
          frame.isGuess = false;
          frame.isPrefetched = true;
          tally.pagesPrefetched++;
        }
      }
      const serial = this.device.fences.record(finished);
      table.lastSerial = serial;
      const arrived = boundTry?.submitted(serial) ?? 0;
      committed.finish();
      this.device.counts.pagesUploaded += service.pagesUploaded;
      tally.pagesUploaded += service.pagesUploaded;
      tally.pagesMigrated += committed.pagesMigrated + arrived;
      return { finished, complete: committed.complete };
    } finally {
      tally.bytesToDevice += batch.bytes;
      service.abort();
    }
  }

  #destroy(): void {
    this.#isClosed = true;
    for (const buffer of this.#tableBuffers.values()) {
      buffer.destroy();
    }
    this.#tableBuffers.clear();
    for (const control of this.#controls.splice(0)) {
      control.destroy();
    }
    this.pool.destroy();
  }
}

/** Device pages that a prefetch brings with one submission: 16 MiB. */
const PREFETCH_AT_ONCE = 1024;
