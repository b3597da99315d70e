/**
 * Serving device faults, nouveau's way: sort, coalesce into ranges, fault through HMM or migrate, check under the update
 * lock, map.
 */
import { isPromise, PAGE_SIZE, type VirtAddr } from "../../../base/index.ts";
import { HmmRange } from "../../../hmm/index.ts";
import { type Migration, migrateVmaAbort, migrateVmaFinalize, migrateVmaTrySetup } from "../../../migrate/index.ts";
import {
  holdFromCpu,
  isWritable,
  PageFlag,
  poisonedIn,
  preparePages,
  syncCpuWrites,
  writeProtectPages,
} from "../../../mm/index.ts";
import type { MmapRead } from "../../../sync/index.ts";
import { PageState } from "../extent.ts";
import {
  BUSY_MEMORY,
  isInPlace,
  type Retry as ServiceRetry,
  showInPlace,
  TRY_AGAIN,
  waitUntilSettled,
} from "../gather.ts";
import type { DeviceMirror } from "../mirror.ts";
import { busyBelow } from "../source-transit.ts";
import type { TransferBatch } from "../transfer-batch.ts";
import { bringHome } from "../way-home.ts";
import {
  arrivals,
  copiedRuns,
  forEachLacking,
  forEachSub,
  leaseInTheWay,
  lostIn,
  prepareAnew,
  runsOf,
  type SubRun,
  vmaAt,
  WRITE_NEED,
} from "./arrivals.ts";
import { FrameUploads } from "./frame-upload.ts";
import { SUB_PAGES } from "./page-entry.ts";
import type { SvmFrame } from "./svm-frame.ts";
import type { SvmTable } from "./svm-table.ts";

/** What a device wants of one page. */
export interface Demand {
  readonly page: number;
  readonly write: boolean;
  /** Only a guess: it must not be what a dispatch fails for or waits for. */
  readonly optional?: true;
}

/** The pages that one round brings, from the faults of the last to the submission of the next. */
export class Service {
  readonly #table: SvmTable;
  readonly #mirror: DeviceMirror;
  readonly #lock: MmapRead;
  readonly #reads: { readonly range: HmmRange; readonly frames: readonly SvmFrame[]; readonly run: SubRun }[] = [];
  readonly #migrations: {
    readonly migration: Migration;
    readonly frames: readonly SvmFrame[];
    readonly sub: number;
  }[] = [];
  /** Ranges that the demands became. */
  ranges = 0;
  /** Pages whose bytes went to the device. */
  pagesUploaded = 0;
  /** Pages that are kept from plain arrays. */
  readonly #held: Disposable[] = [];
  readonly #inPlace: { readonly frame: SvmFrame; readonly sub: number }[] = [];

  constructor(table: SvmTable, lock: MmapRead) {
    this.#table = table;
    this.#mirror = table.mirror;
    this.#lock = lock;
  }

  /**
   * Gathers what the demands need: read pages are faulted in and write-protected for the CPU, written ones isolated; their
   * bytes go on the batch. Every demanded page has a frame.
   *
   * Once a page is isolated nothing is waited for but uploads: who moves a page may be waiting for one of ours.
   * Locks: mmapLock, read, held until {@link abort}.
   * @throws KernelError EFAULT, EPERM, EHWPOISON, EIO, ENOMEM of the pages; after {@link abort} nothing has changed
   */
  async gather(demands: readonly Demand[], batch: TransferBatch): Promise<ServiceRetry | undefined> {
    const runs = runsOf(this.#table, demands);
    this.ranges = runs.length;
    for (const { frames } of runs) {
      if (frames.some((frame) => frame.firstHidden(0, SUB_PAGES) < SUB_PAGES)) {
        await this.#sendStrangersHome(frames);
      }
    }
    if (this.#table.mm.memory.mmu.traps) {
      for (const { frames, write } of runs) {
        await this.#collectCpuWrites(frames, write);
      }
    }
    const reads = new FrameUploads();
    for (const { frames, write } of runs) {
      for (const run of copiedRuns(this.#table, frames, write)) {
        const retry = await this.#gatherReads(frames, run, reads);
        if (retry !== undefined) {
          return retry;
        }
      }
    }
    await reads.record(batch);
    const written = runs.filter((run) => run.write);
    for (const { frames } of written) {
      for (const arrival of arrivals(this.#table, frames)) {
        const prepared = await preparePages(arrival.vma.object, arrival.page, arrival.end, WRITE_NEED);
        if (prepared === "poisoned") {
          throw poisonedIn(arrival.vma.object, arrival.page, arrival.end);
        }
      }
    }
    const arriving = new FrameUploads();
    for (const { frames } of written) {
      const retry = await this.#isolate(frames, arriving);
      if (retry !== undefined) {
        return retry;
      }
    }
    const transit = this.#sourceInTransit();
    if (transit !== undefined) {
      return transit;
    }
    await arriving.record(batch);
    this.pagesUploaded += reads.pages + arriving.pages;
    return undefined;
  }

  /** What frames hold for memory that was mapped there before would be overwritten. Nothing may be isolated. */
  async #sendStrangersHome(frames: readonly SvmFrame[]): Promise<void> {
    for (const frame of frames) {
      for (let sub = frame.firstHidden(0, SUB_PAGES); sub < SUB_PAGES; sub = frame.firstHidden(sub + 1, SUB_PAGES)) {
        if (!isInPlace(this.#mirror, frame, sub, 0)) {
          const { object, page } = frame.homeOf(sub);
          await bringHome(object, page, page + 1, "remap");
          sub = -1;
        }
      }
    }
  }

  /** What plain arrays wrote becomes known; what the kernel writes is theirs again when the try is over. */
  async #collectCpuWrites(frames: readonly SvmFrame[], write: boolean): Promise<void> {
    const { mm } = this.#table;
    const { end } = frames[frames.length - 1];
    for (const vma of mm.vmas.values(frames[0].start)) {
      if (vma.start >= end) {
        break;
      }
      const first = vma.objectPage(vma.start > frames[0].start ? vma.start : frames[0].start);
      const stop = Math.min(vma.object.pages, vma.objectPage((Math.min(vma.end, end) - 1) as VirtAddr) + 1);
      const hold = write ? holdFromCpu(vma.object, first, stop) : undefined;
      if (hold !== undefined) {
        this.#held.push(hold);
      }
      await syncCpuWrites(vma.object, first, stop);
    }
  }

  async #gatherReads(
    frames: readonly SvmFrame[],
    run: SubRun,
    uploads: FrameUploads,
  ): Promise<ServiceRetry | undefined> {
    const { start: first } = frames[0];
    const start = (first + run.from * PAGE_SIZE) as VirtAddr;
    const end = (first + run.to * PAGE_SIZE) as VirtAddr;
    const guarded = await this.#protectReads(start, end);
    if (guarded !== undefined) {
      return guarded;
    }
    const range = new HmmRange({ start, end, pfnFlagsMask: 0xffff_ffff });
    range.register(this.#mirror.hmm);
    this.#reads.push({ range, frames, run });
    let missing = 0;
    forEachSub(frames, run.from, run.to - run.from, (frame, sub, i) => {
      if (frame.state[sub] & PageState.Valid) {
        return;
      }
      if (isInPlace(this.#mirror, frame, sub, 0)) {
        this.#inPlace.push({ frame, sub });
      } else {
        range.pfns[i] = range.flags.valid;
        missing++;
      }
    });
    if (missing === 0) {
      return undefined;
    }
    const wanted = range.pfns.slice();
    let outcome: Awaited<ReturnType<HmmRange["faultLocked"]>>;
    try {
      const faulted = range.faultLocked(this.#lock, { noEntries: true });
      outcome = isPromise(faulted) ? await faulted : faulted;
    } catch (error) {
      throw lostIn(this.#table, start, wanted) ?? error;
    }
    if (typeof outcome !== "number") {
      return { wait: (options) => waitUntilSettled(this.#mirror, range, options), why: BUSY_MEMORY };
    }
    return this.#collectReads(frames, run, wanted, uploads);
  }

  /** Before the fault, which the announcement would make stale: takes write permission from what will be copied. */
  async #protectReads(start: VirtAddr, end: VirtAddr): Promise<ServiceRetry | undefined> {
    for (const vma of [...this.#table.mm.vmas.values(start)]) {
      if (vma.start >= end) {
        break;
      }
      const page = vma.objectPage(Math.max(start, vma.start));
      const stop = vma.objectPage(Math.min(end, vma.end) - 1) + 1;
      const protecting = writeProtectPages(vma.object, page, stop, this.#mirror);
      if (!(isPromise(protecting) ? await protecting : protecting)) {
        return leaseInTheWay(vma, page, stop, "rw");
      }
    }
    return undefined;
  }

  #collectReads(
    frames: readonly SvmFrame[],
    run: SubRun,
    wanted: Uint32Array,
    uploads: FrameUploads,
  ): ServiceRetry | undefined {
    const start = frames[0].start + run.from * PAGE_SIZE;
    for (let p = 0; p < wanted.length; ) {
      if (wanted[p] === 0) {
        p++;
        continue;
      }
      const addr = (start + p * PAGE_SIZE) as VirtAddr;
      const vma = vmaAt(this.#table, addr);
      const vmaEnd = Math.min(wanted.length, (vma.end - start) / PAGE_SIZE);
      let stop = p + 1;
      while (stop < vmaEnd && wanted[stop] !== 0) {
        stop++;
      }
      const page = vma.objectPage(addr);
      if (isWritable(vma.object, page, page + (stop - p))) {
        return vma.object.isPinned(page, page + (stop - p), "rw")
          ? leaseInTheWay(vma, page, page + (stop - p), "rw")
          : TRY_AGAIN;
      }
      uploads.add({
        object: vma.object,
        page,
        count: stop - p,
        frames: frames.slice(Math.floor((run.from + p) / SUB_PAGES)),
        sub: (run.from + p) % SUB_PAGES,
        transit: "wait",
      });
      p = stop;
    }
    return undefined;
  }

  async #isolate(frames: readonly SvmFrame[], uploads: FrameUploads): Promise<ServiceRetry | undefined> {
    const waiting = [...arrivals(this.#table, frames, (frame, sub) => this.#inPlace.push({ frame, sub }))];
    for (const { vma, addr, page, end, frames: into, sub } of waiting) {
      const stop = (addr + (end - page) * PAGE_SIZE) as VirtAddr;
      const setup = this.#mirror.isolate({ start: addr, end: stop, into: "frames" }, () =>
        migrateVmaTrySetup(this.#lock, vma, addr, stop, this.#mirror.pagemap),
      );
      const migration = isPromise(setup) ? await setup : setup;
      if (migration === "busy") {
        return { wait: () => prepareAnew(vma.object, page, end), why: BUSY_MEMORY };
      }
      if (migration === "pinned") {
        return leaseInTheWay(vma, page, end, "r");
      }
      this.#migrations.push({ migration, frames: into, sub });
      forEachLacking(into, sub, end - page, (from, to) => {
        uploads.add({
          object: migration.object,
          page: migration.page + from,
          count: to - from,
          frames: into.slice(Math.floor((sub + from) / SUB_PAGES)),
          sub: (sub + from) % SUB_PAGES,
          transit: "isolated",
        });
      });
    }
    return undefined;
  }

  /** The bytes of isolated pages may come from pages that another dispatch has isolated: never wait for those here. */
  #sourceInTransit(): ServiceRetry | undefined {
    for (const { migration } of this.#migrations) {
      for (let p = migration.page; migration.object.source !== undefined && p < migration.end; p++) {
        const below = busyBelow(migration.object, p);
        if (below !== undefined) {
          return {
            wait: (options) => below.object.wq.wait(() => !(below.object.flagsOf(below.page) & PageFlag.Busy), options),
            why: BUSY_MEMORY,
          };
        }
      }
    }
    return undefined;
  }

  /**
   * Marks what was brought, under the update lock and in one run with the submission of the uploads. Pages of a range that
   * an invalidation hit stay unmapped: they fault again.
   *
   * `finish` ends the migrations, right after the submission. Returns whether everything that was gathered is still valid.
   */
  commit(): { readonly complete: boolean; readonly pagesMigrated: number; finish(): void } {
    let complete = true;
    for (const { range, frames, run } of this.#reads) {
      if (!range.valid) {
        complete = false;
        continue;
      }
      forEachSub(frames, run.from, run.to - run.from, (frame, sub) => {
        // Pages that wait where they were are looked at below, for they may have left since.
        if (!(frame.state[sub] & PageState.Owned)) {
          frame.update(sub, sub + 1, PageState.Valid, 0);
        }
      });
    }
    for (const { frame, sub } of this.#inPlace) {
      showInPlace(this.#mirror, frame, sub);
    }
    let pagesMigrated = 0;
    for (const { migration, frames, sub } of this.#migrations) {
      forEachSub(frames, sub, migration.end - migration.page, (frame, at, i) => {
        frame.own(at, at + 1, migration.object, migration.page + i);
      });
      pagesMigrated += migration.end - migration.page;
    }
    return { complete, pagesMigrated, finish: () => this.#finish() };
  }

  /** The uploads were not submitted after all: what {@link commit} showed of them is hidden again. */
  undo(): void {
    for (const { frames, run } of this.#reads) {
      forEachSub(frames, run.from, run.to - run.from, (frame, sub) => {
        if (!(frame.state[sub] & PageState.Owned)) {
          frame.update(sub, sub + 1, 0, PageState.Valid);
        }
      });
    }
  }

  #finish(): void {
    for (const { migration, frames, sub } of this.#migrations.splice(0)) {
      migrateVmaFinalize(migration, (i) => {
        const at = sub + i;
        return frames[Math.floor(at / SUB_PAGES)].frame + (at % SUB_PAGES);
      });
    }
  }

  /** Gives everything back that was not committed; always called at the end. */
  abort(): void {
    for (const hold of this.#held.splice(0)) {
      hold[Symbol.dispose]();
    }
    for (const { migration, frames, sub } of this.#migrations.splice(0)) {
      forEachSub(frames, sub, migration.end - migration.page, (frame, at) => frame.disown(at, at + 1));
      migrateVmaAbort(migration);
    }
    for (const { range } of this.#reads.splice(0)) {
      const ended = range.unregister();
      if (isPromise(ended)) {
        // Not the last user: the caller of dispatch holds the address space.
        ended.catch(() => undefined);
      }
    }
  }
}
