/** Page tables: a radix of 2 MiB blocks, each a typed array of 512 entries. A sparse space costs nothing. */
import { blockOfVpn, indexInBlock, invariant, PAGES_PER_BLOCK } from "../base/index.ts";
import { allOf8, anyOf8 } from "../collections/index.ts";
import type { PhysicalMemory } from "./physical-memory.ts";

/** Called for a run of entries of one block: entries `[from, to)`, the first of which maps page `vpn`. */
export type PteRunVisitor = (block: Uint32Array, from: number, to: number, vpn: number) => void;

/** Protected by: run-to-completion. Entries change only between an invalidation's start and its end. */
export class PageTable {
  readonly #blocks = new Map<number, Uint32Array>();
  readonly #memory: PhysicalMemory;

  constructor(memory: PhysicalMemory) {
    this.#memory = memory;
  }

  /** Blocks that exist, each 2 KiB. */
  get blockCount(): number {
    return this.#blocks.size;
  }

  /** The entries of a 2 MiB block (see `blockOfVpn`), or undefined when none was ever set. */
  block(blockIndex: number): Uint32Array | undefined {
    return this.#blocks.get(blockIndex);
  }

  /** The block, made when it is missing. @throws KernelError ENOMEM */
  ensureBlock(blockIndex: number): Uint32Array {
    let block = this.#blocks.get(blockIndex);
    if (block === undefined) {
      this.#memory.charge("page-table block");
      block = new Uint32Array(PAGES_PER_BLOCK);
      this.#blocks.set(blockIndex, block);
    }
    return block;
  }

  /**
   * Makes every block of pages `[vpn, end)`, so that setting entries there cannot fail.
   * @throws KernelError ENOMEM; none was made then
   */
  reserve(vpn: number, end: number): void {
    const made: number[] = [];
    try {
      for (let b = blockOfVpn(vpn); b <= blockOfVpn(end - 1); b++) {
        if (!this.#blocks.has(b)) {
          this.ensureBlock(b);
          made.push(b);
        }
      }
    } catch (error) {
      for (const b of made) {
        this.#blocks.delete(b);
      }
      throw error;
    }
  }

  /**
   * The blocks that entries of `[vpn, end)` need once they are `shift` pages further on, made but not yet in place.
   * @throws KernelError ENOMEM
   */
  prepareMove(vpn: number, end: number, shift: number): Map<number, Uint32Array> {
    const blocks = new Map<number, Uint32Array>();
    this.forEachRun(vpn, end, (block, from, to, first) => {
      for (let i = from; i < to; i++) {
        const b = blockOfVpn(first + (i - from) + shift);
        if (block[i] !== 0 && !blocks.has(b)) {
          this.#memory.charge("page-table block");
          blocks.set(b, new Uint32Array(PAGES_PER_BLOCK));
        }
      }
    });
    return blocks;
  }

  /** Moves the entries of `[vpn, end)` by `shift` pages, into blocks that {@link prepareMove} made. Cannot fail. */
  move(vpn: number, end: number, shift: number, blocks: ReadonlyMap<number, Uint32Array>): void {
    const moved: [number, number][] = [];
    this.forEachRun(vpn, end, (block, from, to, first) => {
      for (let i = from; i < to; i++) {
        if (block[i] !== 0) {
          moved.push([first + (i - from) + shift, block[i]]);
        }
      }
    });
    this.clear(vpn, end);
    for (const [page, pte] of moved) {
      const b = blockOfVpn(page);
      const block = this.#blocks.get(b) ?? blocks.get(b);
      invariant(block !== undefined, "I-MM-7", () => `no block was made for page ${page} of a move`);
      this.#blocks.set(b, block);
      block[indexInBlock(page)] = pte;
    }
  }

  /** Removes the entries of `[vpn, end)`. Blocks stay: others may have reserved them. */
  zap(vpn: number, end: number): void {
    this.forEachRun(vpn, end, (block, from, to) => {
      block.fill(0, from, to);
    });
  }

  /**
   * Removes the entries of `[vpn, end)` and gives blocks that hold none any more back.
   *
   * Locks: mmapLock, write (I-MM-11).
   */
  clear(vpn: number, end: number): void {
    this.forEachRun(vpn, end, (block, from, to, page) => {
      block.fill(0, from, to);
      if (to - from === PAGES_PER_BLOCK || isEmpty(block)) {
        this.#blocks.delete(blockOfVpn(page));
      }
    });
  }

  get(vpn: number): number {
    return this.#blocks.get(blockOfVpn(vpn))?.[indexInBlock(vpn)] ?? 0;
  }

  /** Sets one entry, of a block that exists. */
  set(vpn: number, pte: number): void {
    const block = this.#blocks.get(blockOfVpn(vpn));
    if (block !== undefined) {
      block[indexInBlock(vpn)] = pte;
    }
  }

  /** Visits the existing entries of pages `[vpn, end)` in ascending order, a block at a time. */
  forEachRun(vpn: number, end: number, visit: PteRunVisitor): void {
    const first = blockOfVpn(vpn);
    const last = blockOfVpn(end - 1);
    if (last - first <= this.#blocks.size * 4) {
      for (let b = first; b <= last; b++) {
        this.#visitBlock(b, vpn, end, visit);
      }
      return;
    }
    const present = [...this.#blocks.keys()].filter((b) => b >= first && b <= last).sort((a, b) => a - b);
    for (const b of present) {
      this.#visitBlock(b, vpn, end, visit);
    }
  }

  #visitBlock(blockIndex: number, vpn: number, end: number, visit: PteRunVisitor): void {
    const block = this.#blocks.get(blockIndex);
    if (block !== undefined) {
      const base = blockIndex * PAGES_PER_BLOCK;
      const from = Math.max(0, vpn - base);
      visit(block, from, Math.min(PAGES_PER_BLOCK, end - base), base + from);
    }
  }

  /**
   * Whether some entry's `mask` bits are `value` (`equal`), or are not. Looks at runs `[runs[0], runs[1])`, `[runs[2], runs[3])`
   * and so on, in order, each `shift` pages further on, as far as they lie in `[vpn, end)`. With `equal`, `value` is `mask`.
   */
  someInRuns(
    runs: readonly number[],
    shift: number,
    vpn: number,
    end: number,
    mask: number,
    value: number,
    equal: boolean,
  ): boolean {
    let index = -1;
    let block: Uint32Array | undefined;
    for (let r = 0; r < runs.length; r += 2) {
      const stop = Math.min(end, runs[r + 1] + shift);
      for (let v = Math.max(vpn, runs[r] + shift); v < stop; ) {
        const b = blockOfVpn(v);
        if (b !== index) {
          index = b;
          block = this.#blocks.get(b);
        }
        const from = indexInBlock(v);
        const to = Math.min(PAGES_PER_BLOCK, from + (stop - v));
        if (block === undefined ? (value === 0) === equal : firstEntry(block, from, to, mask, value, equal) < to) {
          return true;
        }
        v += to - from;
      }
    }
    return false;
  }

  /** Gives back blocks under `[vpn, end)` that hold no entry any more. Locks: mmapLock, write (I-MM-11). */
  releaseEmpty(vpn: number, end: number): void {
    this.forEachRun(vpn, end, (block, _from, _to, page) => {
      if (isEmpty(block)) {
        this.#blocks.delete(blockOfVpn(page));
      }
    });
  }
}

/** The first of the entries `[from, to)` of a block that {@link PageTable.someInRuns} looks for; `to` when there is none. */
export function firstEntry(
  block: Uint32Array,
  from: number,
  to: number,
  mask: number,
  value: number,
  equal: boolean,
): number {
  for (let i = from; i < to; i++) {
    // Mostly none is found: eight entries a step.
    while (i + 8 <= to && !mayMatch(allOf8(block, i) & mask, anyOf8(block, i) & mask, value, equal)) {
      i += 8;
    }
    if (i < to && ((block[i] & mask) === value) === equal) {
      return i;
    }
  }
  return to;
}

/** Whether one of some entries can be what is looked for, by the bits that all of them have, and those that any has. */
function mayMatch(all: number, any: number, value: number, equal: boolean): boolean {
  return equal ? any === value : all !== value || any !== value;
}

function isEmpty(block: Uint32Array): boolean {
  for (let i = 0; i < PAGES_PER_BLOCK; i++) {
    if (block[i] !== 0) {
      return false;
    }
  }
  return true;
}
