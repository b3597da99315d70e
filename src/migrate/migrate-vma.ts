/**
 * Moving a run of pages from the host into a device's memory as a whole, in the steps of the kernel's migrate_vma:
 *
 *     try setup  pages are isolated: CPU entries become migration entries (announced), whoever touches them waits
 *     (driver)   copies the bytes to device memory
 *     finalize   pages that were copied are the device's; the others are the host's again
 *
 * The way back is `migrateToRam` of mm, which the CPU's faults take by themselves. {@link MigrateVma} moves what can
 * be moved, page by page, in every direction.
 */
import {
  bugOn,
  formatRange,
  isPromise,
  KernelError,
  type MaybePromise,
  type VirtAddr,
  vpnOf,
  warnOn,
} from "../base/index.ts";
import {
  announceOnObject,
  type DevicePagemap,
  holdFromCpu,
  PageFlag,
  pagesAreReady,
  poisonedError,
  preparePages,
  syncCpuWrites,
  unmapFromCpu,
  type Vma,
} from "../mm/index.ts";
import type { MmapRead } from "../sync/index.ts";
import { giveBack, giveToDevice, isolateRun, type PageRun } from "./page-run.ts";

/** Neighbouring pages of one VMA on their way to a device. */
export interface Migration extends PageRun {
  readonly vma: Vma;
  readonly pagemap: DevicePagemap;
}

/** What isolating needs of the pages: their bytes on the host, and nobody who still reads them as they were. */
const NEED = { cpu: false, write: true } as const;

/** Isolated pages, or why they could not be: `pinned` while a lease holds one of them. */
export type MigrationSetup = Migration | "pinned";

/**
 * Isolates all pages of `[start, end)` of one VMA: what lives elsewhere comes to the host first, copies that still read a
 * page get its bytes, and then as {@link migrateVmaTrySetup}.
 *
 * Locks: mmapLock, read, held until {@link migrateVmaFinalize} or {@link migrateVmaAbort}. Nothing may be isolated yet.
 * @throws KernelError EFAULT past the object's end; EHWPOISON a page was lost; EIO, ENOMEM bringing a page to the host;
 *   nothing is isolated then
 */
export async function migrateVmaSetup(
  lock: MmapRead,
  vma: Vma,
  start: VirtAddr,
  end: VirtAddr,
  pagemap: DevicePagemap,
): Promise<MigrationSetup> {
  const { page, stop } = reserve(lock, vma, start, end);
  using _hold = holdFromCpu(vma.object, page, stop);
  for (;;) {
    await syncCpuWrites(vma.object, page, stop);
    const prepared = await preparePages(vma.object, page, stop, NEED);
    if (prepared === "poisoned") {
      throw poisonedError(vma.object, page);
    }
    const outcome = await isolateAnnounced(vma, page, stop, pagemap);
    if (outcome !== "busy") {
      return outcome;
    }
  }
}

/**
 * Isolates all pages of `[start, end)` of one VMA, or none: every mirror but the owner's drops its entries, and until
 * finalize or abort nobody can touch the pages.
 *
 * Never waits for pages in transit: the caller may have isolated others, for which whoever moves these may be waiting.
 * `busy`: give up what is isolated, `preparePages`, start over.
 *
 * Locks: mmapLock, read, held until {@link migrateVmaFinalize} or {@link migrateVmaAbort}.
 * @throws KernelError EFAULT past the object's end; ENOMEM; nothing is isolated then
 * @linux mm/migrate_device.c migrate_vma_setup
 */
export function migrateVmaTrySetup(
  lock: MmapRead,
  vma: Vma,
  start: VirtAddr,
  end: VirtAddr,
  pagemap: DevicePagemap,
): MaybePromise<MigrationSetup | "busy"> {
  const { page, stop } = reserve(lock, vma, start, end);
  return isolateAnnounced(vma, page, stop, pagemap);
}

/** Checks the range and makes what its entries need. */
function reserve(lock: MmapRead, vma: Vma, start: VirtAddr, end: VirtAddr): { page: number; stop: number } {
  vma.mm.mmapLock.assertGuard(lock, "migrateVmaTrySetup");
  const { object } = vma;
  const page = vma.objectPage(start);
  const stop = vma.objectPage(end - 1) + 1;
  if (stop > object.pages) {
    throw new KernelError("EFAULT", "migrate", `${formatRange({ start, end })} goes past the end of ${vma.name}`);
  }
  object.reserve(page, stop);
  vma.mm.pageTable.reserve(vpnOf(start), vpnOf(end));
  return { page, stop };
}

/** Tells the notifiers and isolates, if the pages are ready before and after that. */
function isolateAnnounced(
  vma: Vma,
  page: number,
  stop: number,
  pagemap: DevicePagemap,
): MaybePromise<MigrationSetup | "busy"> {
  const { object } = vma;
  if (!pagesAreReady(object, page, stop, NEED)) {
    return "busy";
  }
  const done = (outcome: "busy" | "pinned" | "isolated") =>
    outcome === "isolated" ? { vma, object, page, end: stop, pagemap } : outcome;
  const isolated: MaybePromise<"busy" | "pinned" | "isolated"> = announceOnObject(
    object,
    page,
    stop,
    "migrate",
    () => isolate(vma, page, stop),
    pagemap.owner,
  );
  return isPromise(isolated) ? isolated.then(done) : done(isolated);
}

/** Pages may have changed while the notifiers were told: look, and isolate all of them or none. */
function isolate(vma: Vma, page: number, end: number): "busy" | "pinned" | "isolated" {
  const { object } = vma;
  if (!pagesAreReady(object, page, end, NEED)) {
    return "busy";
  }
  if (object.isPinned(page, end, "r")) {
    return "pinned";
  }
  if (!unmapFromCpu(object, page, end)) {
    return "busy";
  }
  isolateRun({ object, page, end });
  return "isolated";
}

/**
 * The bytes are on the device: the pages are its own from here on, page i of the migration in device frame `frameOf(i)`.
 *
 * Synchronous. Entries become device-private; whoever waited for the pages looks again.
 * @throws BugError I-MIG-3 when the migration has ended
 * @linux mm/migrate_device.c migrate_vma_pages, migrate_vma_finalize
 */
export function migrateVmaFinalize(migration: Migration, frameOf: (index: number) => number): void {
  bugOn(hasEnded(migration), "I-MIG-3", () => "a migration that has ended is finalized");
  giveToDevice(migration, (i) => migration.pagemap.pfnOf(frameOf(i)), migration.vma);
}

/** Nothing was copied: the pages are the host's again, mapped read-only. Synchronous, cannot fail. */
export function migrateVmaAbort(migration: Migration): void {
  if (!warnOn(hasEnded(migration), "I-MIG-3", () => "a migration that has ended is aborted")) {
    giveBack(migration);
  }
}

const hasEnded = ({ object, page, end }: Migration): boolean => (object.flagSummary(page, end) & PageFlag.Busy) === 0;
