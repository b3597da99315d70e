/** Why a run was slow: what took the time, and the remedy for it. */
import { PAGE_SIZE, TRACE_NAMES, type TraceName } from "../base/index.ts";
import { type EventStore, kindOf, SECOND_FLAG } from "./event-store.ts";

/** Something that took time, in milliseconds, and the remedy. */
export interface Cause {
  readonly what: string;
  readonly ms: number;
  readonly why: string;
  readonly remedy: string;
}

/** Pages of the CPU's size, and how often things happened. */
export interface Counts {
  /** Pages that were sent up, and how many of these had been sent before. */
  readonly sent: number;
  readonly again: number;
  /** Pages that kernels wrote and the CPU fetched, more than once, and how often at most. */
  readonly shuttling: number;
  readonly trips: number;
  /** Tries of dispatches that were undone. */
  readonly restarts: number;
  /** Pages that kernels reported as missing. */
  readonly missed: number;
  readonly evicted: number;
  /** Times that a lease or a plain access found pages missing or read-only, and how many pages in all. */
  readonly faults: number;
  readonly faulted: number;
}

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

/** Slices of one name that mean different things are told apart by a field. */
const VARIANTS = ["", "device", "round", "idle"] as const;
type Variant = (typeof VARIANTS)[number];

const [FAULT, FENCE] = [kindOf("mm.fault"), kindOf("gpu.fence")];
const NOTHING = new Covered();

/** The time that slices of each kind cover. */
export class TimeCovered {
  readonly #store: EventStore;
  readonly #covered = new Map<number, Covered>();

  constructor(store: EventStore) {
    this.#store = store;
  }

  /** Takes a row, unless it is an instant. */
  add(row: number): void {
    const { columns: c } = this.#store;
    if (c.duration[row] === 0) {
      return;
    }
    const key = c.kind[row] + TRACE_NAMES.length * this.#variant(row);
    let covered = this.#covered.get(key);
    if (covered === undefined) {
      covered = new Covered();
      this.#covered.set(key, covered);
    }
    covered.add(c.time[row], c.duration[row]);
  }

  #variant(row: number): number {
    const { columns: c } = this.#store;
    if (c.kind[row] === FAULT) {
      return c.flags[row] & SECOND_FLAG ? VARIANTS.indexOf("device") : 0;
    }
    return c.kind[row] === FENCE ? Math.max(0, VARIANTS.indexOf(this.#store.text(c.text[row]) as Variant)) : 0;
  }

  of(name: TraceName, variant: Variant = ""): Pick<Covered, "ms" | "count"> {
    return this.#covered.get(kindOf(name) + TRACE_NAMES.length * VARIANTS.indexOf(variant)) ?? NOTHING;
  }
}

const count = (n: number) => n.toLocaleString("en-US");
const counted = (n: number, one: string) => `${count(n)} ${n === 1 ? one : `${one}s`}`;
const size = (pages: number) =>
  pages * PAGE_SIZE < 2 ** 20
    ? `${(pages * PAGE_SIZE) / 1024} KiB`
    : `${((pages * PAGE_SIZE) / 2 ** 20).toFixed(1)} MiB`;

/** Faults of fewer pages, on average, are many for what they bring. */
const FEW_PAGES = 16;

const MORE_MEMORY = "give the device more memory (--device-memory, deviceMemory), or let one dispatch touch less";
const FEWER_MISSES =
  "call device.prefetch on what the kernel will follow, and keep data that is used together on the same pages";
const FASTER_KERNEL = "memory is not the limit: make the kernel faster, or use more workgroups";

/** The largest three causes, the largest first. */
export function causesOf(time: TimeCovered, counts: Counts): readonly Cause[] {
  const { sent, again, shuttling, trips, restarts, missed, evicted, faults, faulted } = counts;
  // Evictions alone say nothing: who walks once over more than fits evicts, and has lost nothing.
  const thrashes = evicted > 0 && again * 2 > sent;
  const rounds = time.of("gpu.fence", "round").count;
  const missing = `${counted(missed, "page")} missed in ${counted(rounds, "round")}`;
  const tooSmall = `the device holds less than its kernels use at once: ${missing}, ${counted(evicted, "page")} evicted`;
  const causes: Cause[] = [
    {
      what: "sending pages to the device",
      ms: time.of("gpu.upload").ms,
      why: `${size(sent)} went up, ${again === 0 ? "each page once" : `${size(again)} of it not for the first time${thrashes ? `: ${counted(evicted, "page")} were evicted in between` : ""}`}`,
      remedy: thrashes
        ? MORE_MEMORY
        : again * 10 < sent
          ? "let the kernel read less, or call device.prefetch while the CPU has other things to do"
          : 'change fewer pages between dispatches, keep what changes together on the same pages, and lease with "r" what is only read',
    },
    shuttling > 0
      ? {
          what: "pages to and fro between kernels and the CPU",
          ms: time.of("gpu.readback").ms,
          why: `${counted(shuttling, "page")} that kernels write came home for the CPU again and again, up to ${count(trips)} times`,
          remedy:
            "read results after the last dispatch; if the CPU must look at each, let the kernel write that to a small mapping of its own",
        }
      : {
          what: "bringing pages home",
          ms: time.of("gpu.readback").ms,
          why: `${counted(time.of("gpu.readback").count, "run")} of pages that the CPU, or the eviction of others, needed`,
          remedy:
            "read results once, with one lease over all of them; do not look at memory that the next dispatch writes again",
        },
    {
      what: "giving up device memory",
      ms: time.of("gpu.evict").ms,
      why: `${counted(evicted, "page")} were given up for others`,
      remedy: "raise --device-memory (deviceMemory), or dispatch over smaller parts, one after the other",
    },
    missed === 0
      ? {
          what: "bringing what was asked for",
          ms: time.of("gpu.service").ms,
          why: "device.prefetch was called, and kernels missed nothing",
          remedy: "prefetch only what kernels will use, and let the CPU do something else meanwhile",
        }
      : {
          what: "serving what kernels missed",
          ms: time.of("gpu.service").ms,
          why: thrashes ? tooSmall : missing,
          remedy: thrashes ? MORE_MEMORY : FEWER_MISSES,
        },
    {
      what: "CPU faults",
      ms: time.of("mm.fault").ms,
      why: `leases, or plain accesses, found ${counted(faulted, "page")} missing or read-only, in ${counted(faults, "fault")}`,
      remedy:
        faults > 1 && faulted < faults * FEW_PAGES
          ? 'lease larger ranges at once, and ask for "r" where nothing is written; call populate before plain accesses'
          : 'lease only what is used, and ask for "r" where nothing is written',
    },
    {
      what: "finding memory for devices",
      ms: time.of("mm.fault", "device").ms,
      why: `${counted(time.of("mm.fault", "device").count, "time")} a device needed pages that the CPU had not touched: they were read from their file, or made`,
      remedy: "nothing, if it happens once; else call device.prefetch before the kernel needs them",
    },
    {
      what: "waiting for invalidations",
      ms: time.of("mmu.start").ms,
      why: `devices were told ${counted(time.of("mmu.start").count, "time")} that memory changes, and had to finish first${restarts > 0 ? `; dispatches began again ${counted(restarts, "time")}` : ""}`,
      remedy: "write before the dispatch or after it, not while the kernel runs; or write to another mapping",
    },
    {
      what: "waiting for locks",
      ms: time.of("sync.wait").ms,
      why: `${counted(time.of("sync.wait").count, "time")} a task stood in line`,
      remedy: "do fewer mmap and munmap calls while kernels run; see the table of lock waits for the class",
    },
    {
      what: "waiting for staging memory",
      ms: time.of("gpu.throttle").ms,
      why: `transfers came faster than the device takes them, ${counted(time.of("gpu.throttle").count, "time")}`,
      remedy: "send less: the bus is the limit here, not the library",
    },
    {
      what: "the kernels themselves",
      ms: time.of("gpu.fence").ms,
      why: `${counted(time.of("gpu.fence").count, "wait")} for dispatches on the GPU`,
      remedy: FASTER_KERNEL,
    },
    {
      what: "running kernels in rounds",
      ms: time.of("gpu.fence", "round").ms,
      why: thrashes ? tooSmall : missed === 0 ? `${counted(rounds, "round")}, nothing missed` : missing,
      remedy: thrashes ? MORE_MEMORY : missed === 0 ? FASTER_KERNEL : FEWER_MISSES,
    },
    {
      what: "making pipelines of kernels",
      ms: time.of("gpu.compile").ms,
      why: `${counted(time.of("gpu.compile").count, "pipeline")} that the GPU's driver compiled`,
      remedy: "make a kernel once, and dispatch it again and again: its pipelines are made at their first use",
    },
    {
      what: "waiting until the device is idle",
      ms: time.of("gpu.fence", "idle").ms,
      why: `${counted(time.of("gpu.fence", "idle").count, "time")} memory changed, was given up or was closed while the device worked with it`,
      remedy: "write, unmap and close after dispatches, not while they run; give the device more memory if it evicts",
    },
  ];
  return causes
    .filter((cause) => cause.ms > 0)
    .sort((a, b) => b.ms - a.ms)
    .slice(0, 3);
}
