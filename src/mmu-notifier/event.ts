/** What an invalidation's event tells a driver. */
import { type MmuNotifierRange, VmFlags } from "../mm/index.ts";

/**
 * True when the invalidation only takes write permission away: device entries may stay, read-only.
 * @linux mm/mmu_notifier.c mmu_notifier_range_update_to_read_only
 */
export function rangeUpdateToReadOnly(range: MmuNotifierRange): boolean {
  return range.event === "protection-vma" && ((range.vmFlags ?? 0) & VmFlags.Read) !== 0;
}
