/**
 * Which pages of a memory object lie in one CPU window. A window is one ArrayBuffer of at most 4 GiB, so an object has
 * several where it is larger; an array sees pages of one only.
 */

/** Pages in one window: 4 GiB. */
export const WINDOW_PAGES = 2 ** 20;

/** The window that covers object page `page`, counted from the object's first. */
export function windowIndex(page: number): number {
  return Math.floor(page / WINDOW_PAGES);
}

/** True when object pages `[page, end)` lie in one window: only such a run can be seen as one array. */
export function inOneWindow(page: number, end: number): boolean {
  return windowIndex(page) === windowIndex(end - 1);
}

/** The end of the window that covers object page `page`, or `end` when that comes first. */
export function windowEnd(page: number, end: number): number {
  return Math.min(end, (windowIndex(page) + 1) * WINDOW_PAGES);
}

/** Calls `fn` for the pieces of object pages `[page, end)` that lie in one window each. */
export function forEachWindow(page: number, end: number, fn: (page: number, end: number) => void): void {
  for (let p = page, stop = page; p < end; p = stop) {
    stop = windowEnd(p, end);
    fn(p, stop);
  }
}
