/** Invalidations of many scattered pages at once: which parts of their range change. */
import type { VirtAddr } from "../base/index.ts";
import type { MmuNotifierRange } from "./ports.ts";

/** A range, and which of it is meant: all of it without `parts`. */
export type PartedRange = Pick<MmuNotifierRange, "start" | "end" | "parts">;

/** Calls `visit` for each part of the range that changes, in order. */
export function forEachPart(range: PartedRange, visit: (start: VirtAddr, end: VirtAddr) => void): void {
  const { start, end, parts } = range;
  if (parts === undefined) {
    visit(start, end);
    return;
  }
  for (let i = 0; i < parts.length; i += 2) {
    visit(parts[i] as VirtAddr, parts[i + 1] as VirtAddr);
  }
}

/** Whether an invalidation changes something in `[start, end)`. */
export function changesIn(range: PartedRange, start: number, end: number): boolean {
  if (range.start >= end || range.end <= start) {
    return false;
  }
  const { parts } = range;
  if (parts === undefined) {
    return true;
  }
  const first = firstPartBehind(parts, start);
  return first < parts.length && parts[first] < end;
}

/** Index into `parts` of the first part that ends behind an address, or their length. */
export function firstPartBehind(parts: Float64Array, addr: number): number {
  let low = 0;
  let high = parts.length >>> 1;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (parts[2 * middle + 1] > addr) {
      high = middle;
    } else {
      low = middle + 1;
    }
  }
  return 2 * low;
}

/** Whether whoever is told of `told` knows all that `range` changes. */
export function coversParts(told: PartedRange, range: PartedRange): boolean {
  if (told.start > range.start || told.end < range.end) {
    return false;
  }
  const [known, parts] = [told.parts, range.parts];
  return (
    known === undefined ||
    (parts !== undefined && known.length === parts.length && known.every((p, i) => p === parts[i]))
  );
}
