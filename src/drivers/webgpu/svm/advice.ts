/** What a caller tells a device about memory before its kernels use it. */
import { KernelError } from "../../../base/index.ts";

/**
 * Advice about a range:
 *
 * - `read-mostly`: kernels seldom write it. Pages that are brought beside written ones come as read copies, which go without
 *   a write-back; a page becomes the device's own only where a kernel stores to it.
 * - `preferred-location`: the range stays on this device: its pages are given up only when no others can be.
 * - `none`: takes earlier advice back.
 *
 * It changes no result. It holds for device pages of 16 KiB, for one device, until they are unmapped.
 */
export type SvmAdvice = "read-mostly" | "preferred-location" | "none";

/** Advice as a table keeps it, one byte a device page. */
export const Advice = { None: 0, ReadMostly: 1, PreferredLocation: 2 } as const;

const CODES: Readonly<Record<SvmAdvice, number>> = {
  none: Advice.None,
  "read-mostly": Advice.ReadMostly,
  "preferred-location": Advice.PreferredLocation,
};

/** @throws KernelError EINVAL another word */
export function adviceCode(advice: SvmAdvice): number {
  if (!Object.hasOwn(CODES, advice)) {
    throw new KernelError("EINVAL", "advise", `"${advice}" is no advice: use ${Object.keys(CODES).join(", ")}`);
  }
  return CODES[advice];
}
