/** Frames of the pool as their space sees them. */
import type { VirtRange } from "../../../base/index.ts";
import type { MemoryObject } from "../../../mm/index.ts";
import { Extent } from "../extent.ts";
import { Advice } from "./advice.ts";
import { addrOfPage, DEVICE_PAGE, SUB_PAGES } from "./page-entry.ts";
import type { SvmTable } from "./svm-table.ts";

/** One device page in its frame: an extent of four CPU pages. */
export class SvmFrame extends Extent {
  readonly table: SvmTable;
  /** Device page of the aperture, and frame of the pool. */
  readonly page: number;
  readonly index: number;
  /** Used since the clock last came by. While it is not, the page's entry asks for its use to be noted. */
  #referenced = true;
  /** Dispatches whose running slice asked for it. */
  claims = 0;
  /** Somebody is bringing its page: nobody else may, nor give it up. */
  isServed = false;
  /** It was taken for a page that nobody asked for; `isPrefetched` once that has come, until its first use. */
  isGuess = false;
  isPrefetched = false;
  /** Taken by a search for victims that is under way. */
  chosen = false;

  constructor(table: SvmTable, page: number, index: number) {
    const start = addrOfPage(page);
    const range = { start, end: start + DEVICE_PAGE } as VirtRange;
    super(range, table.pool.handle, table.names.of(index), index * DEVICE_PAGE, table.pool.freshState());
    this.table = table;
    this.page = page;
    this.index = index;
  }

  /** The caller advised to keep it on this device. */
  get isPreferred(): boolean {
    return this.table.adviceOf(this.page) === Advice.PreferredLocation;
  }

  /** Whether those CPU pages, a bit each, have all of the bits. */
  has(pages: number, bits: number): boolean {
    const { state } = this;
    for (let sub = 0; sub < SUB_PAGES; sub++) {
      if ((pages >> sub) & 1 && (state[sub] & bits) !== bits) {
        return false;
      }
    }
    return true;
  }

  /** It was not given up since. */
  get isPlaced(): boolean {
    return this.table.frameAt(this.page) === this;
  }

  /** It was brought for a guess, and nobody has used it. */
  get isUnused(): boolean {
    return this.isGuess || this.isPrefetched;
  }

  get referenced(): boolean {
    return this.#referenced;
  }

  set referenced(value: boolean) {
    if (this.#referenced !== value) {
      this.#referenced = value;
      this.table.entries.noteChange(this.page);
    }
  }

  /** All frames of a space are in use by each of its rounds. */
  override get lastSerial(): number {
    return this.table.lastSerial;
  }

  override set lastSerial(serial: number) {
    this.table.lastSerial = serial;
  }

  override update(page: number, end: number, set: number, clear: number): void {
    super.update(page, end, set, clear);
    this.table.entries.noteChange(this.page);
  }

  override own(page: number, end: number, object: MemoryObject, objectPage: number): void {
    super.own(page, end, object, objectPage);
    this.table.entries.noteChange(this.page);
  }

  override disown(page: number, end: number): void {
    super.disown(page, end);
    this.table.entries.noteChange(this.page);
  }
}

/** Pages of one object that only frames hold. */
export interface HomeRun {
  readonly object: MemoryObject;
  readonly page: number;
  readonly count: number;
}

/** Where the device-private pages of frames belong, neighbours together. */
export function homeRuns(frames: readonly SvmFrame[]): HomeRun[] {
  const runs: HomeRun[] = [];
  for (const frame of [...frames].sort((a, b) => a.page - b.page)) {
    for (const { object, page, count } of frame.ownedRuns()) {
      const last = runs.at(-1);
      if (last !== undefined && last.object === object && last.page + last.count === page) {
        runs[runs.length - 1] = { object, page: last.page, count: last.count + count };
      } else {
        runs.push({ object, page, count });
      }
    }
  }
  return runs;
}
