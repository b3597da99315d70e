/** Which pages to bring beside those that were asked for. */
import { Advice } from "./advice.ts";
import type { Demand } from "./service.ts";
import type { SvmTable } from "./svm-table.ts";

/** Device pages in a prefetch block: 2 MiB. */
const BLOCK = 128;
/** A node of the tree is brought whole when more than this share of it is there or asked for. */
const THRESHOLD_PERCENT = 51;
/** A round that asks for this many pages or fewer looks like a walk along dependent pages. */
const FEW_FAULTS = 8;

/**
 * The density tree of NVIDIA's driver over 2 MiB blocks, and fault-around that grows while rounds ask for few pages.
 *
 * A faulted page climbs from its leaf: the largest node of which more than 51 % is resident or faulted is brought whole.
 */
export class Prefetcher {
  #around = 1;

  /** Pages around a lone fault that the next round brings, a power of two. */
  get faultAround(): number {
    return this.#around;
  }

  /** Pages to bring beside `faulted` (by rising page), each mapped and without a frame, or to be written in the one that it has. */
  choose(table: SvmTable, faulted: readonly Demand[]): Demand[] {
    this.#around = faulted.length <= FEW_FAULTS ? Math.min(BLOCK, this.#around * 2) : 1;
    const chosen: Demand[] = [];
    for (let i = 0; i < faulted.length; ) {
      const base = faulted[i].page - (faulted[i].page % BLOCK);
      let stop = i + 1;
      while (stop < faulted.length && faulted[stop].page < base + BLOCK) {
        stop++;
      }
      this.#chooseInBlock(table, base, faulted.slice(i, stop), chosen);
      i = stop;
    }
    return chosen;
  }

  #chooseInBlock(table: SvmTable, base: number, faulted: readonly Demand[], chosen: Demand[]): void {
    const leaves = new Uint8Array(BLOCK);
    const written = new Uint8Array(BLOCK);
    for (let leaf = 0; leaf < BLOCK; leaf++) {
      const frame = table.frameAt(base + leaf);
      leaves[leaf] = frame === undefined ? 0 : 1;
      written[leaf] = frame !== undefined && frame.ownedPages > 0 ? 1 : 0;
    }
    const asked = new Uint8Array(BLOCK);
    for (const { page, write } of faulted) {
      leaves[page - base] = 1;
      asked[page - base] = 1;
      written[page - base] |= write ? 1 : 0;
    }
    const wanted = new Uint8Array(BLOCK);
    const wantedForWrite = new Uint8Array(BLOCK);
    for (const { page, write } of faulted) {
      markNode(wanted, page - base, Math.max(this.#around, densestNode(leaves, page - base)));
      if (write) {
        markNode(wantedForWrite, page - base, densestNode(written, page - base));
      }
    }
    for (let leaf = 0; leaf < BLOCK; leaf++) {
      const page = base + leaf;
      if (wanted[leaf] && !asked[leaf] && table.frameAt(page) === undefined && table.isMapped(page, false)) {
        // Where most of a node is being written, the rest is likely to be: a second fault for the right to is saved.
        const write =
          wantedForWrite[leaf] !== 0 && table.adviceOf(page) !== Advice.ReadMostly && table.isMapped(page, true);
        chosen.push({ page, write, optional: true });
      }
    }
    for (const { page, write } of faulted) {
      if (write && table.isResident(page - 1, true)) {
        this.#chooseToWrite(table, page, asked, chosen);
      }
    }
  }

  /** Behind a page that was written another is: an output grows, and its next pages in the block are likely to be written. */
  #chooseToWrite(table: SvmTable, page: number, asked: Uint8Array, chosen: Demand[]): void {
    const end = Math.min(page + this.#around, page - (page % BLOCK) + BLOCK);
    for (let next = page + 1; next < end && table.isMapped(next, true); next++) {
      const isWanted = !asked[next % BLOCK] && !table.isResident(next, true);
      if (isWanted && table.adviceOf(next) !== Advice.ReadMostly && !chosen.some((other) => other.page === next)) {
        chosen.push({ page: next, write: true, optional: true });
      }
    }
  }
}

function markNode(leaves: Uint8Array, leaf: number, size: number): void {
  const from = leaf - (leaf % size);
  leaves.fill(1, from, from + size);
}

/** Size of the largest node over a leaf that is dense enough. */
function densestNode(leaves: Uint8Array, leaf: number): number {
  let best = 1;
  for (let size = 2; size <= BLOCK; size *= 2) {
    const from = leaf - (leaf % size);
    let count = 0;
    for (let i = from; i < from + size; i++) {
      count += leaves[i];
    }
    if (count * 100 > size * THRESHOLD_PERCENT) {
      best = size;
    }
  }
  return best;
}
