/**
 * Trace events as Chrome's Trace Event JSON, which Perfetto and chrome://tracing open: an array of objects, one a line.
 *
 *     X  slice          M  name of a lane       C  counters
 *     i  instant        s, f  the two ends of an arrow, from a device fault to its upload
 */
import { TRACE_NAMES, TRACEPOINTS, type TraceEvent, type TraceName, type TraceUnit } from "../base/index.ts";

const PID = 1;
/** Events that wait for a fault's upload: the oldest are forgotten. */
const MOST_PENDING = 4096;
/** Rows of one lane: what overlaps more often is drawn in the last. */
const MOST_ROWS = 31;
/** Events that wait to be written, at most, and how long. */
const MOST_QUEUED = 32_768;
const WRITE_EVERY_MS = 50;

/** The lane that an event is drawn in; a device has its own set of them. */
const LANES: Readonly<Record<TraceName, string>> = {
  "mm.map": "mappings",
  "mm.unmap": "mappings",
  "mm.fault": "CPU faults",
  "mm.migrate": "migrations",
  "mm.poison": "migrations",
  "mmu.start": "invalidations",
  "mmu.end": "invalidations",
  "mmu.notifier": "notifiers",
  "sync.wait": "lock waits",
  "gpu.dispatch": "dispatches",
  "gpu.round": "rounds",
  "gpu.fault": "faults",
  "gpu.service": "faults",
  "gpu.coalesce": "faults",
  "gpu.upload": "transfers",
  "gpu.readback": "transfers",
  "gpu.prefetch": "faults",
  "gpu.evict": "evictions",
  "gpu.fence": "waits",
  "gpu.throttle": "waits",
  "gpu.memory": "memory",
};

type Put = (fields: Readonly<Record<string, unknown>>) => string;

/** How a name's events are written, made once. */
interface Shape {
  readonly head: string;
  readonly args: readonly Put[];
  readonly lane: string;
  readonly kind: "slice" | "instant" | "counter";
}

const SHAPES = new Map<TraceName, Shape>(
  TRACE_NAMES.map((name) => {
    const { fields, shape } = TRACEPOINTS[name];
    const category = name.slice(0, name.indexOf("."));
    const head = `,\n{"ph":"${shape === "slice" ? "X" : "i"}","name":"${name}","cat":"${category}","pid":${PID},"tid":`;
    const args = Object.entries(fields).map(([key, unit], i) => putField(`${i === 0 ? "" : ","}"${key}":`, key, unit));
    return [name, { head, args, lane: LANES[name], kind: shape }];
  }),
);

function putField(label: string, key: string, unit: TraceUnit): Put {
  switch (unit) {
    case "text":
      return (fields) => label + quote(String(fields[key]));
    case "address":
      return (fields) => label + addressText(fields[key] as number);
    default:
      return (fields) => label + fields[key];
  }
}

const quoted = new Map<string, string>();
/** Names are few; should they not be, they are not kept for ever. */
const MOST_QUOTED = 10_000;

function quote(text: string): string {
  let json = quoted.get(text);
  if (json === undefined) {
    json = JSON.stringify(text);
    if (quoted.size >= MOST_QUOTED) {
      quoted.clear();
    }
    quoted.set(text, json);
  }
  return json;
}

const MILLION = 1_000_000;

/** Numbers of more than 31 bits are slow to print: in two halves they are not. */
function addressText(addr: number): string {
  if (addr < 2 ** 30) {
    return String(addr);
  }
  const high = Math.floor(addr / MILLION);
  return high + String(MILLION + (addr - high * MILLION)).slice(1);
}

const FRACTIONS = Array.from({ length: 1000 }, (_, i) => (i === 0 ? "" : `.${String(i).padStart(3, "0")}`));

/** Microseconds, to the nanosecond. */
function micros(us: number): string {
  const rounded = Math.round(us * 1000);
  if (rounded < 0) {
    return String(rounded / 1000);
  }
  const whole = Math.floor(rounded / 1000);
  return whole + FRACTIONS[rounded - whole * 1000];
}

/** Slices of one lane that overlap in time are drawn below each other: each in a row that is free by then. */
interface Lane {
  readonly tids: number[];
  /** When the last slice of each row ends, in microseconds. */
  readonly ends: number[];
}

/** A device fault whose pages have not been sent up yet. */
interface PendingFault {
  readonly id: number;
  readonly device: string;
  readonly space: number;
  readonly start: number;
  readonly end: number;
}

/** Turns events into the text of a trace file, piece by piece. `write` gets whole lines; the last ends the file. */
export class ChromeTraceWriter {
  readonly #write: (text: string) => void;
  readonly #lanes = new Map<string, Lane>();
  #queue: TraceEvent[] = [];
  #timer: ReturnType<typeof setTimeout> | undefined;
  readonly #origin: number;
  #pending: PendingFault[] = [];
  #flows = 0;
  #tids = 0;
  #text = "";
  #ended = false;

  /** `origin` is the `performance.now()` that becomes time 0. */
  constructor(write: (text: string) => void, origin: number) {
    this.#write = write;
    this.#origin = origin;
    this.#text = `[\n{"ph":"M","name":"process_name","pid":${PID},"tid":0,"args":{"name":"pagemirror"}}`;
  }

  /** Takes one event. It is written a little later, when the process waits for something anyway. */
  add(event: TraceEvent): void {
    if (this.#ended) {
      return;
    }
    if (this.#queue.push(event) >= MOST_QUEUED) {
      this.#drain();
    } else {
      this.#timer ??= setTimeout(() => this.#drain(), WRITE_EVERY_MS);
    }
  }

  #drain(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    const queue = this.#queue;
    this.#queue = [];
    for (const event of queue) {
      this.#event(event);
    }
  }

  #event(event: TraceEvent): void {
    const shape = SHAPES.get(event.name);
    if (shape === undefined) {
      return;
    }
    const start = (event.at - this.#origin) * 1000;
    if (shape.kind === "counter") {
      this.#counters(event as TraceEvent<"gpu.memory">, start);
      return;
    }
    const duration = event.duration * 1000;
    const fields = event.fields as Readonly<Record<string, unknown>>;
    const { device } = fields;
    const tid = this.#tid(typeof device === "string" ? device : "", shape.lane, start, start + duration);
    let args = "";
    for (const put of shape.args) {
      args += put(fields);
    }
    const time = micros(start) + (shape.kind === "slice" ? `,"dur":${micros(duration)}` : ',"s":"t"');
    this.#text += `${shape.head}${tid},"ts":${time},"args":{${args}}}`;
    if (event.name === "gpu.fault") {
      this.#faulted(event as TraceEvent<"gpu.fault">, tid, start);
    } else if (event.name === "gpu.upload" && this.#pending.length > 0) {
      this.#uploaded(event as TraceEvent<"gpu.upload">, tid, start);
    }
    if (this.#text.length > 65_536) {
      this.#send();
    }
  }

  /** Hands over what has been made so far. */
  flush(): void {
    this.#drain();
    this.#send();
  }

  #send(): void {
    const text = this.#text;
    this.#text = "";
    if (text !== "") {
      this.#write(text);
    }
  }

  /** Ends the file. Idempotent; later events are left out. */
  end(): void {
    if (!this.#ended) {
      this.#drain();
      this.#ended = true;
      this.#text += "\n]\n";
      this.#send();
    }
  }

  #line(json: string): void {
    this.#text += `,\n${json}`;
  }

  /** Pages and bytes are curves of their own: one scale would flatten the smaller. */
  #counters({ fields }: TraceEvent<"gpu.memory">, at: number): void {
    const { device, resident, dirty, free, toDevice, toHost } = fields;
    const line = (what: string, values: Readonly<Record<string, number>>) =>
      this.#line(
        `{"ph":"C","name":${quote(`${what} ${device}`)},"cat":"gpu","pid":${PID},"tid":0,"ts":${micros(at)},"args":${JSON.stringify(values)}}`,
      );
    line("pages", { resident, dirty, free });
    line("bytes", { toDevice, toHost });
  }

  #tid(device: string, kind: string, start: number, end: number): number {
    const key = device === "" ? kind : `${device} ${kind}`;
    let lane = this.#lanes.get(key);
    if (lane === undefined) {
      lane = { tids: [], ends: [] };
      this.#lanes.set(key, lane);
    }
    let row = 0;
    while (row < lane.ends.length && lane.ends[row] > start && row < MOST_ROWS) {
      row++;
    }
    if (row === lane.ends.length) {
      row = lane.tids.push(++this.#tids) - 1;
      const name = row === 0 ? key : `${key} ${row + 1}`;
      this.#line(
        `{"ph":"M","name":"thread_name","pid":${PID},"tid":${this.#tids},"args":{"name":${JSON.stringify(name)}}}`,
      );
    }
    lane.ends[row] = end;
    return lane.tids[row];
  }

  #faulted({ fields }: TraceEvent<"gpu.fault">, tid: number, at: number): void {
    const id = ++this.#flows;
    const { device, space, start, end } = fields;
    this.#pending.push({ id, device, space, start, end });
    if (this.#pending.length > MOST_PENDING) {
      this.#pending.shift();
    }
    this.#line(`{"ph":"s","name":"brings","cat":"flow","id":${id},"pid":${PID},"tid":${tid},"ts":${micros(at)}}`);
  }

  #uploaded({ fields }: TraceEvent<"gpu.upload">, tid: number, at: number): void {
    this.#pending = this.#pending.filter(({ id, device, space, start, end }) => {
      const mine = device === fields.device && space === fields.space && start < fields.end && fields.start < end;
      if (mine) {
        this.#line(
          `{"ph":"f","bp":"e","name":"brings","cat":"flow","id":${id},"pid":${PID},"tid":${tid},"ts":${micros(at)}}`,
        );
      }
      return !mine;
    });
  }
}
