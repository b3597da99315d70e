/** The page table of the device: what its hardware would walk. */
import { addrOf, blockOfVpn, indexInBlock, PAGE_SIZE, PAGES_PER_BLOCK, type Pfn, vpnOf } from "../../base/index.ts";
import { entryToPfn, type HmmRange } from "../../hmm/index.ts";

/** An entry of the device's table. */
export interface DeviceEntry {
  readonly pfn: Pfn;
  readonly write: boolean;
  /** The device has the page for itself. */
  readonly exclusive?: boolean;
}

const PRESENT = 1;
const WRITE = 2;
const EXCLUSIVE = 4;
const PFN_SHIFT = 5;

/** Bits of {@link DeviceTable.setPfn}. */
export const DeviceEntryBits = { Write: WRITE, Exclusive: EXCLUSIVE } as const;

/** Virtual page to frame, in blocks of 512 as the CPU's. Protected by the driver's update lock. */
export class DeviceTable {
  readonly #blocks = new Map<number, Uint32Array>();

  /** Entries. */
  get size(): number {
    let size = 0;
    for (const block of this.#blocks.values()) {
      for (const entry of block) {
        size += entry === 0 ? 0 : 1;
      }
    }
    return size;
  }

  get(vpn: number): DeviceEntry | undefined {
    const entry = this.#bits(vpn);
    return entry === 0 ? undefined : decode(entry);
  }

  #bits(vpn: number): number {
    return this.#blocks.get(blockOfVpn(vpn))?.[indexInBlock(vpn)] ?? 0;
  }

  /** Sets one entry, of a page that cannot change meanwhile. */
  setPfn(vpn: number, pfn: number, bits: number): void {
    let block = this.#blocks.get(blockOfVpn(vpn));
    if (block === undefined) {
      block = new Uint32Array(PAGES_PER_BLOCK);
      this.#blocks.set(blockOfVpn(vpn), block);
    }
    block[indexInBlock(vpn)] = (pfn << PFN_SHIFT) | PRESENT | bits;
  }

  /** All entries by virtual page number. */
  *entries(): IterableIterator<[number, DeviceEntry]> {
    for (const [index, block] of this.#blocks) {
      for (let i = 0; i < PAGES_PER_BLOCK; i++) {
        if (block[i] !== 0) {
          yield [index * PAGES_PER_BLOCK + i, decode(block[i])];
        }
      }
    }
  }

  /** Takes over what the range found. The caller has tested `range.valid` under the update lock. */
  program(range: HmmRange): void {
    const first = vpnOf(range.start);
    for (let i = 0; i < range.pages; i++) {
      const entry = range.pfns[i];
      const pfn = entryToPfn(range, entry);
      if (pfn !== -1) {
        this.setPfn(first + i, pfn, entry & range.flags.write ? WRITE : 0);
      }
    }
  }

  /** Forgets the pages of `[start, end)`. */
  drop(start: number, end: number): void {
    const first = vpnOf(start);
    const last = vpnOf(end - 1);
    if (blockOfVpn(last) - blockOfVpn(first) < this.#blocks.size) {
      for (let b = blockOfVpn(first); b <= blockOfVpn(last); b++) {
        this.#dropIn(b, first, last);
      }
      return;
    }
    for (const b of this.#blocks.keys()) {
      this.#dropIn(b, first, last);
    }
  }

  #dropIn(index: number, first: number, last: number): void {
    const base = index * PAGES_PER_BLOCK;
    if (first <= base && last >= base + PAGES_PER_BLOCK - 1) {
      this.#blocks.delete(index);
    } else {
      this.#blocks.get(index)?.fill(0, Math.max(0, first - base), Math.max(0, last + 1 - base));
    }
  }

  clear(): void {
    this.#blocks.clear();
  }

  /**
   * Calls `access` for the bytes of `[start, end)` page by page, as far as entries allow it. Returns the first address that
   * the device may not access (a device page fault), or `end`.
   */
  walk(
    start: number,
    end: number,
    write: boolean,
    access: (pfn: Pfn, offset: number, length: number, at: number) => void,
  ): number {
    const needed = write ? PRESENT | WRITE : PRESENT;
    for (let at = start; at < end; ) {
      const vpn = vpnOf(at);
      const entry = this.#bits(vpn);
      if ((entry & needed) !== needed) {
        return at;
      }
      const offset = at - addrOf(vpn);
      const length = Math.min(PAGE_SIZE - offset, end - at);
      access((entry >>> PFN_SHIFT) as Pfn, offset, length, at);
      at += length;
    }
    return end;
  }
}

function decode(entry: number): DeviceEntry {
  return {
    pfn: (entry >>> PFN_SHIFT) as Pfn,
    write: (entry & WRITE) !== 0,
    ...(entry & EXCLUSIVE ? { exclusive: true } : {}),
  };
}
