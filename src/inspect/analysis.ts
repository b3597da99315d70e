/** What a run spent its time on, and what to do about it. */
import { PAGE_SIZE, TRACE_NAMES } from "../base/index.ts";
import { type Cause, type Counts, causesOf, TimeCovered } from "./causes.ts";
import { kindOf, SECOND_FLAG } from "./event-store.ts";
import type { SpaceModel } from "./space-model.ts";

/** A page and how often it moved. */
export interface HotPage {
  readonly slot: number;
  /** Events that name it. */
  readonly events: number;
  /** Times that it was sent to the device, that a kernel took it to write it, and that it came back or was dropped. */
  readonly up: number;
  readonly written: number;
  readonly down: number;
}

/** A row of a table: a label, how often, bytes, and milliseconds in all and at most. */
export interface Sum {
  readonly label: string;
  readonly count: number;
  readonly bytes: number;
  readonly ms: number;
  readonly most: number;
}

/** What a trace says about a time. */
export interface Analysis {
  readonly hottest: readonly HotPage[];
  readonly thrashing: readonly HotPage[];
  readonly bytes: readonly Sum[];
  readonly notifiers: readonly Sum[];
  readonly locks: readonly Sum[];
  /** The largest three, the largest first. */
  readonly causes: readonly Cause[];
  /** Milliseconds from the first event to the last. */
  readonly wallMs: number;
}

const K = Object.fromEntries(TRACE_NAMES.map((name) => [name, kindOf(name)])) as Record<
  (typeof TRACE_NAMES)[number],
  number
>;

const MOST_ROWS = 12;

class Sums {
  readonly #rows = new Map<string, { label: string; count: number; bytes: number; ms: number; most: number }>();

  add(label: string, bytes: number, us: number): void {
    let row = this.#rows.get(label);
    if (row === undefined) {
      row = { label, count: 0, bytes: 0, ms: 0, most: 0 };
      this.#rows.set(label, row);
    }
    row.count++;
    row.bytes += bytes;
    row.ms += us / 1000;
    row.most = Math.max(row.most, us / 1000);
  }

  sorted(by: (row: Sum) => number): readonly Sum[] {
    return [...this.#rows.values()].sort((a, b) => by(b) - by(a)).slice(0, MOST_ROWS);
  }
}

/** Rows that are looked at in one step: a millisecond or two. */
const STEP = 4096;

/** Looks at rows `[from, to)`. */
export function analyse(model: SpaceModel, from = 0, to = model.store.count): Analysis {
  const steps = analysing(model, from, to);
  for (;;) {
    const { done, value } = steps.next();
    if (done) {
      return value;
    }
  }
}

/** {@link analyse} in steps of a few milliseconds: a million rows take longer than a page may be without an answer. */
export function* analysing(model: SpaceModel, from = 0, to = model.store.count): Generator<undefined, Analysis> {
  const { store } = model;
  const { columns: c } = store;
  // Ranges are counted by their ends: a range of a million pages costs as much as one page.
  const events = new Int32Array(model.slots + 1);
  const up = new Int32Array(model.slots + 1);
  const down = new Int32Array(model.slots + 1);
  const written = new Int32Array(model.slots + 1);
  const fetched = new Int32Array(model.slots + 1);
  const mark = (row: number, into: Int32Array) =>
    model.forSlots(row, (first, end) => {
      into[first]++;
      into[end]--;
    });
  const [bytes, notifiers, locks] = [new Sums(), new Sums(), new Sums()];
  const time = new TimeCovered(store);
  let [restarts, missed, evicted, faults, faulted] = [0, 0, 0, 0, 0];
  let [first, last] = [Number.POSITIVE_INFINITY, 0];
  for (let row = from; row < to; row++) {
    if ((row - from) % STEP === STEP - 1) {
      yield;
    }
    const kind = c.kind[row];
    const duration = c.duration[row];
    first = Math.min(first, c.time[row]);
    last = Math.max(last, c.time[row] + duration);
    time.add(row);
    switch (kind) {
      case K["gpu.upload"]:
        bytes.add("to device: uploaded", c.value[row], duration);
        mark(row, up);
        mark(row, events);
        break;
      case K["gpu.evict"]:
        bytes.add("to host: evicted", c.value[row], duration);
        evicted += c.pages[row];
        mark(row, down);
        break;
      case K["mm.migrate"]: {
        if (store.text(c.text[row]) === "host") {
          const cause = store.text(c.text2[row]);
          bytes.add(`to host: ${cause}`, c.pages[row] * PAGE_SIZE, duration);
          mark(row, down);
          if (cause === "cpu fault") {
            mark(row, fetched);
          }
        } else {
          mark(row, written);
        }
        mark(row, events);
        break;
      }
      case K["mmu.start"]:
        notifiers.add(`invalidation: ${store.text(c.text[row])}`, c.pages[row] * PAGE_SIZE, duration);
        break;
      case K["mmu.notifier"]:
        notifiers.add(`${store.text(c.text[row])}: ${store.text(c.text2[row])}`, 0, 0);
        break;
      case K["sync.wait"]:
        locks.add(`${store.text(c.text[row])}, ${store.text(c.text2[row])}`, 0, duration);
        break;
      case K["gpu.dispatch"]:
        restarts += c.value2[row];
        break;
      case K["mm.fault"]:
        if ((c.flags[row] & SECOND_FLAG) === 0) {
          faults++;
          faulted += c.pages[row];
        }
        mark(row, events);
        break;
      case K["gpu.fault"]:
        missed += c.pages[row];
        mark(row, events);
        break;
      default:
        break;
    }
  }
  const columns = { events, up, written, down, fetched };
  for (const column of Object.values(columns)) {
    yield;
    sumUp(column);
  }
  yield;
  const moves = movesOf(columns);
  yield;
  const hottest = top(columns, (page) => page.events);
  yield;
  return {
    hottest,
    thrashing: top(columns, (page) => Math.min(Math.max(page.up, page.written) - 1, page.down)),
    bytes: bytes.sorted((row) => row.bytes),
    notifiers: notifiers.sorted((row) => row.count),
    locks: locks.sorted((row) => row.ms),
    causes: causesOf(time, { ...moves, restarts, missed, evicted, faults, faulted }),
    wallMs: first > last ? 0 : (last - first) / 1000,
  };
}

/** How often each page did what: differences between neighbours at first, then the numbers themselves. */
type PageColumns = { readonly [N in "events" | "up" | "written" | "down" | "fetched"]: Int32Array };

function sumUp(column: Int32Array): void {
  for (let i = 1; i < column.length; i++) {
    column[i] += column[i - 1];
  }
}

/** What the pages did, all together. */
function movesOf({ up, written, fetched }: PageColumns): Pick<Counts, "sent" | "again" | "shuttling" | "trips"> {
  let [sent, again, shuttling, trips] = [0, 0, 0, 0];
  for (let slot = 0; slot < up.length - 1; slot++) {
    sent += up[slot];
    again += Math.max(0, up[slot] - 1);
    const times = Math.min(written[slot], fetched[slot]);
    shuttling += times > 1 ? 1 : 0;
    trips = Math.max(trips, times);
  }
  return { sent, again, shuttling, trips };
}

function top({ events, up, written, down }: PageColumns, score: (page: HotPage) => number): readonly HotPage[] {
  const best: { readonly page: HotPage; readonly score: number }[] = [];
  for (let slot = 0; slot < events.length - 1; slot++) {
    if (events[slot] === 0) {
      continue;
    }
    const page = { slot, events: events[slot], up: up[slot], written: written[slot], down: down[slot] };
    const value = score(page);
    if (value > 0 && (best.length < MOST_ROWS || value > best[best.length - 1].score)) {
      best.push({ page, score: value });
      best.sort((a, b) => b.score - a.score);
      best.length = Math.min(best.length, MOST_ROWS);
    }
  }
  return best.map(({ page }) => page);
}
