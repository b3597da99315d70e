/** Which pages of a window somebody holds by a lease. */
import type { MemoryObject } from "../../mm/index.ts";

/** Pages `[page, end)`. */
export interface Run {
  readonly page: number;
  readonly end: number;
}

/** Pages `[page, end)` of a window in order, cut where pins begin and end. `base`: the object's page that is the window's first. */
export function runsByPins(
  object: MemoryObject | undefined,
  base: number,
  page: number,
  end: number,
): (Run & { readonly pinned: boolean })[] {
  const runs: (Run & { readonly pinned: boolean })[] = [];
  let at = page;
  const pins = object?.pins;
  if (pins !== undefined && pins.size > 0) {
    const pinned: [number, number][] = [];
    pins.forEachOverlap(page + base, end + base, (_, from, to) => pinned.push([from, to]));
    pinned.sort(([a], [b]) => a - b);
    for (const [first, last] of pinned) {
      const from = Math.max(at, first - base);
      const to = Math.min(end, last - base);
      if (from < to) {
        if (at < from) {
          runs.push({ page: at, end: from, pinned: false });
        }
        runs.push({ page: from, end: to, pinned: true });
        at = to;
      }
    }
  }
  if (at < end) {
    runs.push({ page: at, end, pinned: false });
  }
  return runs;
}
