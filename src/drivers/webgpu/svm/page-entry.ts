/** Device pages of svm mode, and their page-table entries. */
import { PAGE_SIZE, type VirtAddr } from "../../../base/index.ts";
import { SVM_APERTURE_BASE } from "../../../mm/index.ts";

/** Bytes of a device page. */
export const DEVICE_PAGE = 16_384;
/** CPU pages in a device page. */
export const SUB_PAGES = DEVICE_PAGE / PAGE_SIZE;
/** 4-byte words in a device page. */
export const DEVICE_PAGE_WORDS = DEVICE_PAGE / 4;

/** Bits of a device page-table entry; the frame's number lies above them. */
export const SvmPte = {
  /** All CPU pages that may be read are in the frame. */
  Valid: 1,
  /** And those that may be written are the device's own. */
  Write: 2,
  /** Accesses are to be noted, for eviction. */
  Track: 4,
  /** A bit for each CPU page that may be read: a miss is a fault there, and fatal elsewhere. */
  ReadableShift: 4,
  /** A bit for each that may be written. */
  WritableShift: 8,
  FrameShift: 12,
} as const;

/** Where a device page of the aperture begins. */
export function addrOfPage(page: number): VirtAddr {
  return (SVM_APERTURE_BASE + page * DEVICE_PAGE) as VirtAddr;
}

/** The device page of the aperture that holds the address. */
export function pageOfAddr(addr: number): number {
  return Math.floor((addr - SVM_APERTURE_BASE) / DEVICE_PAGE);
}

/** CPU pages of a device page that may be read, a bit each. `access` is a byte of `accessOfMappings`. */
export function readablePages(access: number): number {
  return access & 15;
}

/** Those that may be written; all of them may be read. */
export function writablePages(access: number): number {
  return access >> 4;
}

/** The bits of an entry that say what is mapped, whatever is resident. */
export function mappedBits(access: number): number {
  return access << SvmPte.ReadableShift;
}
