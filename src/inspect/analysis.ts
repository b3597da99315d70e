/** What a run spent its time on, and what to do about it. */
import { PAGE_SIZE, TRACE_NAMES } from "../base/index.ts";
import { kindOf } from "./event-store.ts";
import type { SpaceModel } from "./space-model.ts";

/** A page and how often it moved. */
export interface HotPage {
  readonly slot: number;
  /** Events that name it. */
  readonly events: number;
  /** Times that it went to the device, and that it came back or was dropped. */
  readonly up: number;
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

/** Something that took time, in milliseconds, and the remedy. */
export interface Cause {
  readonly what: string;
  readonly ms: number;
  readonly why: string;
  readonly remedy: string;
}

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
const MIB = 2 ** 20;

/** Time that slices cover, however many of them do at once. */
class Covered {
  #end = Number.NEGATIVE_INFINITY;
  ms = 0;
  count = 0;

  add(start: number, duration: number): void {
    const end = start + duration;
    this.count++;
    if (end > this.#end) {
      this.ms += (end - Math.max(start, this.#end)) / 1000;
      this.#end = end;
    }
  }
}

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

/** Looks at rows `[from, to)`. */
export function analyse(model: SpaceModel, from = 0, to = model.store.count): Analysis {
  const { store } = model;
  const { columns: c } = store;
  // Ranges are counted by their ends: a range of a million pages costs as much as one page.
  const events = new Int32Array(model.slots + 1);
  const up = new Int32Array(model.slots + 1);
  const down = new Int32Array(model.slots + 1);
  const mark = (row: number, into: Int32Array) =>
    model.forSlots(row, (first, end) => {
      into[first]++;
      into[end]--;
    });
  const [bytes, notifiers, locks] = [new Sums(), new Sums(), new Sums()];
  const covered = new Map<number, Covered>();
  let [restarts, rounds, faults, evictedPages] = [0, 0, 0, 0];
  let [first, last] = [Number.POSITIVE_INFINITY, 0];
  for (let row = from; row < to; row++) {
    const kind = c.kind[row];
    const duration = c.duration[row];
    first = Math.min(first, c.time[row]);
    last = Math.max(last, c.time[row] + duration);
    if (duration > 0) {
      let time = covered.get(kind);
      if (time === undefined) {
        time = new Covered();
        covered.set(kind, time);
      }
      time.add(c.time[row], duration);
    }
    switch (kind) {
      case K["gpu.upload"]:
        bytes.add("to device: uploaded", c.value[row], duration);
        mark(row, up);
        mark(row, events);
        break;
      case K["gpu.evict"]:
        bytes.add("to host: evicted", c.value[row], duration);
        evictedPages += c.pages[row];
        mark(row, down);
        break;
      case K["mm.migrate"]: {
        const home = store.text(c.text[row]) === "host";
        if (home) {
          bytes.add(`to host: ${store.text(c.text2[row])}`, c.pages[row] * PAGE_SIZE, duration);
          mark(row, down);
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
      case K["gpu.round"]:
        rounds++;
        faults += c.value2[row];
        break;
      case K["mm.fault"]:
      case K["gpu.fault"]:
        mark(row, events);
        break;
      default:
        break;
    }
  }
  const pages = hotPages(events, up, down);
  const ms = (name: (typeof TRACE_NAMES)[number]) => covered.get(K[name]) ?? new Covered();
  return {
    hottest: top(pages, (page) => page.events),
    thrashing: top(pages, (page) => Math.min(page.up - 1, page.down)),
    bytes: bytes.sorted((row) => row.bytes),
    notifiers: notifiers.sorted((row) => row.count),
    locks: locks.sorted((row) => row.ms),
    causes: causesOf(ms, { restarts, rounds, faults, evictedPages, bytes: bytes.sorted((row) => row.bytes) }),
    wallMs: first > last ? 0 : (last - first) / 1000,
  };
}

function hotPages(
  events: Int32Array,
  up: Int32Array,
  down: Int32Array,
): { readonly [I in "events" | "up" | "down"]: Int32Array } {
  for (const column of [events, up, down]) {
    for (let i = 1; i < column.length; i++) {
      column[i] += column[i - 1];
    }
  }
  return { events, up, down };
}

function top({ events, up, down }: ReturnType<typeof hotPages>, score: (page: HotPage) => number): readonly HotPage[] {
  const best: { readonly page: HotPage; readonly score: number }[] = [];
  for (let slot = 0; slot < events.length - 1; slot++) {
    if (events[slot] === 0) {
      continue;
    }
    const page = { slot, events: events[slot], up: up[slot], down: down[slot] };
    const value = score(page);
    if (value > 0 && (best.length < MOST_ROWS || value > best[best.length - 1].score)) {
      best.push({ page, score: value });
      best.sort((a, b) => b.score - a.score);
      best.length = Math.min(best.length, MOST_ROWS);
    }
  }
  return best.map(({ page }) => page);
}

interface Counts {
  readonly restarts: number;
  readonly rounds: number;
  readonly faults: number;
  readonly evictedPages: number;
  readonly bytes: readonly Sum[];
}

function causesOf(ms: (name: (typeof TRACE_NAMES)[number]) => Covered, counts: Counts): readonly Cause[] {
  const sent = counts.bytes.find(({ label }) => label === "to device: uploaded")?.bytes ?? 0;
  const mib = (n: number) => `${(n / MIB).toFixed(1)} MiB`;
  const causes: Cause[] = [
    {
      what: "sending pages to the device",
      ms: ms("gpu.upload").ms,
      why: `${mib(sent)} went up${counts.evictedPages > 0 ? `, and ${counts.evictedPages} pages were evicted in between` : ""}`,
      remedy:
        counts.evictedPages > 0
          ? "give the device more memory (--device-memory, deviceMemory), or let one dispatch touch less"
          : "change fewer pages between dispatches, or keep what changes together on the same pages",
    },
    {
      what: "bringing pages home",
      ms: ms("gpu.readback").ms,
      why: `${ms("gpu.readback").count} runs of pages that the CPU, or the eviction of others, needed`,
      remedy:
        "read results once, with one lease over all of them; do not look at memory that the next dispatch writes again",
    },
    {
      what: "giving up device memory",
      ms: ms("gpu.evict").ms,
      why: `${counts.evictedPages} pages were given up for others`,
      remedy: "raise --device-memory (deviceMemory), or dispatch over smaller parts, one after the other",
    },
    {
      what: "serving what kernels missed",
      ms: ms("gpu.service").ms,
      why: `${counts.faults} device pages were missed in ${counts.rounds} rounds`,
      remedy:
        "call device.prefetch on what the kernel will follow, and keep data that is used together on the same pages",
    },
    {
      what: "CPU faults",
      ms: ms("mm.fault").ms,
      why: `${ms("mm.fault").count} leases found pages missing or read-only`,
      remedy: 'lease larger ranges at once, and ask for "r" where nothing is written',
    },
    {
      what: "waiting for invalidations",
      ms: ms("mmu.start").ms,
      why: `devices were told ${ms("mmu.start").count} times that memory changes, and had to finish first${counts.restarts > 0 ? `; ${counts.restarts} dispatches started over` : ""}`,
      remedy: "write before the dispatch or after it, not while the kernel runs; or write to another mapping",
    },
    {
      what: "waiting for locks",
      ms: ms("sync.wait").ms,
      why: `${ms("sync.wait").count} tasks stood in line`,
      remedy: "do fewer mmap and munmap calls while kernels run; see the table of lock waits for the class",
    },
    {
      what: "waiting for staging memory",
      ms: ms("gpu.throttle").ms,
      why: `transfers came faster than the device takes them, ${ms("gpu.throttle").count} times`,
      remedy: "send less: the bus is the limit here, not the library",
    },
    {
      what: "the kernels themselves",
      ms: ms("gpu.fence").ms,
      why: `${ms("gpu.fence").count} waits for the GPU to finish`,
      remedy: "memory is not the limit: make the kernel faster, or use more workgroups",
    },
  ];
  return causes
    .filter((cause) => cause.ms > 0)
    .sort((a, b) => b.ms - a.ms)
    .slice(0, 3);
}
