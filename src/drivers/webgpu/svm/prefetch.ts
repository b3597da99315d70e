/** Which pages to bring beside those that were asked for. */
import { Advice } from "./advice.ts";
import type { Demand } from "./service.ts";
import type { SvmTable } from "./svm-table.ts";

/** Device pages in a prefetch block: 2 MiB. */
const BLOCK = 128;
/** A node of the tree is brought whole when more than this share of it is there or asked for. 51 in NVIDIA's driver. */
const THRESHOLD_PERCENT = 75;
/** A round that asks for this many pages or fewer looks like a walk along dependent pages. */
const FEW_FAULTS = 8;

/**
 * The density tree of NVIDIA's driver over 2 MiB blocks, and fault-around that grows while rounds ask for few pages.
 *
 * A faulted page climbs from its leaf: the largest node of which more than 75 % is resident or faulted is brought whole.
 */
export class Prefetcher {
  #around = 1;
  /** Of the block that is looked at: trees of what is there or asked for, and what is written; what was asked for, what to bring. */
  readonly #there = new Uint8Array(2 * BLOCK);
  readonly #written = new Uint8Array(2 * BLOCK);
  readonly #asked = new Uint8Array(BLOCK);
  readonly #wanted = new Uint8Array(BLOCK);

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
    const there = this.#there.fill(0);
    const written = this.#written.fill(0);
    const asked = this.#asked.fill(0);
    const wanted = this.#wanted.fill(0);
    for (let leaf = 0; leaf < BLOCK; leaf++) {
      const frame = table.frameAt(base + leaf);
      if (frame !== undefined) {
        there[BLOCK + leaf] = 1;
        written[BLOCK + leaf] = frame.ownedPages > 0 ? 1 : 0;
      }
    }
    let isWritten = false;
    for (const { page, write } of faulted) {
      const leaf = BLOCK + page - base;
      there[leaf] = 1;
      asked[page - base] = 1;
      written[leaf] |= write ? 1 : 0;
      isWritten ||= write;
    }
    countNodes(there);
    if (isWritten) {
      countNodes(written);
    }
    for (const { page, write } of faulted) {
      const leaf = page - base;
      mark(wanted, leaf, Math.max(this.#around, densestNode(there, leaf)), Wanted.Read);
      if (write) {
        mark(wanted, leaf, densestNode(written, leaf), Wanted.Write);
      }
    }
    for (let leaf = 0; leaf < BLOCK; leaf++) {
      const page = base + leaf;
      if (
        wanted[leaf] & Wanted.Read &&
        !asked[leaf] &&
        table.frameAt(page) === undefined &&
        table.isMapped(page, false)
      ) {
        // Where most of a node is being written, the rest is likely to be: a second fault for the right to is saved.
        const write =
          (wanted[leaf] & Wanted.Write) !== 0 &&
          table.adviceOf(page) !== Advice.ReadMostly &&
          table.isMapped(page, true);
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

/** What a page is wanted for. */
const Wanted = { Read: 1, Write: 2 } as const;

function mark(wanted: Uint8Array, leaf: number, size: number, how: number): void {
  const from = leaf - (leaf % size);
  for (let i = from; i < from + size; i++) {
    wanted[i] |= how;
  }
}

/** Gives each node of a tree the sum of its two children, 2i and 2i + 1; the leaves are its second half. */
function countNodes(tree: Uint8Array): void {
  for (let i = BLOCK - 1; i > 0; i--) {
    tree[i] = tree[2 * i] + tree[2 * i + 1];
  }
}

/** Size of the largest node over a leaf that is dense enough. */
function densestNode(tree: Uint8Array, leaf: number): number {
  let best = 1;
  for (let size = 2, node = (BLOCK + leaf) >> 1; node > 0; size *= 2, node >>= 1) {
    if (tree[node] * 100 > size * THRESHOLD_PERCENT) {
      best = size;
    }
  }
  return best;
}
