/**
 * One page-table entry, packed into a u32:
 *
 *      31                                   5 4     2  1     0
 *     +--------------------------------------+-------+-----+---------+
 *     | pfn (27 bits)                        | kind  |write| present |
 *     +--------------------------------------+-------+-----+---------+
 *
 * `kind` tells the entries that are not present apart; an entry of 0 is no entry at all.
 */
import type { Pfn } from "../base/index.ts";

export const PTE_NONE = 0;
export const PTE_PRESENT = 1;
export const PTE_WRITE = 2;
export const PTE_PFN_SHIFT = 5;

const KIND_SHIFT = 2;
const KIND_MASK = 7 << KIND_SHIFT;

/** Kinds of an entry that is not present. */
export const PteKind = {
  /** The page lives in device memory; pfn names the device frame. */
  DevicePrivate: 1 << KIND_SHIFT,
  /** The page is on its way; wait and look again. */
  Migrating: 2 << KIND_SHIFT,
  /** The only copy of the page was lost. */
  Poisoned: 3 << KIND_SHIFT,
  /** A mapping without a page behind it, never usable by devices. */
  Special: 4 << KIND_SHIFT,
  /** A device has the page in system memory for itself; pfn names its frame. */
  DeviceExclusive: 5 << KIND_SHIFT,
} as const;

/** A host page, readable, and writable when `write` is PTE_WRITE. */
export function ptePresent(pfn: number, write: 0 | typeof PTE_WRITE): number {
  return ((pfn << PTE_PFN_SHIFT) | write | PTE_PRESENT) >>> 0;
}

/** An entry that is not present. */
export function pteOfKind(kind: number, pfn: number, write: 0 | typeof PTE_WRITE = 0): number {
  return ((pfn << PTE_PFN_SHIFT) | kind | write) >>> 0;
}

/** The frame that an entry names. */
export function ptePfn(pte: number): Pfn {
  return (pte >>> PTE_PFN_SHIFT) as Pfn;
}

/** The kind of an entry that is not present; 0 for none. */
export function pteKind(pte: number): number {
  return pte & KIND_MASK;
}

/** True for an entry of that kind that is not present. */
export function pteIsKind(pte: number, kind: number): boolean {
  return (pte & (KIND_MASK | PTE_PRESENT)) === kind;
}
