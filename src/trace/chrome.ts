/**
 * Trace events as Chrome's Trace Event JSON, which Perfetto and chrome://tracing open: an array of objects, one a line.
 *
 *     X  slice          M  name of a lane       C  counters
 *     i  instant        s, f  the two ends of an arrow, from a device fault to its upload
 */
import { TRACE_NAMES, TRACEPOINTS, type TraceEvent, type TraceName } from "../base/index.ts";

const PID = 1;
/** Events that wait for a fault's upload: the oldest are forgotten. */
const MOST_PENDING = 4096;

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

/** What a name's fields are, looked up once. */
interface Shape {
  readonly name: TraceName;
  readonly head: string;
  readonly keys: readonly string[];
  readonly text: readonly boolean[];
  readonly lane: string;
  readonly kind: "slice" | "instant" | "counter";
}

const SHAPES = new Map<TraceName, Shape>(
  TRACE_NAMES.map((name) => {
    const { fields, shape } = TRACEPOINTS[name];
    const category = name.slice(0, name.indexOf("."));
    const phase = shape === "slice" ? "X" : shape === "counter" ? "C" : "i";
    const keys = Object.keys(fields);
    return [
      name,
      {
        name,
        head: `{"ph":"${phase}","name":"${name}","cat":"${category}","pid":${PID},"tid":`,
        keys: keys.map((key) => `"${key}":`),
        text: Object.values(fields).map((unit) => unit === "text"),
        lane: LANES[name],
        kind: shape,
      },
    ];
  }),
);

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
  readonly #quoted = new Map<string, string>();
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

  /** Takes one event. */
  add(event: TraceEvent): void {
    const shape = SHAPES.get(event.name);
    if (shape === undefined || this.#ended) {
      return;
    }
    const start = (event.at - this.#origin) * 1000;
    const duration = event.duration * 1000;
    const device = "device" in event.fields && typeof event.fields.device === "string" ? event.fields.device : "";
    if (shape.kind === "counter") {
      this.#counters(event as TraceEvent<"gpu.memory">, start);
      return;
    }
    const tid = this.#tid(device, shape, start, start + duration);
    const time = shape.kind === "slice" ? `${micros(start)},"dur":${micros(duration)}` : `${micros(start)},"s":"t"`;
    this.#line(`${shape.head}${tid},"ts":${time},"args":{${this.#args(shape, event)}}}`);
    if (event.name === "gpu.fault") {
      this.#faulted(event as TraceEvent<"gpu.fault">, tid, start);
    } else if (event.name === "gpu.upload" && this.#pending.length > 0) {
      this.#uploaded(event as TraceEvent<"gpu.upload">, tid, start);
    }
    if (this.#text.length > 65_536) {
      this.flush();
    }
  }

  /** Hands over what has been made so far. */
  flush(): void {
    const text = this.#text;
    this.#text = "";
    if (text !== "") {
      this.#write(text);
    }
  }

  /** Ends the file. Idempotent; later events are left out. */
  end(): void {
    if (!this.#ended) {
      this.#ended = true;
      this.#text += "\n]\n";
      this.flush();
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
        `{"ph":"C","name":${this.#quote(`${what} ${device}`)},"cat":"gpu","pid":${PID},"tid":0,"ts":${micros(at)},"args":${JSON.stringify(values)}}`,
      );
    line("pages", { resident, dirty, free });
    line("bytes", { toDevice, toHost });
  }

  #args({ keys, text }: Shape, { fields }: TraceEvent): string {
    let args = "";
    let i = 0;
    for (const field in fields) {
      const value: unknown = fields[field as keyof typeof fields];
      args += `${i === 0 ? "" : ","}${keys[i]}${text[i] ? this.#quote(String(value)) : value}`;
      i++;
    }
    return args;
  }

  #quote(text: string): string {
    let quoted = this.#quoted.get(text);
    if (quoted === undefined) {
      quoted = JSON.stringify(text);
      this.#quoted.set(text, quoted);
    }
    return quoted;
  }

  #tid(device: string, { lane: kind }: Shape, start: number, end: number): number {
    const key = device === "" ? kind : `${device} ${kind}`;
    let lane = this.#lanes.get(key);
    if (lane === undefined) {
      lane = { tids: [], ends: [] };
      this.#lanes.set(key, lane);
    }
    let row = lane.ends.findIndex((last) => last <= start);
    if (row < 0) {
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

/** Microseconds, to the nanosecond. */
function micros(us: number): number {
  return Math.round(us * 1000) / 1000;
}
