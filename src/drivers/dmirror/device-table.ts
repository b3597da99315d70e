/** The page table of the device: what its hardware would walk. */
import { PAGE_SIZE, type Pfn, vpnOf } from "../../base/index.ts";
import { entryToPfn, type HmmRange } from "../../hmm/index.ts";

/** An entry of the device's table. */
export interface DeviceEntry {
  readonly pfn: Pfn;
  readonly write: boolean;
  /** The device has the page for itself. */
  readonly exclusive?: boolean;
}

/** Virtual page to frame. Protected by the driver's update lock. */
export class DeviceTable {
  readonly #entries = new Map<number, DeviceEntry>();

  get size(): number {
    return this.#entries.size;
  }

  get(vpn: number): DeviceEntry | undefined {
    return this.#entries.get(vpn);
  }

  /** Sets one entry, of a page that cannot change meanwhile. */
  set(vpn: number, entry: DeviceEntry): void {
    this.#entries.set(vpn, entry);
  }

  /** All entries by virtual page number. */
  entries(): IterableIterator<[number, DeviceEntry]> {
    return this.#entries.entries();
  }

  /** Takes over what the range found. The caller has tested `range.valid` under the update lock. */
  program(range: HmmRange): void {
    const first = vpnOf(range.start);
    for (let i = 0; i < range.pages; i++) {
      const entry = range.pfns[i];
      const pfn = entryToPfn(range, entry);
      if (pfn !== -1) {
        this.#entries.set(first + i, { pfn, write: (entry & range.flags.write) !== 0 });
      }
    }
  }

  /** Forgets the pages of `[start, end)`. */
  drop(start: number, end: number): void {
    const first = vpnOf(start);
    const last = vpnOf(end - 1);
    if (last - first < this.#entries.size) {
      for (let vpn = first; vpn <= last; vpn++) {
        this.#entries.delete(vpn);
      }
      return;
    }
    for (const vpn of this.#entries.keys()) {
      if (vpn >= first && vpn <= last) {
        this.#entries.delete(vpn);
      }
    }
  }

  clear(): void {
    this.#entries.clear();
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
    for (let at = start; at < end; ) {
      const entry = this.#entries.get(vpnOf(at));
      if (entry === undefined || (write && !entry.write)) {
        return at;
      }
      const offset = at % PAGE_SIZE;
      const length = Math.min(PAGE_SIZE - offset, end - at);
      access(entry.pfn, offset, length, at);
      at += length;
    }
    return end;
  }
}
