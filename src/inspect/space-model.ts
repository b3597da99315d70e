/** What each page's state was at any time, replayed from the events. */
import { type EventStore, FIRST_FLAG, kindOf, SECOND_FLAG } from "./event-store.ts";

/** States of a page, in the order of their colours. */
export const PAGE_STATES = ["unmapped", "absent", "cpu", "written", "copy", "device", "migrating", "poisoned"] as const;
/** One of {@link PAGE_STATES}. */
export type PageState = (typeof PAGE_STATES)[number];

const [UNMAPPED, ABSENT, CPU, WRITTEN, COPY, DEVICE, MIGRATING, POISONED] = PAGE_STATES.keys();

/** A mapping: pages of a space, and where they stand in the model's arrays. */
export interface Region {
  readonly space: number;
  /** First page of the address space, and how many. */
  readonly page: number;
  readonly pages: number;
  readonly name: string;
  /** Index of the first page among all pages of all regions. */
  readonly slot: number;
}

const K = {
  map: kindOf("mm.map"),
  unmap: kindOf("mm.unmap"),
  fault: kindOf("mm.fault"),
  migrate: kindOf("mm.migrate"),
  poison: kindOf("mm.poison"),
  start: kindOf("mmu.start"),
  upload: kindOf("gpu.upload"),
  evict: kindOf("gpu.evict"),
} as const;

/** Pages of addresses that no event mapped are grouped by blocks of 2 MiB. */
const BLOCK = 512;
/** States of all pages are kept at so many times, if they fit. */
const MOST_CHECKPOINTS = 48;
const CHECKPOINT_BYTES = 64 * 2 ** 20;

/** The pages of all mappings that a store's events name, and their states. */
export class SpaceModel {
  readonly store: EventStore;
  readonly regions: Region[] = [];
  /** Pages of all regions. */
  slots = 0;
  /** The states that {@link seek} left. */
  states = new Uint8Array(0);
  #row = 0;
  #applied = 0;
  readonly #checkpoints: { readonly row: number; readonly states: Uint8Array }[] = [];
  #last: Region | undefined;

  constructor(store: EventStore) {
    this.store = store;
  }

  /** Takes the rows that came since the last call, and ends up after the last of them. */
  update(): void {
    const { columns: c, count } = this.store;
    for (let row = this.#row; row < count; row++) {
      if (c.page[row] < 0) {
        continue;
      }
      const [space, page, end] = [c.space[row], c.page[row], c.page[row] + c.pages[row]];
      if (c.kind[row] === K.map) {
        this.#cover(space, page, end, this.store.text(c.text[row]));
      } else if (!this.#touches(space, page, end)) {
        // Device pages are larger than the CPU's: what lies beside a mapping in one is nobody's.
        this.#cover(space, page, end, undefined);
      }
    }
    this.#row = count;
    if (this.states.length < this.slots) {
      const next = new Uint8Array(this.slots);
      next.set(this.states);
      this.states = next;
    }
    this.seek(count);
  }

  /** The region that a page is in now. */
  regionOf(space: number, page: number): Region | undefined {
    const last = this.#last;
    if (last !== undefined && last.space === space && page >= last.page && page < last.page + last.pages) {
      return last;
    }
    const found = this.regions.find((r) => r.space === space && page >= r.page && page < r.page + r.pages);
    this.#last = found ?? last;
    return found;
  }

  /** The region of a slot. */
  regionAt(slot: number): Region | undefined {
    return this.regions.find((region) => slot >= region.slot && slot < region.slot + region.pages);
  }

  /** Calls `visit` with the slots of a row's range, which may lie in several regions. */
  forSlots(row: number, visit: (from: number, to: number) => void): void {
    const { columns: c } = this.store;
    const page = c.page[row];
    if (page < 0) {
      return;
    }
    const end = page + c.pages[row];
    for (let p = page; p < end; ) {
      const region = this.regionOf(c.space[row], p);
      if (region === undefined) {
        p++;
        continue;
      }
      const stop = Math.min(end, region.page + region.pages);
      const from = region.slot + (p - region.page);
      visit(from, from + (stop - p));
      p = stop;
    }
  }

  /** Sets {@link states} to what they were after the first `row` rows. */
  seek(row: number): void {
    const target = Math.max(0, Math.min(row, this.store.count));
    let best: { readonly row: number; readonly states: Uint8Array } | undefined;
    for (const checkpoint of this.#checkpoints) {
      if (checkpoint.row <= target && (best === undefined || checkpoint.row > best.row)) {
        best = checkpoint;
      }
    }
    if (this.#applied > target || (best !== undefined && best.row > this.#applied)) {
      this.states.fill(UNMAPPED);
      this.states.set(best?.states ?? []);
      this.#applied = best?.row ?? 0;
    }
    const most = Math.max(2, Math.min(MOST_CHECKPOINTS, Math.floor(CHECKPOINT_BYTES / Math.max(1, this.slots))));
    const step = Math.max(1024, Math.ceil(this.store.count / most));
    for (let r = this.#applied; r < target; r++) {
      this.#apply(r);
      if ((r + 1) % step === 0 && (this.#checkpoints.at(-1)?.row ?? 0) < r + 1) {
        if (this.#checkpoints.length >= most) {
          this.#thin();
        }
        this.#checkpoints.push({ row: r + 1, states: this.states.slice() });
      }
    }
    this.#applied = target;
  }

  /** Every second one goes, so that a run that lasts keeps as many. */
  #thin(): void {
    const kept = this.#checkpoints.filter((_, i) => i % 2 === 1);
    this.#checkpoints.splice(0, this.#checkpoints.length, ...kept);
  }

  /** Whether a page of the range is in a region. */
  #touches(space: number, page: number, end: number): boolean {
    return (
      this.regionOf(space, page) !== undefined ||
      this.regions.some((r) => r.space === space && r.page < end && page < r.page + r.pages)
    );
  }

  /** Makes regions for pages that are in none: of a mapping's name, or, where it is not known, in blocks. */
  #cover(space: number, page: number, end: number, name: string | undefined): void {
    for (let p = page; p < end; ) {
      const region = this.regionOf(space, p);
      if (region !== undefined) {
        p = region.page + region.pages;
        continue;
      }
      let stop = name === undefined ? Math.min(Math.ceil((p + 1) / BLOCK) * BLOCK, end) : end;
      for (const other of this.regions) {
        if (other.space === space && other.page > p) {
          stop = Math.min(stop, other.page);
        }
      }
      this.regions.push({ space, page: p, pages: stop - p, name: name ?? "memory", slot: this.slots });
      this.slots += stop - p;
      p = stop;
    }
  }

  #apply(row: number): void {
    const { columns: c } = this.store;
    const kind = c.kind[row];
    const { states } = this;
    switch (kind) {
      case K.map:
        this.forSlots(row, (from, to) => states.fill(ABSENT, from, to));
        break;
      case K.unmap:
        this.forSlots(row, (from, to) => states.fill(UNMAPPED, from, to));
        break;
      case K.fault:
        // What a device reads through HMM stays as it is until its bytes go up.
        if ((c.flags[row] & SECOND_FLAG) === 0) {
          const write = (c.flags[row] & FIRST_FLAG) !== 0;
          this.#change(row, (s) => (write ? WRITTEN : s === COPY || s === WRITTEN ? s : CPU));
        }
        break;
      case K.upload:
        this.#change(row, (s) => (s === MIGRATING || s === DEVICE ? s : COPY));
        break;
      case K.migrate:
        this.forSlots(row, (from, to) =>
          states.fill(this.store.text(c.text[row]) === "device" ? DEVICE : COPY, from, to),
        );
        break;
      case K.evict:
        this.#change(row, (s) => (s === COPY || s === DEVICE ? CPU : s));
        break;
      case K.poison:
        this.forSlots(row, (from, to) => states.fill(POISONED, from, to));
        break;
      case K.start: {
        const migrating = this.store.text(c.text[row]) === "migrate";
        this.#change(row, (s) => (s === UNMAPPED || s === POISONED ? s : migrating ? MIGRATING : s === COPY ? CPU : s));
        break;
      }
      default:
        break;
    }
  }

  #change(row: number, next: (state: number) => number): void {
    const { states } = this;
    this.forSlots(row, (from, to) => {
      for (let i = from; i < to; i++) {
        states[i] = next(states[i]);
      }
    });
  }
}

/** The rows that are over by a time, in microseconds: a row number for {@link SpaceModel.seek}. */
export function rowAt(store: EventStore, time: number): number {
  const { columns: c } = store;
  let [low, high] = [0, store.count];
  while (low < high) {
    const middle = (low + high) >>> 1;
    if (c.time[middle] + c.duration[middle] <= time) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low;
}
