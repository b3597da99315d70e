/** Which pages to bring beside those that were asked for. */
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

  /** Pages to bring beside `faulted` (ascending), each mapped and without a frame. */
  choose(table: SvmTable, faulted: readonly number[]): number[] {
    this.#around = faulted.length <= FEW_FAULTS ? Math.min(BLOCK, this.#around * 2) : 1;
    const chosen: number[] = [];
    for (let i = 0; i < faulted.length; ) {
      const base = faulted[i] - (faulted[i] % BLOCK);
      let stop = i + 1;
      while (stop < faulted.length && faulted[stop] < base + BLOCK) {
        stop++;
      }
      this.#chooseInBlock(table, base, faulted.slice(i, stop), chosen);
      i = stop;
    }
    return chosen;
  }

  #chooseInBlock(table: SvmTable, base: number, faulted: readonly number[], chosen: number[]): void {
    const leaves = new Uint8Array(BLOCK);
    for (let leaf = 0; leaf < BLOCK; leaf++) {
      leaves[leaf] = table.frameAt(base + leaf) === undefined ? 0 : 1;
    }
    const asked = new Uint8Array(BLOCK);
    for (const page of faulted) {
      leaves[page - base] = 1;
      asked[page - base] = 1;
    }
    const wanted = new Uint8Array(BLOCK);
    for (const page of faulted) {
      const size = Math.max(this.#around, densestNode(leaves, page - base));
      const from = page - base - ((page - base) % size);
      wanted.fill(1, from, from + size);
    }
    for (let leaf = 0; leaf < BLOCK; leaf++) {
      const page = base + leaf;
      if (wanted[leaf] && !asked[leaf] && table.frameAt(page) === undefined && table.accessOf(page) !== 0) {
        chosen.push(page);
      }
    }
  }
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
