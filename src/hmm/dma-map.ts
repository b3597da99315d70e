/** Bus addresses of the pages of a range, kept from one fault to the next. */
import { KernelError, PAGE_SIZE } from "../base/index.ts";
import { PageFlag, type PhysicalMemory } from "../mm/index.ts";
import type { DmaDevice, DmaDirection } from "./dma.ts";
import { HMM_PFN_WRITE, hmmPfnToPfn } from "./interval-pfns.ts";

/** A device that may give bus addresses that follow each other, reserved before the pages are known. */
export interface HmmDmaDevice extends DmaDevice {
  /** Data goes through other pages on its way, so that a mapping cannot last. */
  readonly bounces?: boolean;
  /** Reserves bus addresses for so many pages; undefined when it has none. @linux dma_iova_try_alloc */
  reserveIova?(pages: number): number | undefined;
  /** Maps a page at a reserved address; false when it cannot. @linux dma_iova_link */
  linkPage?(daddr: number, pfn: number, direction: DmaDirection): boolean;
  unlinkPage?(daddr: number, direction: DmaDirection): void;
  freeIova?(daddr: number, pages: number): void;
}

/**
 * Entries and bus addresses of a range of pages. `pfns` is what `hmmRangeFault` fills in; page i is mapped when `daddrs[i]`
 * is not 0 (where Linux has a bit in the entry, HMM_PFN_DMA_MAPPED).
 * @linux include/linux/hmm-dma.h struct hmm_dma_map
 */
export class HmmDmaMap implements Disposable {
  readonly device: HmmDmaDevice;
  readonly pfns: Uint32Array;
  /** Bus addresses; 0 for a page that is not mapped. */
  readonly daddrs: Float64Array;
  readonly #memory: PhysicalMemory;
  readonly #iova: number | undefined;
  /** How page i was mapped: undone in the same direction, whatever its entry says by then. */
  readonly #written: Uint8Array;
  #freed = false;

  /** @internal Use {@link hmmDmaMapAlloc}. */
  constructor(device: HmmDmaDevice, memory: PhysicalMemory, pages: number) {
    this.device = device;
    this.#memory = memory;
    this.pfns = new Uint32Array(pages);
    this.daddrs = new Float64Array(pages);
    this.#written = new Uint8Array(pages);
    this.#iova = device.linkPage === undefined ? undefined : device.reserveIova?.(pages);
  }

  /** The addresses of all pages follow each other. */
  get usesIova(): boolean {
    return this.#iova !== undefined;
  }

  /**
   * Maps the page that entry i names; returns its bus address. Once it is mapped, the same address again until
   * {@link unmapPfn}. The caller has tested that the entry still holds, under its update lock.
   * @throws KernelError EFAULT the entry names no page, or the device cannot map it; EINVAL no such entry, or the map is freed
   * @linux mm/hmm.c hmm_dma_map_pfn
   */
  mapPfn(i: number): number {
    this.#check("hmmDmaMapPfn", i);
    if (this.daddrs[i] !== 0) {
      return this.daddrs[i];
    }
    const pfn = hmmPfnToPfn(this.pfns[i]);
    if (pfn === -1) {
      throw new KernelError("EFAULT", "hmmDmaMapPfn", `entry ${i} names no page: fault it in first`);
    }
    const direction = this.pfns[i] & HMM_PFN_WRITE ? "bidirectional" : "to-device";
    const daddr = this.#mapAt(i, pfn, direction);
    if (daddr === undefined) {
      throw new KernelError("EFAULT", "hmmDmaMapPfn", `the device cannot map page ${i} of the range`);
    }
    this.daddrs[i] = daddr;
    this.#written[i] = direction === "bidirectional" ? 1 : 0;
    return daddr;
  }

  #mapAt(i: number, pfn: number, direction: DmaDirection): number | undefined {
    if (this.#iova === undefined) {
      return this.device.mapPage(pfn, direction);
    }
    const daddr = this.#iova + i * PAGE_SIZE;
    return this.device.linkPage?.(daddr, pfn, direction) ? daddr : undefined;
  }

  /**
   * Unmaps entry i. False when it was not mapped. A page that the device could write counts as changed.
   * @throws KernelError EINVAL no such entry, or the map is freed
   * @linux mm/hmm.c hmm_dma_unmap_pfn
   */
  unmapPfn(i: number): boolean {
    this.#check("hmmDmaUnmapPfn", i);
    const daddr = this.daddrs[i];
    if (daddr === 0) {
      return false;
    }
    const direction = this.#written[i] ? "bidirectional" : "to-device";
    if (this.#iova === undefined) {
      this.device.unmapPage(daddr, direction);
    } else {
      this.device.unlinkPage?.(daddr, direction);
    }
    if (this.#written[i]) {
      this.#setDirty(i);
    }
    this.daddrs[i] = 0;
    return true;
  }

  #setDirty(i: number): void {
    const pfn = hmmPfnToPfn(this.pfns[i]);
    const owner = pfn === -1 ? undefined : this.#memory.pageOf(pfn);
    owner?.object.updateFlags(owner.page, owner.page + 1, PageFlag.Dirty, 0);
  }

  /** Unmaps everything and gives the addresses back. Idempotent. @linux mm/hmm.c hmm_dma_map_free */
  free(): void {
    if (this.#freed) {
      return;
    }
    for (let i = 0; i < this.daddrs.length; i++) {
      this.unmapPfn(i);
    }
    this.#freed = true;
    if (this.#iova !== undefined) {
      this.device.freeIova?.(this.#iova, this.daddrs.length);
    }
  }

  [Symbol.dispose](): void {
    this.free();
  }

  #check(op: string, i: number): void {
    if (this.#freed || !(i >= 0 && i < this.daddrs.length)) {
      throw new KernelError("EINVAL", op, this.#freed ? "the map is freed" : `the map has no entry ${i}`);
    }
  }
}

/**
 * Room for the bus addresses of `pages` pages: reserved in one stretch when the device can, else one a page.
 * @throws KernelError EINVAL no pages; ENOTSUP the device copies data on its way, so that a mapping cannot last
 * @linux mm/hmm.c hmm_dma_map_alloc
 */
export function hmmDmaMapAlloc(device: HmmDmaDevice, memory: PhysicalMemory, pages: number): HmmDmaMap {
  if (!Number.isSafeInteger(pages) || pages <= 0) {
    throw new KernelError("EINVAL", "hmmDmaMapAlloc", `a map of ${pages} pages: use at least 1`);
  }
  if (device.bounces) {
    throw new KernelError("ENOTSUP", "hmmDmaMapAlloc", "the device copies data on its way: copy it yourself");
  }
  return new HmmDmaMap(device, memory, pages);
}
