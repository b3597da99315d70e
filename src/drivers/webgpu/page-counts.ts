/** How much of a device's memory holds what. */
import { PAGE_SIZE } from "../../base/index.ts";
import { allOf8 } from "../../collections/index.ts";
import { type Extent, PageState } from "./extent.ts";

/** CPU pages of device memory. */
export interface DevicePageCounts {
  /** With a copy that the device may use. */
  readonly resident: number;
  /** Of these: with the only copy. */
  readonly dirty: number;
  /** Without a copy, that much of the budget included for which there is no buffer yet. */
  readonly free: number;
}

const VALID_WORD = PageState.Valid * 0x01010101;

/** Counts the pages of extents. `limitBytes` is the device's budget. */
export function countPages(
  extents: Iterable<Pick<Extent, "state" | "ownedPages">>,
  limitBytes: number,
): DevicePageCounts {
  let resident = 0;
  let dirty = 0;
  for (const { state, ownedPages } of extents) {
    dirty += ownedPages;
    resident += countValid(state);
  }
  return { resident, dirty, free: Math.max(0, Math.floor(limitBytes / PAGE_SIZE) - resident) };
}

/** Mostly all are valid: 32 pages at a time, as long as no bit says more. A dispatch over 256 MiB has 65,536 of them. */
function countValid(state: Uint8Array): number {
  const words = new Uint32Array(state.buffer, state.byteOffset, state.length >>> 2);
  const eights = words.length & ~7;
  let count = 0;
  for (let i = 0; i < eights; i += 8) {
    if ((allOf8(words, i) & VALID_WORD) === VALID_WORD) {
      count += 32;
    } else {
      for (let w = i; w < i + 8; w++) {
        count += validIn(words[w]);
      }
    }
  }
  for (let w = eights; w < words.length; w++) {
    count += validIn(words[w]);
  }
  for (let p = words.length << 2; p < state.length; p++) {
    count += state[p] & PageState.Valid;
  }
  return count;
}

/** The four bits' sum is the product's highest byte. */
function validIn(word: number): number {
  return Math.imul(word & VALID_WORD, VALID_WORD) >>> 24;
}
