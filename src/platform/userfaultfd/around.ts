/** How much a page fault brings along. */
import { KernelError, PAGES_PER_BLOCK } from "../../base/index.ts";
import type { FaultAround } from "../../mm/index.ts";

/** Pages that a fault brings along from host memory, and from a device when faults are not sequential. */
export const AROUND: FaultAround = { host: 64, device: 16 };
export const SEQUENTIAL: FaultAround = { host: 64, device: PAGES_PER_BLOCK };
/** When the block has just come home. */
export const COME_HOME: FaultAround = { host: PAGES_PER_BLOCK, device: PAGES_PER_BLOCK };

/** @throws KernelError EINVAL unless it is a power of two up to 512 */
export function assertFaultAround(pages: number): void {
  // Of another type or too large for the operator, it is no equal of what the operator makes of it.
  if (!(pages >= 1 && pages <= PAGES_PER_BLOCK && (pages & -pages) === pages)) {
    throw new KernelError("EINVAL", "open", `faultAround ${pages}: use a power of two up to ${PAGES_PER_BLOCK} pages`);
  }
}
