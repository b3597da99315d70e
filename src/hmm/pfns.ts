/**
 * Entries of a range's `pfns` array: `(pfn << pfnShift) | flags`, in the driver's own bits, or one of three values that
 * stand for "no page".
 */
import { KernelError, type Pfn } from "../base/index.ts";

/** The driver's bits for what an entry grants. @linux include/linux/hmm.h enum hmm_pfn_flag_e */
export interface HmmPfnFlags {
  /** Readable. */
  readonly valid: number;
  readonly write: number;
  /** The pfn names a frame of the driver's own device memory. */
  readonly devicePrivate: number;
}

/** What entries without a page hold. @linux include/linux/hmm.h enum hmm_pfn_value_e */
export interface HmmPfnValues {
  /** The page is poisoned, or its fault failed. May equal `special`. */
  readonly error: number;
  /** No entry. Unlike the two others. */
  readonly none: number;
  /** Mapped, but with no page behind it: never usable by a device. */
  readonly special: number;
}

export const DEFAULT_PFN_FLAGS: HmmPfnFlags = { valid: 1, write: 2, devicePrivate: 4 };
export const DEFAULT_PFN_VALUES: HmmPfnValues = { error: 8, none: 0, special: 16 };
/** Leaves 27 bits for the pfn. */
export const DEFAULT_PFN_SHIFT = 5;

/** How the entries of one range are written. */
export interface HmmPfnFormat {
  readonly flags: HmmPfnFlags;
  readonly values: HmmPfnValues;
  readonly pfnShift: number;
}

/** @throws KernelError EINVAL when the tables contradict themselves or do not fit */
export function checkPfnFormat({ flags, values, pfnShift }: HmmPfnFormat): void {
  const fail = (why: string): never => {
    throw new KernelError("EINVAL", "HmmRange", why);
  };
  if (!(pfnShift >= 0 && pfnShift <= DEFAULT_PFN_SHIFT)) {
    fail(`pfnShift ${pfnShift} leaves less than 27 bits for a pfn: use 0 to ${DEFAULT_PFN_SHIFT}`);
  }
  if ([flags.valid, flags.write, flags.devicePrivate].some((bit) => bit <= 0 || bit >= 2 ** pfnShift)) {
    fail(`flags must be bits below the pfn, 1 to ${2 ** pfnShift - 1}`);
  }
  if (values.none === values.error || values.none === values.special) {
    fail("values.none must differ from values.error and values.special");
  }
}

/** @linux include/linux/hmm.h hmm_device_entry_from_pfn */
export function entryFromPfn(format: HmmPfnFormat, pfn: number): number {
  return ((pfn << format.pfnShift) | format.flags.valid) >>> 0;
}

/** The pfn of an entry, or -1 when it names no page. @linux include/linux/hmm.h hmm_device_entry_to_pfn */
export function entryToPfn(format: HmmPfnFormat, entry: number): Pfn | -1 {
  const { values, flags } = format;
  if (entry === values.none || entry === values.error || entry === values.special || (entry & flags.valid) === 0) {
    return -1;
  }
  return (entry >>> format.pfnShift) as Pfn;
}
