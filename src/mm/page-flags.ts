/** What an object knows about each of its pages. */
import type { Pfn } from "../base/index.ts";

/** State bits of a page. */
export const PageFlag = {
  /** The window holds the page's bytes. */
  Uptodate: 1,
  /** The bytes are newer than the pager's. */
  Dirty: 2,
  /** The only copy is in device memory. */
  Device: 4,
  /** The only copy was lost. */
  Poisoned: 8,
  /** In transit; wait on the object's `wq`. */
  Busy: 16,
  /** The page is this object's own: its content no longer comes from the source. */
  Own: 32,
  /** The window's bytes were handed out and may not be zero. */
  Used: 64,
  /** The page's frame is in coherent device memory. The CPU and the device see the same bytes, in the window. */
  Coherent: 128,
} as const;

/** State of 512 pages. */
export interface ObjectBlock {
  /** First of the 512 frame numbers. */
  readonly pfn: Pfn;
  /** {@link PageFlag} bits, one byte a page. */
  readonly flags: Uint8Array;
  /** Device frame number of pages with PageFlag.Device or Coherent; made when the first page moves. */
  device: Uint32Array | undefined;
}

/** The OR (low byte) and the AND (next byte) of flags `[from, to)` of a block. */
export function summarize(flags: Uint8Array, from: number, to: number): number {
  let or = 0;
  let and = 0xff;
  for (let i = from; i < to; i++) {
    or |= flags[i];
    and &= flags[i];
  }
  return or | (and << 8);
}
