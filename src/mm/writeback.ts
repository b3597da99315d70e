/** Dirty pages of shared objects on their way back to the pager. */
import { isPromise, KernelError, type MaybePromise, PAGE_SIZE, PAGES_PER_BLOCK } from "../base/index.ts";
import type { AddressSpace } from "./address-space.ts";
import { syncCpuWrites } from "./cpu-trap.ts";
import type { MemoryObject } from "./memory-object.ts";
import { waitWhileBusy } from "./object-content.ts";
import { migrateToRam } from "./object-migrate.ts";
import { PageFlag } from "./page-flags.ts";
import { assertNoHoles, pageRange } from "./range-args.ts";
import { isWritable, writeProtectPages } from "./rmap.ts";
import type { Vma } from "./vma.ts";
import { putObjects, vmasIn } from "./vma-ops.ts";

/** Pages written in one go: 4 MiB. */
const WRITE_PAGES = 1024;

/** Pages whose bytes cannot be written now. */
const NOT_HERE = PageFlag.Busy | PageFlag.Device | PageFlag.Poisoned;
const HERE_OR_NOT = NOT_HERE | PageFlag.Uptodate;

/**
 * Writes the dirty pages of `[page, end)` to the pager. Pages on a device come back first. Pages that a lease may still
 * change are written and stay dirty.
 * @throws KernelError EIO, ENOSPC; the pages that failed are dirty still
 */
export async function writeBack(object: MemoryObject, page: number, end: number): Promise<void> {
  const { pager } = object;
  if (pager === undefined || !pager.writable) {
    return;
  }
  const synced = syncCpuWrites(object, page, end);
  if (isPromise(synced)) {
    await synced;
  }
  for (const [from, to] of runsWith(object, page, end, PageFlag.Device | PageFlag.Busy)) {
    await waitWhileBusy(object, from, to);
    await migrateToRam(object, from, to, "writeback");
  }
  for (const [from, to] of runsWith(object, page, end, PageFlag.Dirty)) {
    for (let p = from; p < to; p += WRITE_PAGES) {
      await writeRun(object, p, Math.min(to, p + WRITE_PAGES));
    }
  }
}

async function writeRun(object: MemoryObject, page: number, end: number): Promise<void> {
  const { pager } = object;
  if ((object.flagSummary(page, end) >> 8) & PageFlag.Uptodate) {
    // Cleared before the bytes are read: a write that comes later marks the page again.
    const clean = await protect(object, page, end);
    if (!((object.flagSummary(page, end) >> 8) & PageFlag.Uptodate)) {
      return writeRun(object, page, end);
    }
    if (clean) {
      object.updateFlags(page, end, 0, PageFlag.Dirty);
    }
    try {
      const bytes = Math.min((end - page) * PAGE_SIZE, (pager?.length ?? 0) - page * PAGE_SIZE);
      if (bytes > 0) {
        await pager?.write(page * PAGE_SIZE, object.windows.bytes(page, end).subarray(0, bytes));
      }
    } catch (error) {
      object.updateFlags(page, end, PageFlag.Dirty, 0);
      throw error;
    }
    return;
  }
  // Mapped writable but never touched: the pager's bytes are the page's. In transit or on a device again: dirty still.
  for (let p = page; p < end; p++) {
    const flags = object.flagsOf(p);
    if (flags & PageFlag.Uptodate) {
      await writeRun(object, p, p + 1);
    } else if (!(flags & NOT_HERE) && (await protect(object, p, p + 1)) && !(object.flagsOf(p) & HERE_OR_NOT)) {
      object.updateFlags(p, p + 1, 0, PageFlag.Dirty);
    }
  }
}

/** Takes write permission away; false when somebody has it still, or again. In one run to completion with the caller. */
function protect(object: MemoryObject, page: number, end: number): MaybePromise<boolean> {
  const protectedNow = writeProtectPages(object, page, end);
  return isPromise(protectedNow) ? protectedNow.then((done) => done && !isWritable(object, page, end)) : protectedNow;
}

/** Runs of pages with one of the flags, cut at 2 MiB blocks. */
function runsWith(object: MemoryObject, page: number, end: number, mask: number): [number, number][] {
  const runs: [number, number][] = [];
  for (let base = Math.floor(page / PAGES_PER_BLOCK); base * PAGES_PER_BLOCK < end; base++) {
    const flags = object.block(base)?.flags;
    if (flags === undefined) {
      continue;
    }
    const first = base * PAGES_PER_BLOCK;
    for (let p = Math.max(page, first); p < Math.min(end, first + PAGES_PER_BLOCK); p++) {
      if (flags[p - first] & mask) {
        const last = runs.at(-1);
        if (last !== undefined && last[1] === p) {
          last[1] = p + 1;
        } else {
          runs.push([p, p + 1]);
        }
      }
    }
  }
  return runs;
}

/**
 * Writes back, before `[start, end)` of these VMAs goes, the pages of shared objects that nothing else maps.
 * @throws KernelError EIO, ENOSPC
 */
export async function flushLastReferences(vmas: readonly Vma[], start: number, end: number): Promise<void> {
  const doomed = new Set(vmas);
  for (const vma of vmas) {
    if (!vma.shared || !vma.object.pager?.writable) {
      continue;
    }
    const page = vma.objectPage(Math.max(start, vma.start));
    const stop = Math.min(vma.object.pages, vma.objectPage(Math.min(end, vma.end) - 1) + 1);
    let kept = page >= stop;
    vma.object.vmas.forEachOverlap(page, stop, (other) => {
      kept ||= !doomed.has(other);
    });
    if (!kept) {
      await writeBack(vma.object, page, stop);
    }
  }
}

/**
 * Drops the object references of VMAs that are gone. What nobody maps any more is written back first: two spaces that
 * exit at once each saw the other's mapping when they began. All references are dropped, whatever fails.
 * @throws KernelError EIO, ENOSPC the first failure
 */
export async function releaseObjects(objects: readonly MemoryObject[]): Promise<void> {
  let failure: { readonly error: unknown } | undefined;
  for (const object of new Set(objects)) {
    if (object.vmas.size === 0 && object.pager?.writable) {
      try {
        await writeBack(object, 0, object.pages);
      } catch (error) {
        failure ??= { error };
      }
    }
  }
  await putObjects(objects);
  if (failure !== undefined) {
    throw failure.error;
  }
}

/**
 * Writes the dirty pages of shared mappings in the range to their files and makes them durable.
 *
 * Locks: takes mmapLock, read.
 * @throws KernelError EINVAL; ENOMEM a hole; EIO, ENOSPC; EIO also when changes were lost with a device; ESRCH
 * @linux mm/msync.c msync (MS_SYNC)
 */
export async function msync(mm: AddressSpace, start: number, length: number): Promise<void> {
  const range = pageRange("msync", start, length);
  using _lock = await mm.mmapLock.read();
  mm.assertAlive("msync");
  assertNoHoles(mm, "msync", range.start, range.end);
  for (const vma of vmasIn(mm, range.start, range.end)) {
    if (vma.shared && vma.object.pager?.writable) {
      const from = vma.objectPage(Math.max(range.start, vma.start));
      const to = vma.objectPage(Math.min(range.end, vma.end) - 1) + 1;
      await writeBack(vma.object, from, Math.min(to, vma.object.pages));
      await vma.object.pager.sync();
      if (vma.object.flagSummary(from, to) & PageFlag.Poisoned) {
        throw new KernelError("EIO", "msync", `${vma.name}: changes were lost with the device that held them`);
      }
    }
  }
}
