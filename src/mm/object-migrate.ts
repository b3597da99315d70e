/** Pages that move between the host and a device's memory, as seen by their object. */
import { invariant, KernelError, type MaybePromise, PAGE_SIZE, traceNow, traceOn } from "../base/index.ts";
import type { DevicePagemap } from "./device-pagemap.ts";
import { forgetExclusive } from "./exclusive-pages.ts";
import type { MemoryObject } from "./memory-object.ts";
import { PageFlag } from "./page-flags.ts";
import type { DeviceRun } from "./ports.ts";
import { PTE_NONE, PTE_PRESENT, PTE_WRITE, PteKind, pteIsKind, pteOfKind, ptePfn, ptePresent } from "./pte.ts";
import { announceOnObject, rewriteEntries } from "./rmap.ts";
import { type MigrateCause, traceMigrate, tracePoison } from "./trace-mm.ts";
import { VmFlags } from "./vma.ts";
import { windowEnd } from "./window-pages.ts";

/**
 * The pages of `[page, end)` that live on one device and are not in transit, as runs of neighbouring device frames.
 * Undefined when there is none; the other devices' pages come with the next call.
 */
function deviceRuns(
  object: MemoryObject,
  page: number,
  end: number,
): { readonly pagemap: DevicePagemap; readonly runs: readonly DeviceRun[] } | undefined {
  if ((object.flagSummary(page, end) & PageFlag.Device) === 0) {
    return undefined;
  }
  let owner: DevicePagemap | undefined;
  const runs: (DeviceRun & { count: number })[] = [];
  for (let p = page; p < end; p++) {
    if ((object.flagsOf(p) & (PageFlag.Device | PageFlag.Busy)) !== PageFlag.Device) {
      continue;
    }
    const pfn = object.devicePfnOf(p);
    const pagemap = object.memory.blockOf(pfn)?.pagemap;
    const frame = pagemap?.frameOf(pfn);
    invariant(pagemap !== undefined && frame !== undefined, "I-MIG-1", () => `page ${p} is on no device`);
    owner ??= pagemap;
    const last = runs.at(-1);
    if (pagemap !== owner) {
      continue;
    }
    if (last !== undefined && last.page + last.count === p && last.frame + last.count === frame) {
      last.count++;
    } else {
      runs.push({ object, page: p, count: 1, frame });
    }
  }
  return owner === undefined ? undefined : { pagemap: owner, runs };
}

/**
 * Brings the pages of `[page, end)` that live on a device and are not in transit back into the CPU window. Resolves when
 * they are there; a page whose device was lost is poisoned instead.
 *
 * Locks: none needed; callers usually hold the mmap lock for reading.
 * @throws KernelError ENOMEM before anything changed
 * @linux include/linux/memremap.h dev_pagemap_ops.migrate_to_ram
 */
export async function migrateToRam(
  object: MemoryObject,
  page: number,
  end: number,
  cause: MigrateCause = "cpu fault",
): Promise<void> {
  object.windows.ensureAll(page, end);
  // Whoever asked may not be who keeps the object: it must outlive its pages' transit.
  object.get();
  try {
    // Looked up anew for each device: while one is waited for, the pages of another may move by themselves.
    for (let found = deviceRuns(object, page, end); found !== undefined; found = deviceRuns(object, page, end)) {
      await bringBack(object, found.pagemap, found.runs, cause);
    }
  } finally {
    await object.put();
  }
}

async function bringBack(
  object: MemoryObject,
  pagemap: DevicePagemap,
  runs: readonly DeviceRun[],
  cause: MigrateCause,
): Promise<void> {
  const since = traceNow();
  const first = runs[0];
  const last = runs[runs.length - 1];
  for (const run of runs) {
    object.updateFlags(run.page, run.page + run.count, PageFlag.Busy, 0);
  }
  try {
    await announceOnObject(
      object,
      first.page,
      last.page + last.count,
      "migrate",
      () => isolateRuns(object, runs),
      pagemap.owner,
    );
    await pagemap.ops.migrateToRam(runs, (run, byteOffset, bytes) => copyToWindows(run, byteOffset, bytes));
  } catch (error) {
    const lost = error instanceof KernelError && error.code === "ENODEV";
    for (const run of runs) {
      if (lost) {
        poisonPages(object, run.page, run.page + run.count);
      } else {
        restorePages(object, run.page, run.page + run.count);
      }
    }
    object.wq.wakeAll();
    if (!lost) {
      throw error;
    }
    return;
  }
  for (const run of runs) {
    landPages(object, run.page, run.page + run.count);
    if (traceOn) {
      traceMigrate(object, run.page, run.page + run.count, "host", cause, since);
    }
  }
  object.wq.wakeAll();
}

/** A piece may end within a page, and a run may lie in several windows: copied window by window. */
function copyToWindows({ object, page, count }: DeviceRun, byteOffset: number, bytes: Uint8Array): void {
  for (let done = 0; done < bytes.length; ) {
    const at = byteOffset + done;
    const p = page + Math.floor(at / PAGE_SIZE);
    const window = object.windows.bytes(p, object.windows.grownEnd(p, windowEnd(p, page + count)));
    const n = Math.min(window.length - (at % PAGE_SIZE), bytes.length - done);
    window.set(bytes.subarray(done, done + n), at % PAGE_SIZE);
    done += n;
  }
}

/** Device-private entries become migration entries: walkers that meet one wait. */
function isolateRuns(object: MemoryObject, runs: readonly DeviceRun[]): void {
  for (const run of runs) {
    isolateEntries(object, run.page, run.page + run.count);
  }
}

/**
 * Entries of pages, in system memory or on a device, become migration entries; a device that had one for itself has been
 * told. The pages are marked Busy.
 */
export function isolateEntries(object: MemoryObject, page: number, end: number): void {
  forgetExclusive(object, page, end);
  rewriteEntries(object, page, end, (pte) =>
    pte & PTE_PRESENT || pteIsKind(pte, PteKind.DevicePrivate) || pteIsKind(pte, PteKind.DeviceExclusive)
      ? pteOfKind(PteKind.Migrating, ptePfn(pte), (pte & PTE_WRITE) as 0 | 2)
      : pte,
  );
}

/** The bytes are in the window: pages are the host's again, mapped read-only so that the next write is announced. */
export function landPages(object: MemoryObject, page: number, end: number): void {
  const dirty = object.pager === undefined ? 0 : PageFlag.Dirty;
  object.updateFlags(
    page,
    end,
    PageFlag.Uptodate | PageFlag.Own | PageFlag.Used | dirty,
    PageFlag.Device | PageFlag.Busy | PageFlag.Coherent,
  );
  rewriteEntries(object, page, end, (pte, vma, p) =>
    pteIsKind(pte, PteKind.Migrating) || pteIsKind(pte, PteKind.DevicePrivate)
      ? vma.flags & VmFlags.Read
        ? ptePresent(framePfn(object, p), 0)
        : PTE_NONE
      : pte,
  );
}

/** Nothing was moved: the pages are what they were, those of the host mapped read-only. Synchronous, cannot fail. */
export function restorePages(object: MemoryObject, page: number, end: number): void {
  object.updateFlags(page, end, 0, PageFlag.Busy);
  rewriteEntries(object, page, end, (pte, vma, p) => {
    if (!pteIsKind(pte, PteKind.Migrating)) {
      return pte;
    }
    if (object.flagsOf(p) & PageFlag.Device) {
      return pteOfKind(PteKind.DevicePrivate, object.devicePfnOf(p), (pte & PTE_WRITE) as 0 | 2);
    }
    return vma.flags & VmFlags.Read ? ptePresent(framePfn(object, p), 0) : PTE_NONE;
  });
}

/**
 * Takes pages of `[page, end)` out of coherent device memory. Their bytes are in the window all the time, so that nothing is
 * in transit; devices are told, and frames are freed.
 */
export function bringCoherentHome(object: MemoryObject, page: number, end: number): MaybePromise<void> {
  if ((object.flagSummary(page, end) & PageFlag.Coherent) === 0) {
    return undefined;
  }
  return announceOnObject(object, page, end, "migrate", () => {
    for (let p = page; p < end; p++) {
      if ((object.flagsOf(p) & (PageFlag.Coherent | PageFlag.Busy)) === PageFlag.Coherent) {
        leaveFrame(object, p);
      }
    }
  });
}

function leaveFrame(object: MemoryObject, page: number): void {
  const pfn = object.devicePfnOf(page);
  const pagemap = object.memory.blockOf(pfn)?.pagemap;
  const frame = pagemap?.frameOf(pfn);
  invariant(pagemap !== undefined && frame !== undefined, "I-MIG-1", () => `page ${page} is on no device`);
  object.updateFlags(page, page + 1, 0, PageFlag.Coherent);
  forgetExclusive(object, page, page + 1);
  rewriteEntries(object, page, page + 1, (pte, vma) =>
    pte & PTE_PRESENT || pteIsKind(pte, PteKind.DeviceExclusive)
      ? vma.flags & VmFlags.Read
        ? ptePresent(hostPfn(object, page), 0)
        : PTE_NONE
      : pte,
  );
  pagemap.ops.pageFree(frame, 1);
}

/** Number of the frame that a CPU's entry for the page names, whose block exists. */
export function framePfn(object: MemoryObject, page: number): number {
  return object.flagsOf(page) & PageFlag.Coherent ? object.devicePfnOf(page) : hostPfn(object, page);
}

/** Number of the frame in system memory that belongs to a page whose block exists. */
export function hostPfn(object: MemoryObject, page: number): number {
  const block = object.block(Math.floor(page / 512));
  invariant(block !== undefined, "I-MM-5", () => `page ${page} is mapped but has no frame`);
  return block.pfn + (page % 512);
}

/**
 * The only copy of the pages is gone: CPU and devices get an error there, never zeros.
 * @linux mm/memory-failure.c memory_failure
 */
export function poisonPages(object: MemoryObject, page: number, end: number): void {
  object.updateFlags(page, end, PageFlag.Poisoned, PageFlag.Device | PageFlag.Busy | PageFlag.Uptodate);
  rewriteEntries(object, page, end, (pte) => pteOfKind(PteKind.Poisoned, ptePfn(pte)));
  if (traceOn) {
    tracePoison(object, page, end);
  }
  object.wq.wakeAll();
}
