/** Reads trace files into a store. */
import { KernelError, PAGE_SIZE, TRACE_NAMES, TRACEPOINTS } from "../base/index.ts";
import { type EventRun, readRuns } from "../trace/index.ts";
import type { EventStore } from "./event-store.ts";

interface ChromeEvent {
  readonly ph?: unknown;
  readonly name?: unknown;
  readonly ts?: unknown;
  readonly dur?: unknown;
  readonly args?: Fields;
}

type Fields = Readonly<Record<string, unknown>>;

const INSTANTS = new Set<string>(TRACE_NAMES.filter((name) => TRACEPOINTS[name].shape === "instant"));
const PAGES_OF = "pages ";
const BYTES_OF = "bytes ";

/** Takes a trace file piece by piece. Files of this project have one event a line; any other JSON is read as a whole. */
export class TraceLoader {
  readonly #store: EventStore;
  readonly #name: string;
  /** What is being done, for messages. */
  readonly #op: string;
  #rest = "";
  /** What came before the first event. */
  #head = "";
  /** Lines that stood for themselves; undefined once the file has proved to be of another form. */
  #whole: string[] | undefined;
  #pages: { readonly device: string; readonly args: Fields } | undefined;
  /** Events that were taken. */
  events = 0;

  /** `name` is the file's, for errors. */
  constructor(store: EventStore, name = "the file", op = "inspect") {
    this.#op = op;
    this.#store = store;
    this.#name = name;
  }

  /** Takes the next piece of the file. */
  push(text: string): void {
    if (this.#whole !== undefined) {
      this.#whole.push(text);
      return;
    }
    const all = this.#rest + text;
    let from = 0;
    for (let end = all.indexOf("\n", from); end >= 0; end = all.indexOf("\n", from)) {
      if (!this.#line(all.slice(from, end)) && this.events === 0) {
        this.#whole = [this.#head + all];
        return;
      }
      from = end + 1;
    }
    this.#rest = all.slice(from);
    this.#head = this.events === 0 ? this.#head + all.slice(0, from) : "";
  }

  /** Ends the file. @throws KernelError EINVAL when it is no trace */
  end(): void {
    if (this.#whole !== undefined) {
      this.#wholeFile(this.#whole.join(""));
    } else if (this.events === 0) {
      this.#wholeFile(this.#head + this.#rest);
    } else {
      // A run that was killed leaves half a line, which is nobody's event.
      this.#line(this.#rest);
    }
    if (this.events === 0) {
      throw notATrace(this.#op, this.#name);
    }
  }

  #line(raw: string): boolean {
    const line = raw.trim();
    if (line === "" || line === "[" || line === "]") {
      return true;
    }
    if (!line.startsWith("{")) {
      return false;
    }
    try {
      this.#event(JSON.parse(line.endsWith(",") ? line.slice(0, -1) : line) as ChromeEvent);
      return true;
    } catch {
      return false;
    }
  }

  #wholeFile(text: string): void {
    let events: unknown;
    try {
      const parsed: unknown = JSON.parse(text);
      events = Array.isArray(parsed) ? parsed : (parsed as { traceEvents?: unknown } | null)?.traceEvents;
    } catch {
      throw notATrace(this.#op, this.#name);
    }
    if (!Array.isArray(events)) {
      throw notATrace(this.#op, this.#name);
    }
    for (const event of events as ChromeEvent[]) {
      this.#event(event);
    }
  }

  #event({ ph, name, ts, dur, args }: ChromeEvent): void {
    if (typeof name !== "string" || typeof ts !== "number" || args === undefined) {
      this.events += ph === "M" ? 1 : 0;
      return;
    }
    if (ph === "X" || ph === "i") {
      this.events++;
      const runs = readRuns(args.runs);
      if (runs !== undefined) {
        this.#several(name, args, ts, runs);
        return;
      }
      if (args.of !== undefined) {
        return;
      }
      // Where an arrow begins, the file has a slice of a nanosecond for an instant.
      this.#store.add(name, args, ts, typeof dur === "number" && !INSTANTS.has(name) ? dur : 0);
    } else if (ph === "C" && name.startsWith(PAGES_OF)) {
      this.#pages = { device: name.slice(PAGES_OF.length), args };
    } else if (ph === "C" && name === BYTES_OF + this.#pages?.device) {
      this.#store.add("gpu.memory", { ...this.#pages?.args, ...args, device: this.#pages?.device }, ts, 0);
    }
  }

  /** The events that a slice stands for. */
  #several(name: string, args: Fields, ts: number, runs: readonly EventRun[]): void {
    const store = this.#store;
    const clear = { ...args, event: "clear", blockable: true };
    for (const { page, pages, after, duration, told } of runs) {
      const start = Number(args.start) + page * PAGE_SIZE;
      const bytes = pages * PAGE_SIZE;
      const range = { start, end: start + bytes, pages, bytes };
      const at = later(ts, after);
      if (args.announced === true) {
        store.add("mmu.start", { ...clear, ...range }, later(ts, after + told), (duration - told) / 1000);
        store.add(name, { ...args, ...range }, at, duration / 1000);
        store.add("mmu.end", { ...clear, ...range }, later(ts, after + duration), 0);
      } else {
        store.add(name, { ...args, ...range }, at, duration / 1000);
      }
    }
  }
}

/** Nanoseconds after some microseconds, as the file would have them. */
const later = (us: number, ns: number) => (Math.round(us * 1000) + ns) / 1000;

function notATrace(op: string, name: string): KernelError {
  return new KernelError("EINVAL", op, `${name} is no trace: make one with pagemirror run … --trace FILE`);
}
