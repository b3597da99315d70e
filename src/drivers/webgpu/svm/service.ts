/**
 * Serving device faults, nouveau's way: sort, coalesce into ranges, fault through HMM or migrate, check under the update
 * lock, map.
 */
import { isPromise, KernelError, PAGE_SIZE, type VirtAddr, vpnOf } from "../../../base/index.ts";
import { HmmRange } from "../../../hmm/index.ts";
import { type Migration, migrateVmaAbort, migrateVmaFinalize, migrateVmaSetup } from "../../../migrate/index.ts";
import {
  type MemoryObject,
  PTE_WRITE,
  PteKind,
  pteIsKind,
  ptePfn,
  svmAddressOf,
  type Vma,
  writeProtectPages,
} from "../../../mm/index.ts";
import type { MmapRead, WaitOptions } from "../../../sync/index.ts";
import { PageState } from "../extent.ts";
import type { DeviceMirror } from "../mirror.ts";
import type { FrameUploads } from "./frame-upload.ts";
import { reachablePages, SUB_PAGES } from "./page-entry.ts";
import type { SvmFrame, SvmTable } from "./svm-table.ts";

/** What a device wants of one page. */
export interface Demand {
  readonly page: number;
  readonly write: boolean;
}

/** Something is in the way: wait for it with the locks dropped, then try again. */
export interface ServiceRetry {
  readonly wait: (options: WaitOptions) => Promise<boolean>;
  readonly why: string;
}

/** Longest run of device pages that is served as one range: 32 MiB. */
const MAX_RUN = 2048;

/** The pages that one round brings, from the faults of the last to the submission of the next. */
export class Service {
  readonly #table: SvmTable;
  readonly #mirror: DeviceMirror;
  readonly #lock: MmapRead;
  readonly #uploads: FrameUploads;
  readonly #reads: { readonly range: HmmRange; readonly frames: readonly SvmFrame[] }[] = [];
  readonly #migrations: { readonly migration: Migration; readonly frames: readonly SvmFrame[]; readonly sub: number }[] = [];
  readonly #inPlace: { readonly frame: SvmFrame; readonly sub: number }[] = [];

  constructor(table: SvmTable, lock: MmapRead, uploads: FrameUploads) {
    this.#table = table;
    this.#mirror = table.mirror;
    this.#lock = lock;
    this.#uploads = uploads;
  }

  /**
   * Gathers what the demands need: read pages are faulted in and write-protected for the CPU, written ones isolated.
   * Every demanded page has a frame.
   *
   * Locks: mmapLock, read, held until {@link commit} or {@link abort}.
   * @throws KernelError EFAULT, EPERM, EHWPOISON, EIO, ENOMEM of the pages; after {@link abort} nothing has changed
   */
  async gather(demands: readonly Demand[]): Promise<ServiceRetry | undefined> {
    const sorted = [...demands].sort((a, b) => a.page - b.page);
    for (let i = 0; i < sorted.length; ) {
      const { write } = sorted[i];
      let stop = i + 1;
      while (stop < sorted.length && stop - i < MAX_RUN && sorted[stop].write === write && sorted[stop].page === sorted[stop - 1].page + 1) {
        stop++;
      }
      const frames = sorted.slice(i, stop).flatMap(({ page }) => this.#table.frameAt(page) ?? []);
      const retry = write ? await this.#gatherWrites(frames) : await this.#gatherReads(frames);
      if (retry !== undefined) {
        return retry;
      }
      i = stop;
    }
    return undefined;
  }

  async #gatherReads(frames: readonly SvmFrame[]): Promise<ServiceRetry | undefined> {
    const { start } = frames[0];
    const last = frames[frames.length - 1];
    const end = (last.start + this.#reach(last) * PAGE_SIZE) as VirtAddr;
    if (end <= start) {
      return undefined;
    }
    const range = new HmmRange({ start, end, pfnFlagsMask: 0xffff_ffff });
    range.register(this.#mirror.hmm);
    this.#reads.push({ range, frames });
    let missing = 0;
    frames.forEach((frame, f) => {
      for (let sub = 0; sub < this.#reach(frame); sub++) {
        if (frame.state[sub] & PageState.Valid) {
          continue;
        }
        if (this.#isInPlace(frame, sub, 0)) {
          this.#inPlace.push({ frame, sub });
        } else {
          range.pfns[f * SUB_PAGES + sub] = range.flags.valid;
          missing++;
        }
      }
    });
    if (missing === 0) {
      return undefined;
    }
    const wanted = range.pfns.slice();
    const faulted = range.faultLocked(this.#lock);
    const outcome = isPromise(faulted) ? await faulted : faulted;
    if (typeof outcome !== "number") {
      return { wait: (options) => waitAnew(this.#mirror, range, options), why: "its memory is being changed all the time" };
    }
    return this.#collectReads(frames, wanted);
  }

  #collectReads(frames: readonly SvmFrame[], wanted: Uint32Array): ServiceRetry | undefined {
    const { start } = frames[0];
    for (let p = 0; p < wanted.length; ) {
      if (wanted[p] === 0) {
        p++;
        continue;
      }
      const addr = (start + p * PAGE_SIZE) as VirtAddr;
      const vma = this.#vmaAt(addr);
      const vmaEnd = Math.min(wanted.length, (vma.end - start) / PAGE_SIZE);
      let stop = p + 1;
      while (stop < vmaEnd && wanted[stop] !== 0) {
        stop++;
      }
      const page = vma.objectPage(addr);
      if (!writeProtectPages(vma.object, page, page + (stop - p))) {
        return leaseInTheWay(vma, page, page + (stop - p), "rw");
      }
      this.#uploads.add({
        object: vma.object,
        page,
        count: stop - p,
        frames: frames.slice(Math.floor(p / SUB_PAGES)),
        sub: p % SUB_PAGES,
        transit: "wait",
      });
      p = stop;
    }
    return undefined;
  }

  async #gatherWrites(frames: readonly SvmFrame[]): Promise<ServiceRetry | undefined> {
    const { start } = frames[0];
    const total = (frames.length - 1) * SUB_PAGES + this.#reach(frames[frames.length - 1]);
    const state = (p: number) => frames[Math.floor(p / SUB_PAGES)].state[p % SUB_PAGES];
    const reached = (p: number) => p % SUB_PAGES < this.#reach(frames[Math.floor(p / SUB_PAGES)]);
    const inPlace = (p: number) => this.#isInPlace(frames[Math.floor(p / SUB_PAGES)], p % SUB_PAGES, PTE_WRITE);
    const wanted = PageState.Valid | PageState.Owned;
    for (let p = 0; p < total; ) {
      if (!reached(p) || (state(p) & wanted) === wanted) {
        p++;
        continue;
      }
      if (inPlace(p)) {
        this.#inPlace.push({ frame: frames[Math.floor(p / SUB_PAGES)], sub: p % SUB_PAGES });
        p++;
        continue;
      }
      const addr = (start + p * PAGE_SIZE) as VirtAddr;
      const vma = this.#vmaAt(addr);
      const vmaEnd = Math.min(total, (vma.end - start) / PAGE_SIZE);
      let stop = p + 1;
      while (stop < vmaEnd && reached(stop) && (state(stop) & wanted) !== wanted && !inPlace(stop)) {
        stop++;
      }
      const end = (start + stop * PAGE_SIZE) as VirtAddr;
      this.#mirror.isolating = { start: addr, end };
      const migration = await migrateVmaSetup(this.#lock, vma, addr, end, this.#mirror.pagemap);
      this.#mirror.isolating = undefined;
      if (migration === "pinned") {
        const page = vma.objectPage(addr);
        return leaseInTheWay(vma, page, page + (stop - p), "r");
      }
      this.#migrations.push({ migration, frames: frames.slice(Math.floor(p / SUB_PAGES)), sub: p % SUB_PAGES });
      for (let q = p; q < stop; ) {
        if (state(q) & PageState.Valid) {
          q++;
          continue;
        }
        let copied = q + 1;
        while (copied < stop && !(state(copied) & PageState.Valid)) {
          copied++;
        }
        this.#uploads.add({
          object: migration.object,
          page: migration.page + (q - p),
          count: copied - q,
          frames: frames.slice(Math.floor(q / SUB_PAGES)),
          sub: q % SUB_PAGES,
          transit: "isolated",
        });
        q = copied;
      }
      p = stop;
    }
    return undefined;
  }

  #reach(frame: SvmFrame): number {
    return reachablePages(this.#table.accessOf(frame.page));
  }

  #isInPlace(frame: SvmFrame, sub: number, bits: number): boolean {
    if (!(frame.state[sub] & PageState.Owned)) {
      return false;
    }
    const pte = this.#table.mm.pageTable.get(vpnOf(frame.addrOf(sub)));
    return (
      pteIsKind(pte, PteKind.DevicePrivate) &&
      (pte & bits) === bits &&
      this.#mirror.pagemap.frameOf(ptePfn(pte)) === frame.frame + sub
    );
  }

  #vmaAt(addr: VirtAddr): Vma {
    const vma = this.#table.mm.vmas.find(addr);
    if (vma === undefined) {
      throw new KernelError("EFAULT", "dispatch", `nothing is mapped at svm address ${svmAddressOf(addr, "memory")} any more`);
    }
    return vma;
  }

  /**
   * Marks what was brought, under the update lock and in one run with the submission of the uploads. Pages of a range that
   * an invalidation hit stay unmapped: they fault again.
   *
   * `finish` ends the migrations, right after the submission. Returns whether everything that was gathered is still valid.
   */
  commit(): { readonly complete: boolean; readonly pagesMigrated: number; finish(): void } {
    let complete = true;
    for (const { range, frames } of this.#reads) {
      if (!range.valid) {
        complete = false;
        continue;
      }
      for (const frame of frames) {
        for (let sub = 0; sub < this.#reach(frame); sub++) {
          // Pages that wait where they were are looked at below, for they may have left since.
          if (!(frame.state[sub] & PageState.Owned)) {
            frame.update(sub, sub + 1, PageState.Valid, 0);
          }
        }
      }
    }
    for (const { frame, sub } of this.#inPlace) {
      if (this.#isInPlace(frame, sub, 0)) {
        frame.update(sub, sub + 1, PageState.Valid, 0);
      }
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
    this.#mirror.isolating = undefined;
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

function forEachSub(
  frames: readonly SvmFrame[],
  sub: number,
  count: number,
  visit: (frame: SvmFrame, sub: number, index: number) => void,
): void {
  for (let i = 0; i < count; i++) {
    visit(frames[Math.floor((sub + i) / SUB_PAGES)], (sub + i) % SUB_PAGES, i);
  }
}

/** The range of a failed try was given back: another one over the same memory does the waiting. */
async function waitAnew(mirror: DeviceMirror, former: HmmRange, options: WaitOptions): Promise<boolean> {
  const range = new HmmRange({ start: former.start, end: former.end });
  range.register(mirror.hmm);
  try {
    return await range.waitUntilValid(options);
  } finally {
    await range.unregister();
  }
}

function leaseInTheWay(vma: Vma, page: number, end: number, mode: "r" | "rw"): ServiceRetry {
  const object: MemoryObject = vma.object;
  return {
    wait: (options) => object.wq.wait(() => !object.isPinned(page, end, mode), options),
    why: `a lease on ${vma.name}, which the kernel follows a pointer into, is still held: dispose it before the dispatch`,
  };
}
