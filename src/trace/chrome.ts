/**
 * Trace events as Chrome's Trace Event JSON, which Perfetto and chrome://tracing open: an array of objects, one a line.
 *
 *     X  slice          M  name of a lane       C  counters
 *     i  instant        s, f  the two ends of an arrow, from a device fault to its upload
 */
import { TRACE_NAMES, TRACEPOINTS, type TraceEvent, type TraceName, type TraceUnit } from "../base/index.ts";
import { type EventChunk, EventPacker, expandRow, ROW_FIELDS, ROW_STRIDE } from "./event-chunk.ts";
import { type Piece, piece, TextBytes } from "./text-bytes.ts";

const PID = 1;
/** Events that wait for a fault's upload: the oldest are forgotten. */
const MOST_PENDING = 4096;
/** Rows of one lane: what overlaps more often is drawn in the last. */
const MOST_ROWS = 31;
/** More than there are devices. */
const MOST_NAMES = 2 ** 16;
/** Events that wait to be written, at most, and how long. */
const MOST_QUEUED = 4096;
const WRITE_EVERY_MS = 50;
/** Bytes that are handed over in one go. */
const PIECE = 65_536;

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

/** The lane of those events of `mm.fault` that a device caused. */
const FAULTS_FOR_DEVICES = "faults for devices";

/** Space, start and end: the first fields of most events. */
const RANGE_FIELDS = 3;
const [NUMBER, TEXT, FLAG] = [0, 1, 2];

/** How a name's events are written, made once. */
interface Shape {
  readonly name: TraceName;
  readonly kind: "slice" | "instant" | "counter";
  readonly lane: number;
  /** Arrows begin or end at its events. */
  readonly arrows: boolean;
  /** Up to the number of the lane. */
  readonly head: Piece;
  /** What comes before each field's value. */
  readonly labels: readonly Piece[];
  /** What each of its fields is: {@link NUMBER}, {@link TEXT} or {@link FLAG}. */
  readonly kinds: readonly number[];
  /** Where a row has the field, or -1. */
  readonly device: number;
  readonly forDevice: number;
  readonly space: number;
  readonly start: number;
  readonly end: number;
}

const LANE_NAMES = [...new Set(Object.values(LANES)), FAULTS_FOR_DEVICES];
const FOR_DEVICES = LANE_NAMES.indexOf(FAULTS_FOR_DEVICES);

const SHAPES: readonly Shape[] = TRACE_NAMES.map((name) => {
  const { fields, shape } = TRACEPOINTS[name];
  const keys = Object.keys(fields);
  const category = name.slice(0, name.indexOf("."));
  const at = (key: string) => (keys.includes(key) ? ROW_FIELDS + keys.indexOf(key) : -1);
  return {
    name,
    // An arrow binds to a slice: where one begins, an instant is a slice of a nanosecond.
    kind: name === "gpu.fault" ? "slice" : shape,
    lane: LANE_NAMES.indexOf(LANES[name]),
    head: piece(
      `,\n{"ph":"${shape === "slice" || name === "gpu.fault" ? "X" : "i"}","name":"${name}","cat":"${category}","pid":${PID},"tid":`,
    ),
    labels: keys.map((key, i) => piece(`${i === 0 ? "" : ","}"${key}":`)),
    kinds: Object.values<TraceUnit>(fields).map((unit) => (unit === "text" ? TEXT : unit === "flag" ? FLAG : NUMBER)),
    arrows: name === "gpu.fault" || name === "gpu.upload",
    // mm.fault has a flag of that name.
    device: "device" in fields && fields.device === "text" ? at("device") : -1,
    forDevice: "device" in fields && fields.device === "flag" ? at("device") : -1,
    space: at("space"),
    start: at("start"),
    end: at("end"),
  };
});

const DURATION = piece(',"dur":');
const ARGS = piece(',"args":{');
const INSTANT_ARGS = piece(',"s":"t","args":{');
const END = piece("}}");
const TRUE = piece("true");
const FALSE = piece("false");

/**
 * Slices of one lane that overlap in time are drawn below each other: each in a row that is free by then. What is in one row
 * must not overlap by a nanosecond; Perfetto drops what does.
 */
interface Lane {
  readonly name: string;
  /** Where it is shown among all lanes. */
  readonly order: number;
  readonly tids: number[];
  /** The number of each row, as it is written. */
  readonly pieces: Piece[];
  /** When the last slice of each row ends, in nanoseconds. */
  readonly ends: number[];
}

/** A device fault whose pages have not been sent up yet. */
interface PendingFault {
  readonly id: number;
  readonly device: number;
  readonly space: number;
  readonly start: number;
  readonly end: number;
}

/** Turns events into a trace file, piece by piece. `write` gets UTF-8 of whole lines, to use at once; the last ends the file. */
export class ChromeTraceWriter {
  readonly #write: (piece: Uint8Array) => void;
  readonly #origin: number;
  readonly #packer = new EventPacker(new Float64Array(MOST_QUEUED * ROW_STRIDE), {
    onFirst: () => {
      this.#timer = setTimeout(() => this.#drain(), WRITE_EVERY_MS);
    },
    onFull: () => this.#drain(),
  });
  #timer: ReturnType<typeof setTimeout> | undefined;
  readonly #text = new TextBytes(2 * PIECE);
  /** By the number of their device's name, plus one, and then by the number of their own. */
  readonly #lanes: Lane[][] = [];
  readonly #names: string[] = [];
  /** The names as JSON. */
  readonly #quoted: Piece[] = [];
  /** Start and duration of the event that is being written, in nanoseconds. */
  readonly #times = new Float64Array(2);
  /** Where its text begins, where that of its range does, and where this ends. */
  #timesFrom = 0;
  #rangeFrom = 0;
  #rangeEnd = 0;
  #pending: PendingFault[] = [];
  #flows = 0;
  #tids = 0;
  #ended = false;

  /** `origin` is the `performance.now()` that becomes time 0. */
  constructor(write: (piece: Uint8Array) => void, origin: number) {
    this.#write = write;
    this.#origin = origin;
    this.#text.text(`[\n{"ph":"M","name":"process_name","pid":${PID},"tid":0,"args":{"name":"pagemirror"}}`);
  }

  /** Takes one event. It is written a little later, when the process waits for something anyway. */
  add({ name, fields, at, duration }: TraceEvent): void {
    if (!this.#ended) {
      this.#packer.take(name, fields, at, duration);
    }
  }

  /** Writes events that were packed elsewhere: all of them, by one packer, or none. */
  addChunk({ rows, texts }: EventChunk): void {
    for (const text of texts) {
      this.#names.push(text);
      this.#quoted.push(piece(JSON.stringify(text)));
    }
    for (let row = 0; row < rows.length; row += ROW_STRIDE) {
      const several = expandRow(rows, row);
      if (several === undefined) {
        this.#event(SHAPES[rows[row]], rows, row, false);
      } else {
        for (let event = 0; event < several.length; event += ROW_STRIDE) {
          this.#event(SHAPES[several[event]], several, event, event > 0);
        }
      }
      if (this.#text.length > PIECE) {
        this.#send();
      }
    }
  }

  /** Hands over what has been made so far. */
  flush(): void {
    this.#drain();
    this.#send();
  }

  /** Ends the file. Idempotent; later events are left out. */
  end(): void {
    if (!this.#ended) {
      this.#drain();
      this.#ended = true;
      this.#text.text("\n]\n");
      this.#send();
    }
  }

  #drain(): void {
    clearTimeout(this.#timer);
    if (!this.#packer.empty) {
      this.addChunk(this.#packer.takeChunk());
    }
  }

  #send(): void {
    if (this.#text.length > 0) {
      this.#write(this.#text.bytes);
      this.#text.clear();
    }
  }

  /** With `again` it names the range that the event before names first: what is the same in their texts is copied. */
  #event(shape: Shape, rows: Float64Array, row: number, again: boolean): void {
    const times = this.#times;
    const start = Math.round((rows[row + 1] - this.#origin) * 1e6);
    const end = Math.max(
      start + (shape.arrows ? 1 : 0),
      Math.round((rows[row + 1] + rows[row + 2] - this.#origin) * 1e6),
    );
    const sameTimes = again && shape.kind === "slice" && times[0] === start && times[1] === end - start;
    times[0] = start;
    times[1] = end - start;
    if (shape.kind === "counter") {
      this.#counters(shape, rows, row, start / 1000);
      return;
    }
    const device = shape.device === -1 ? 0 : rows[row + shape.device] + 1;
    const kind = shape.forDevice !== -1 && rows[row + shape.forDevice] !== 0 ? FOR_DEVICES : shape.lane;
    const lane = this.#lanes[device]?.[kind] ?? this.#newLane(device, kind);
    let at = 0;
    while (at < lane.ends.length && lane.ends[at] > start && at < MOST_ROWS) {
      at++;
    }
    if (at === lane.ends.length) {
      this.#newRow(lane);
    }
    lane.ends[at] = end;
    const text = this.#text;
    text.put(shape.head);
    text.put(lane.pieces[at]);
    if (sameTimes) {
      text.repeat(this.#timesFrom, this.#rangeEnd);
    } else {
      this.#timesFrom = text.length;
      text.thousandths(times, 0);
      if (shape.kind === "slice") {
        text.put(DURATION);
        text.thousandths(times, 1);
        text.put(ARGS);
      } else {
        text.put(INSTANT_ARGS);
      }
      const rangeFrom = text.length;
      if (again) {
        text.repeat(this.#rangeFrom, this.#rangeEnd);
      } else {
        this.#fields(shape, rows, row, 0, RANGE_FIELDS);
      }
      this.#rangeFrom = rangeFrom;
      this.#rangeEnd = text.length;
    }
    this.#fields(shape, rows, row, RANGE_FIELDS, shape.kinds.length);
    text.put(END);
    if (shape.name === "gpu.fault") {
      this.#faulted(this.#rangeOf(shape, rows, row), lane.tids[at], start / 1000);
    } else if (shape.name === "gpu.upload" && this.#pending.length > 0) {
      this.#uploaded(this.#rangeOf(shape, rows, row), lane.tids[at], start / 1000);
    }
  }

  /** Fields from one up to another, as far as there are so many. */
  #fields({ kinds, labels }: Shape, rows: Float64Array, row: number, from: number, to: number): void {
    const text = this.#text;
    const end = Math.min(to, kinds.length);
    for (let i = from; i < end; i++) {
      text.put(labels[i]);
      const value = row + ROW_FIELDS + i;
      if (kinds[i] === NUMBER) {
        text.number(rows, value);
      } else if (kinds[i] === TEXT) {
        text.put(this.#quoted[rows[value]]);
      } else {
        text.put(rows[value] === 0 ? FALSE : TRUE);
      }
    }
  }

  #line(json: string): void {
    this.#text.text(`,\n${json}`);
  }

  /** Pages and bytes are curves of their own: one scale would flatten the smaller. */
  #counters({ name, device }: Shape, rows: Float64Array, row: number, ts: number): void {
    const values = { pages: {} as Record<string, number>, bytes: {} as Record<string, number> };
    for (const [i, [key, unit]] of Object.entries<TraceUnit>(TRACEPOINTS[name].fields).entries()) {
      if (unit === "pages" || unit === "bytes") {
        values[unit][key] = rows[row + ROW_FIELDS + i];
      }
    }
    for (const [what, args] of Object.entries(values)) {
      const curve = `${what} ${this.#names[rows[row + device]]}`;
      this.#line(JSON.stringify({ ph: "C", name: curve, cat: "gpu", pid: PID, tid: 0, ts, args }));
    }
  }

  /** `device` is the number of its name, plus one. Devices come first, then what is of no device. */
  #newLane(device: number, kind: number): Lane {
    const name = device === 0 ? LANE_NAMES[kind] : `${this.#names[device - 1]} ${LANE_NAMES[kind]}`;
    const order = ((device === 0 ? MOST_NAMES : device) * LANE_NAMES.length + kind) * (MOST_ROWS + 1);
    const lane = { name, order, tids: [], pieces: [], ends: [] };
    this.#lanes[device] ??= [];
    this.#lanes[device][kind] = lane;
    return lane;
  }

  #newRow({ name, order, tids, pieces, ends }: Lane): void {
    const tid = ++this.#tids;
    const row = tids.push(tid) - 1;
    pieces.push(piece(`${tid},"ts":`));
    ends.push(0);
    const meta = { ph: "M", pid: PID, tid };
    const args = { name: row === 0 ? name : `${name} ${row + 1}` };
    this.#line(JSON.stringify({ ...meta, name: "thread_name", args }));
    this.#line(JSON.stringify({ ...meta, name: "thread_sort_index", args: { sort_index: order + row } }));
  }

  #rangeOf(shape: Shape, rows: Float64Array, row: number): Omit<PendingFault, "id"> {
    return {
      device: rows[row + shape.device],
      space: rows[row + shape.space],
      start: rows[row + shape.start],
      end: rows[row + shape.end],
    };
  }

  #faulted({ device, space, start, end }: Omit<PendingFault, "id">, tid: number, at: number): void {
    const id = ++this.#flows;
    this.#pending.push({ id, device, space, start, end });
    if (this.#pending.length > MOST_PENDING) {
      this.#pending.shift();
    }
    this.#arrow({ ph: "s", id }, tid, at);
  }

  #uploaded(upload: Omit<PendingFault, "id">, tid: number, at: number): void {
    this.#pending = this.#pending.filter(({ id, device, space, start, end }) => {
      const mine = device === upload.device && space === upload.space && start < upload.end && upload.start < end;
      if (mine) {
        this.#arrow({ ph: "f", bp: "e", id }, tid, at);
      }
      return !mine;
    });
  }

  #arrow(end: { readonly ph: "s" | "f"; readonly id: number; readonly bp?: "e" }, tid: number, ts: number): void {
    this.#line(JSON.stringify({ ...end, name: "brings", cat: "flow", pid: PID, tid, ts }));
  }
}
