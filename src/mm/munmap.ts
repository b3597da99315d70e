/** munmap: mappings go; what they covered in part is cut. */
import { trace, traceIdOf, traceOn, type VirtAddr } from "../base/index.ts";
import type { AddressSpace } from "./address-space.ts";
import { unmapFromCpu } from "./cpu-trap.ts";
import type { MemoryObject } from "./memory-object.ts";
import { pageRange } from "./range-args.ts";
import { announce } from "./rmap.ts";
import { chargeCuts, cutAround, dropUnmapped, unlinkVma, vmasIn, zapAndFreeTables } from "./vma-ops.ts";
import { flushLastReferences, releaseObjects } from "./writeback.ts";

/**
 * Unmaps `[start, start + length)`. Holes are skipped, as the kernel does.
 *
 * Shared file pages that nobody else maps are written back first.
 * Locks: takes mmapLock, write.
 * @throws KernelError EINVAL a bad range; ENOMEM for a cut (nothing has changed); EIO, ENOSPC a file cannot be written back
 *   (nothing has changed); ESRCH
 * @linux mm/mmap.c __do_munmap
 */
export async function munmap(mm: AddressSpace, start: number, length: number): Promise<void> {
  const range = pageRange("munmap", start, length);
  using _lock = await mm.mmapLock.write();
  mm.assertAlive("munmap");
  chargeCuts(mm, range.start, range.end);
  await releaseObjects(await unmapRange(mm, range.start, range.end));
}

/**
 * The second half of munmap; cannot fail but for write-back. Returns the object references that the VMAs gave up.
 *
 * Locks: mmapLock, write; cuts are charged.
 */
export async function unmapRange(mm: AddressSpace, start: VirtAddr, end: VirtAddr): Promise<MemoryObject[]> {
  await flushLastReferences(vmasIn(mm, start, end), start, end);
  return unmapWritten(mm, start, end);
}

/** {@link unmapRange} of what has been written back already: it cannot fail. */
export async function unmapWritten(mm: AddressSpace, start: VirtAddr, end: VirtAddr): Promise<MemoryObject[]> {
  const doomed = vmasIn(mm, start, end);
  if (doomed.length === 0) {
    return [];
  }
  const hull = {
    mm,
    start: Math.max(start, doomed[0].start) as VirtAddr,
    end: Math.min(end, doomed[doomed.length - 1].end) as VirtAddr,
    blockable: true,
    event: "unmap" as const,
  };
  if (traceOn) {
    trace("mm.unmap", { space: traceIdOf(mm), start: hull.start, end: hull.end });
  }
  return announce([hull], () =>
    cutAround(mm, start, end).map((vma) => {
      unlinkVma(vma);
      zapAndFreeTables(mm, vma.start, vma.end);
      if (!vma.shared) {
        dropUnmapped(vma.object, vma.pgoff, vma.pgoff + vma.pages);
      } else {
        // The object lives on with others; plain arrays find out at their next access whether somebody maps the page.
        unmapFromCpu(vma.object, vma.pgoff, Math.min(vma.object.pages, vma.pgoff + vma.pages));
      }
      return vma.object;
    }),
  );
}
