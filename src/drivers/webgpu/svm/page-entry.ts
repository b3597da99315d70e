/** Device pages of svm mode, and their page-table entries. */
import { PAGE_SIZE, type VirtAddr } from "../../../base/index.ts";
import { SVM_APERTURE_BASE } from "../../../mm/index.ts";

/** Bytes of a device page. */
export const DEVICE_PAGE = 16_384;
/** CPU pages in a device page. */
export const SUB_PAGES = DEVICE_PAGE / PAGE_SIZE;
/** 4-byte words in a device page. */
export const DEVICE_PAGE_WORDS = DEVICE_PAGE / 4;

/** Flags of a device page-table entry; the frame's number lies above them. */
export const SvmPte = {
  Valid: 1,
  Write: 2,
  /** Some mapping is there: a miss is a fault. Without it a miss is fatal. */
  Mapped: 4,
  /** The mapping may be written. */
  MappedWrite: 8,
  /** Accesses are to be noted, for eviction. */
  Track: 16,
  /** Two bits: CPU pages of the device page that are mapped, less one. */
  SubPagesShift: 5,
  FrameShift: 12,
} as const;

export function addrOfPage(page: number): VirtAddr {
  return (SVM_APERTURE_BASE + page * DEVICE_PAGE) as VirtAddr;
}

export function pageOfAddr(addr: number): number {
  return Math.floor((addr - SVM_APERTURE_BASE) / DEVICE_PAGE);
}

/** Length of the run of ones at the low end of a nibble: CPU pages that are mapped from the device page's start on. */
const PREFIX = Uint8Array.from({ length: 16 }, (_, nibble) => {
  let n = 0;
  while (nibble & (1 << n)) {
    n++;
  }
  return n;
});

/**
 * How many CPU pages of a device page kernels can reach: those from its start up to the first hole.
 * `access` holds a bit for each readable CPU page in its low nibble, and for each writable one in its high nibble.
 */
export function reachablePages(access: number): number {
  return PREFIX[access & 15];
}

/** The flags of an entry that say what is mapped, whatever is resident. */
export function mappedFlags(access: number): number {
  const pages = reachablePages(access);
  if (pages === 0) {
    return 0;
  }
  const writable = PREFIX[access >> 4] >= pages ? SvmPte.MappedWrite : 0;
  return SvmPte.Mapped | writable | ((pages - 1) << SvmPte.SubPagesShift);
}
