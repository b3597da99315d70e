/**
 * Moving the pages of a range one by one, whatever can be moved: from the host to a device, back, and between devices.
 *
 *     const m = await MigrateVma.setup({ … })    m.src: what may move, isolated
 *     (driver)                                   m.dst: where to; copies the bytes
 *     m.pages()                                  m.src: what does move
 *     (driver)                                   updates its own table
 *     m.finalize()                               the pages are there
 */
import { formatRange, isPageAligned, isPromise, KernelError, PAGE_SIZE, vpnOf } from "../base/index.ts";
import {
  type AddressSpace,
  announceOnObject,
  framePfn,
  holdFromCpu,
  isZeroPage,
  type MemoryObject,
  PageFlag,
  PTE_WRITE,
  pagesAreReady,
  preparePages,
  syncCpuWrites,
  unmapFromCpu,
  type Vma,
  VmFlags,
} from "../mm/index.ts";
import type { MmapRead } from "../sync/index.ts";
import {
  Hold,
  isAbsent,
  MIGRATE_PFN_MIGRATE,
  MIGRATE_PFN_WRITE,
  MigratingPages,
  migratePfn,
} from "./migrating-pages.ts";
import { isolateRun } from "./page-run.ts";

/** What is to be moved. @linux include/linux/migrate.h enum migrate_vma_direction */
export const MigrateSelect = {
  /** Pages in system memory. */
  System: 1,
  /** Pages in private memory of a device of `pgmapOwner`. */
  DevicePrivate: 2,
  /** Pages in coherent memory of a device of `pgmapOwner`. */
  DeviceCoherent: 4,
} as const;

/** @linux include/linux/migrate.h struct migrate_vma */
export interface MigrateVmaArgs {
  readonly mm: AddressSpace;
  readonly lock: MmapRead;
  /** Page aligned, in one mapping. */
  readonly start: number;
  /** Exclusive. */
  readonly end: number;
  /** Room for an entry a page; made when absent. */
  readonly src?: Uint32Array;
  readonly dst?: Uint32Array;
  /** Whose device memory it is about; its mirrors let the announcement pass. */
  readonly pgmapOwner: object;
  /** Bits of {@link MigrateSelect}. */
  readonly select: number;
}

const UNMOVABLE = VmFlags.Io | VmFlags.PfnMap | VmFlags.MixedMap;

/**
 * One migration of a range of one mapping.
 * @linux include/linux/migrate.h struct migrate_vma
 */
export class MigrateVma extends MigratingPages {
  readonly vma: Vma;

  private constructor(args: MigrateVmaArgs, vma: Vma, npages: number) {
    super(npages, args.src ?? new Uint32Array(npages), args.dst ?? new Uint32Array(npages), vma);
    this.vma = vma;
  }

  /**
   * Isolates what can be moved, each page for itself. A page that cannot has 0 in `src` (or no MIGRATE bit, when only a
   * lease holds it): it is in transit, lost, on another's device, or not selected. Nothing that can be moved at all is no
   * error. Zeros that nobody has mapped may be moved, have no bytes, and are not isolated: whoever touches them wins.
   *
   * Locks: mmapLock, read, held until {@link finalize}, which has to be called.
   * @throws KernelError EINVAL not one mapping, of device registers or raw entries, not of whole pages, empty, or `src` or
   *   `dst` too short; ENOMEM; nothing is isolated then
   * @throws BugError I-SYNC-2 without the lock
   * @linux mm/migrate_device.c migrate_vma_setup
   */
  static async setup(args: MigrateVmaArgs): Promise<MigrateVma> {
    const { mm, lock, start, end } = args;
    mm.mmapLock.assertGuard(lock, "MigrateVma.setup");
    const vma = checkArgs(args);
    const migration = new MigrateVma(args, vma, (end - start) / PAGE_SIZE);
    const page = vma.objectPage(start);
    const stop = Math.min(page + migration.npages, vma.object.pages);
    if (page < stop) {
      mm.pageTable.reserve(vpnOf(start), vpnOf(end));
      vma.object.reserve(page, stop);
      await migration.#isolate(args, page, stop);
    }
    return migration;
  }

  async #isolate({ pgmapOwner, select }: MigrateVmaArgs, page: number, stop: number): Promise<void> {
    const { object } = this.vma;
    using _hold = holdFromCpu(object, page, stop);
    for (let done = false; !done; ) {
      await syncCpuWrites(object, page, stop);
      if (select & MigrateSelect.System) {
        await prepareHostPages(object, page, stop);
      }
      const collected = announceOnObject(
        object,
        page,
        stop,
        "migrate",
        () => unmapFromCpu(object, page, stop) && this.#collect(pgmapOwner, select, page, stop),
        pgmapOwner,
      );
      done = isPromise(collected) ? await collected : collected;
    }
  }

  /** @linux mm/migrate_device.c migrate_vma_collect, migrate_vma_unmap */
  #collect(owner: object, select: number, first: number, stop: number): true {
    const { object, mm, start } = this.vma;
    const vpn = vpnOf(start) - this.vma.pgoff;
    let from = -1;
    const isolate = (end: number) => {
      if (from >= 0) {
        isolateRun({ object, page: from, end });
        from = -1;
      }
    };
    for (let page = first; page < stop; page++) {
      const i = page - first;
      const entry = sourceOf(object, page, owner, select);
      if (entry === 0) {
        isolate(page);
        continue;
      }
      if (object.isPinned(page, page + 1, "r")) {
        this.src[i] = entry & ~MIGRATE_PFN_MIGRATE;
        isolate(page);
        continue;
      }
      const absent = entry === MIGRATE_PFN_MIGRATE && isAbsent(object, page);
      const write = mm.pageTable.get(vpn + page) & PTE_WRITE ? MIGRATE_PFN_WRITE : 0;
      this.note(i, object, page, entry | write, absent ? Hold.Absent : Hold.Isolated);
      if (absent) {
        isolate(page);
      } else if (from < 0) {
        from = page;
      }
    }
    isolate(stop);
    return true;
  }
}

function checkArgs({ mm, start, end, src, dst }: MigrateVmaArgs): Vma {
  const fail = (why: string): never => {
    throw new KernelError("EINVAL", "migrate", why);
  };
  if (!isPageAligned(start) || !isPageAligned(end) || !(start < end)) {
    fail(`${start} to ${end} is not a range of whole pages: align both, start below end`);
  }
  const vma = mm.vmas.find(start) ?? fail(`nothing is mapped at the start of ${formatRange({ start, end })}`);
  if (end > vma.end) {
    fail(`${formatRange({ start, end })} is not inside ${vma.name}: migrate mappings one by one`);
  }
  if (vma.flags & UNMOVABLE) {
    fail(`${vma.name} has no pages of memory that could move`);
  }
  const pages = (end - start) / PAGE_SIZE;
  if ((src !== undefined && src.length < pages) || (dst !== undefined && dst.length < pages)) {
    fail(`the range has ${pages} pages: give src and dst as many entries`);
  }
  return vma;
}

/** The entry of `src` for a page: 0 when it cannot move, without VALID when it is zeros. */
function sourceOf(object: MemoryObject, page: number, owner: object, select: number): number {
  const flags = object.flagsOf(page);
  if (flags & (PageFlag.Busy | PageFlag.Poisoned)) {
    return 0;
  }
  if (flags & (PageFlag.Device | PageFlag.Coherent)) {
    const kind = flags & PageFlag.Device ? MigrateSelect.DevicePrivate : MigrateSelect.DeviceCoherent;
    const pfn = object.devicePfnOf(page);
    const selected = select & kind && object.memory.blockOf(pfn)?.pagemap?.owner === owner;
    return selected ? migratePfn(pfn) | MIGRATE_PFN_MIGRATE : 0;
  }
  if ((select & MigrateSelect.System) === 0) {
    return 0;
  }
  const zero = isZeroPage(object, page);
  if (!pagesAreReady(object, page, page + 1, { cpu: !zero, write: true })) {
    return 0;
  }
  return zero ? MIGRATE_PFN_MIGRATE : migratePfn(framePfn(object, page)) | MIGRATE_PFN_MIGRATE;
}

/**
 * Pages of the host that come from elsewhere get their bytes, and copies that still read them get theirs. What cannot be
 * had stays where it is, and the next access says why.
 */
async function prepareHostPages(object: MemoryObject, page: number, stop: number): Promise<void> {
  const comesFromElsewhere = object.source !== undefined || object.pager !== undefined;
  if (!comesFromElsewhere && object.shadows.size === 0) {
    return;
  }
  const elsewhere = PageFlag.Busy | PageFlag.Device | PageFlag.Poisoned;
  for (let p = page; p < stop; ) {
    let end = p;
    while (end < stop && (object.flagsOf(end) & elsewhere) === 0) {
      end++;
    }
    if (end > p) {
      try {
        await preparePages(object, p, end, { cpu: comesFromElsewhere, write: true });
      } catch (error) {
        if (!(error instanceof KernelError)) {
          throw error;
        }
      }
    }
    p = Math.max(end, p) + 1;
  }
}
