/**
 * Entries of {@link hmmRangeFault}, one u32 a page:
 *
 *      31                                   5 4   3   2     1     0
 *     +--------------------------------------+-----+-----+-----+-----+
 *     | pfn (27 bits)                        |order|error|write|valid|
 *     +--------------------------------------+-----+-----+-----+-----+
 *
 * Linux has 64 bits and five for the order; the orders that matter to a device (4 KiB, 64 KiB, 2 MiB) fit into two. As a
 * request, `valid` asks for a fault and `write` for a write fault.
 */
import type { Pfn } from "../base/index.ts";
import type { HmmPfnFormat } from "./pfns.ts";

/** The device may read the page. @linux include/linux/hmm.h HMM_PFN_VALID */
export const HMM_PFN_VALID = 1;
/** The device may write it. Only with VALID. @linux include/linux/hmm.h HMM_PFN_WRITE */
export const HMM_PFN_WRITE = 2;
/** The CPU itself could not have the page: nothing mapped, no permission, lost. @linux include/linux/hmm.h HMM_PFN_ERROR */
export const HMM_PFN_ERROR = 4;
/** Request: make it readable. @linux include/linux/hmm.h HMM_PFN_REQ_FAULT */
export const HMM_PFN_REQ_FAULT = HMM_PFN_VALID;
/** Request: make it writable. Only together with REQ_FAULT. @linux include/linux/hmm.h HMM_PFN_REQ_WRITE */
export const HMM_PFN_REQ_WRITE = HMM_PFN_WRITE;

const ORDER_SHIFT = 3;
const ORDER_MASK = 3 << ORDER_SHIFT;
const PFN_SHIFT = 5;
/** What the two bits stand for. */
const ORDERS = [0, 4, 9] as const;

/** How the walks write these entries. A device-private page of the owner is an ordinary valid entry. */
export const INTERVAL_PFN_FORMAT: HmmPfnFormat = {
  flags: { valid: HMM_PFN_VALID, write: HMM_PFN_WRITE, devicePrivate: 0 },
  values: { none: 0, error: HMM_PFN_ERROR, special: HMM_PFN_ERROR },
  pfnShift: PFN_SHIFT,
};

/** The pfn of an entry, or -1 when it is not valid. @linux include/linux/hmm.h hmm_pfn_to_page */
export function hmmPfnToPfn(entry: number): Pfn | -1 {
  return entry & HMM_PFN_VALID ? ((entry >>> PFN_SHIFT) as Pfn) : -1;
}

/**
 * The entry belongs to an aligned block of `2 ** order` pages, all in the range, with frames that follow each other and
 * equal permission: a device may map them with one entry.
 * @linux include/linux/hmm.h hmm_pfn_to_map_order
 */
export function hmmPfnToMapOrder(entry: number): number {
  return ORDERS[(entry & ORDER_MASK) >>> ORDER_SHIFT] ?? 0;
}

/** Fills in the order bits of entries for pages from `vpn` on. */
export function setMapOrders(pfns: Uint32Array, pages: number, vpn: number): void {
  for (let i = 0; i < pages; ) {
    const stop = runEnd(pfns, pages, i);
    if (stop - i >= 2 ** ORDERS[1]) {
      markRun(pfns, i, stop, vpn, 1);
      if (stop - i >= 2 ** ORDERS[2]) {
        markRun(pfns, i, stop, vpn, 2);
      }
    }
    i = stop;
  }
}

/** One past the last page whose frame and permission go on as at page `i`. */
function runEnd(pfns: Uint32Array, pages: number, i: number): number {
  let p = i + 1;
  if (pfns[i] & HMM_PFN_VALID) {
    const step = 1 << PFN_SHIFT;
    while (p < pages && pfns[p] === pfns[p - 1] + step) {
      p++;
    }
  }
  return p;
}

/** Marks the blocks in run `[from, to)` that are aligned both as addresses and as frames. */
function markRun(pfns: Uint32Array, from: number, to: number, vpn: number, order: 1 | 2): void {
  const size = 2 ** ORDERS[order];
  const first = from + ((size - ((vpn + from) % size)) % size);
  if ((pfns[first] >>> PFN_SHIFT) % size !== 0) {
    return;
  }
  for (let i = first; i + size <= to; i += size) {
    for (let p = i; p < i + size; p++) {
      pfns[p] = (pfns[p] & ~ORDER_MASK) | (order << ORDER_SHIFT);
    }
  }
}
