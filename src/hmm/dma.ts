/** Mapping the pages of a range into a device's own bus addresses. */
import { chain, KernelError, type MaybePromise } from "../base/index.ts";
import { PageFlag, type PhysicalMemory } from "../mm/index.ts";
import type { MmapRead } from "../sync/index.ts";
import type { HmmTryAgain } from "./fault-loop.ts";
import { entryToPfn } from "./pfns.ts";
import type { HmmFaultOptions, HmmRange } from "./range.ts";

/** Which way a device moves data. */
export type DmaDirection = "to-device" | "bidirectional";

/** What maps single pages for a device. Synchronous: between a fault and its use nothing may wait. */
export interface DmaDevice {
  /** The bus address, not 0; undefined when the page cannot be mapped. @linux include/linux/dma-mapping.h dma_map_page */
  mapPage(pfn: number, direction: DmaDirection): number | undefined;
  /** @linux include/linux/dma-mapping.h dma_unmap_page */
  unmapPage(daddr: number, direction: DmaDirection): void;
}

/**
 * Faults the range in and maps its pages: `daddrs[i]` is page i's bus address, 0 for an entry without a page. Returns how
 * many were mapped, or {@link HmmTryAgain}. Test `range.valid` under the update lock before using them.
 *
 * Locks: `mm.mmapLock`, read; held on return, but for EAGAIN.
 * @throws KernelError as `HmmRange.faultLocked`; EINVAL when `daddrs` is too short; EFAULT when the device cannot map a page
 *   (nothing is mapped then)
 * @linux mm/hmm.c hmm_range_dma_map (5.4)
 */
export function hmmRangeDmaMap(
  range: HmmRange,
  lock: MmapRead,
  device: DmaDevice,
  daddrs: Float64Array,
  options?: HmmFaultOptions,
): MaybePromise<number | HmmTryAgain> {
  checkBuffers("hmmRangeDmaMap", range, daddrs);
  return chain(range.faultLocked(lock, options), (faulted) =>
    typeof faulted === "number" ? mapPages(range, device, daddrs, faulted) : faulted,
  );
}

function mapPages(range: HmmRange, device: DmaDevice, daddrs: Float64Array, pages: number): number | "EBUSY" {
  let mapped = 0;
  daddrs.fill(0, 0, pages);
  for (let i = 0; i < pages; i++) {
    const pfn = entryToPfn(range, range.pfns[i]);
    if (pfn === -1) {
      continue;
    }
    if (!range.valid) {
      unmapPages(range, device, daddrs, i);
      return "EBUSY";
    }
    const daddr = device.mapPage(pfn, directionOf(range, i));
    if (daddr === undefined) {
      unmapPages(range, device, daddrs, i);
      throw new KernelError("EFAULT", "hmmRangeDmaMap", `the device cannot map page ${i} of the range`);
    }
    daddrs[i] = daddr;
    mapped++;
  }
  return mapped;
}

/** Undoes the first `pages` entries and resets all. */
function unmapPages(range: HmmRange, device: DmaDevice, daddrs: Float64Array, pages: number): void {
  for (let i = 0; i < pages; i++) {
    if (daddrs[i] !== 0) {
      device.unmapPage(daddrs[i], directionOf(range, i));
      daddrs[i] = 0;
    }
  }
  range.pfns.fill(range.values.none, 0, range.pages);
}

/**
 * Unmaps what {@link hmmRangeDmaMap} mapped. With `"dirty"`, pages that the device could write count as changed. Returns how
 * many were unmapped. The caller excludes a concurrent sync callback (its update lock).
 * @throws KernelError EINVAL for an empty range, or when `daddrs` or `pfns` is too short
 * @linux mm/hmm.c hmm_range_dma_unmap (5.4)
 */
export function hmmRangeDmaUnmap(
  range: HmmRange,
  memory: PhysicalMemory,
  device: DmaDevice,
  daddrs: Float64Array,
  dirty: "dirty" | "clean",
): number {
  checkBuffers("hmmRangeDmaUnmap", range, daddrs);
  let unmapped = 0;
  for (let i = 0; i < range.pages; i++) {
    const pfn = entryToPfn(range, range.pfns[i]);
    if (pfn !== -1 && daddrs[i] !== 0) {
      const direction = directionOf(range, i);
      if (direction === "bidirectional" && dirty === "dirty") {
        setPageDirty(memory, pfn);
      }
      device.unmapPage(daddrs[i], direction);
      unmapped++;
    }
    daddrs[i] = 0;
    range.pfns[i] = range.values.none;
  }
  return unmapped;
}

function directionOf(range: HmmRange, i: number): DmaDirection {
  return range.pfns[i] & range.flags.write ? "bidirectional" : "to-device";
}

/** @linux mm/page-writeback.c set_page_dirty */
function setPageDirty(memory: PhysicalMemory, pfn: number): void {
  const owner = memory.pageOf(pfn);
  owner?.object.updateFlags(owner.page, owner.page + 1, PageFlag.Dirty, 0);
}

function checkBuffers(op: string, range: HmmRange, daddrs: Float64Array | undefined): void {
  if (range.end <= range.start) {
    throw new KernelError("EINVAL", op, "the range is empty");
  }
  if (daddrs === undefined || daddrs.length < range.pages || range.pfns.length < range.pages) {
    throw new KernelError("EINVAL", op, `the range has ${range.pages} pages: give pfns and daddrs as many entries`);
  }
}
