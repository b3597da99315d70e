/**
 * Trace events as Chrome's Trace Event JSON, which Perfetto and chrome://tracing open: an array of objects, one a line.
 *
 *     X  slice          M  name of a lane       C  counters
 *     i  instant        s, f  the two ends of an arrow, from a device fault to its upload
 */
import { TRACE_NAMES, TRACEPOINTS, type TraceEvent, type TraceUnit } from "../base/index.ts";
import { CLEARED, type EventChunk, EventPacker, expandRow, ROW_FIELDS, ROW_STRIDE } from "./event-chunk.ts";
import { endOfRuns, putRuns, wholeOf } from "./event-runs.ts";
import { FOR_DEVICES, LANE_NAMES, NUMBER, PID, SHAPES, type Shape, TEXT } from "./event-shape.ts";
import { type Piece, piece, TextBytes } from "./text-bytes.ts";

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

const START = TRACE_NAMES.indexOf("mmu.start");
const DURATION = piece(',"dur":');
const ARGS = piece(',"args":{');
const INSTANT_ARGS = piece(',"s":"t","args":{');
const END = piece("}}");
const COUNT = piece(',"count":');
const ANNOUNCED = piece(',"announced":true');
const OF_FAULTS = piece(',"of":"mm.fault"');
const RUNS = piece(',"runs":"');
const RUNS_END = piece('"');
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

/** Rows that are written as one event. */
interface Several {
  readonly rows: Float64Array;
  readonly from: number;
  readonly to: number;
}

interface DeviceRange {
  readonly device: number;
  readonly space: number;
  readonly start: number;
  readonly end: number;
}

/** A device fault whose pages have not been sent up yet. Some never are: a page that is only written has no bytes to bring. */
interface PendingFault extends DeviceRange {
  readonly tid: number;
  readonly at: number;
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
  readonly #count = new Float64Array(1);
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
    for (let row = 0; row < rows.length; ) {
      const next = endOfRuns(rows, row);
      if (next > row + ROW_STRIDE) {
        this.#several({ rows, from: row, to: next });
      } else {
        this.#one(rows, row);
      }
      row = next;
      if (this.#text.length > PIECE) {
        this.#send();
      }
    }
  }

  #one(rows: Float64Array, row: number): void {
    const expanded = expandRow(rows, row);
    if (expanded === undefined) {
      this.#event(SHAPES[rows[row]], rows, row);
      return;
    }
    for (let event = 0; event < expanded.length; event += ROW_STRIDE) {
      this.#event(SHAPES[expanded[event]], expanded, event);
    }
  }

  #several(several: Several): void {
    const { rows, from, to } = several;
    const whole = wholeOf(rows, from, to);
    this.#event(SHAPES[whole[0]], whole, 0, several);
    if (rows[from] === CLEARED) {
      whole[0] = START;
      whole[ROW_FIELDS + 3] = rows[from + ROW_FIELDS + 3];
      whole[ROW_FIELDS + 4] = 1;
      this.#event(SHAPES[START], whole, 0, several);
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

  #event(shape: Shape, rows: Float64Array, row: number, several?: Several): void {
    const times = this.#times;
    const start = Math.round((rows[row + 1] - this.#origin) * 1e6);
    const end = Math.max(
      start + (shape.arrows ? 1 : 0),
      Math.round((rows[row + 1] + rows[row + 2] - this.#origin) * 1e6),
    );
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
    text.thousandths(times, 0);
    if (shape.kind === "slice") {
      text.put(DURATION);
      text.thousandths(times, 1);
      text.put(ARGS);
    } else {
      text.put(INSTANT_ARGS);
    }
    this.#fields(shape, rows, row);
    if (several !== undefined) {
      this.#runs(shape, several);
    }
    text.put(END);
    if (shape.arrows) {
      this.#arrows(shape, several ?? { rows, from: row, to: row + ROW_STRIDE }, lane.tids[at]);
    }
  }

  /** How many rows the event stands for, and what each of them was. */
  #runs(shape: Shape, { rows, from, to }: Several): void {
    const text = this.#text;
    const announced = rows[from] === CLEARED;
    this.#count[0] = (to - from) / ROW_STRIDE;
    text.put(COUNT);
    text.number(this.#count, 0);
    if (announced && shape.name === "mmu.start") {
      text.put(OF_FAULTS);
      return;
    }
    if (announced) {
      text.put(ANNOUNCED);
    }
    text.put(RUNS);
    putRuns(text, rows, from, to, this.#origin, shape.arrows ? 1 : 0);
    text.put(RUNS_END);
  }

  #arrows(shape: Shape, { rows, from, to }: Several, tid: number): void {
    for (let row = from; row < to && (shape.name === "gpu.fault" || this.#pending.length > 0); row += ROW_STRIDE) {
      const at = Math.round((rows[row + 1] - this.#origin) * 1e6) / 1000;
      if (shape.name === "gpu.fault") {
        this.#faulted(this.#rangeOf(shape, rows, row), tid, at);
      } else {
        this.#uploaded(this.#rangeOf(shape, rows, row), tid, at);
      }
    }
  }

  #fields({ kinds, labels }: Shape, rows: Float64Array, row: number): void {
    const text = this.#text;
    for (let i = 0; i < kinds.length; i++) {
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

  #rangeOf(shape: Shape, rows: Float64Array, row: number): DeviceRange {
    return {
      device: rows[row + shape.device],
      space: rows[row + shape.space],
      start: rows[row + shape.start],
      end: rows[row + shape.end],
    };
  }

  #faulted(range: DeviceRange, tid: number, at: number): void {
    this.#pending.push({ ...range, tid, at });
    if (this.#pending.length > MOST_PENDING) {
      this.#pending.shift();
    }
  }

  #uploaded(upload: DeviceRange, tid: number, at: number): void {
    this.#pending = this.#pending.filter((fault) => {
      const { device, space, start, end } = fault;
      const mine = device === upload.device && space === upload.space && start < upload.end && upload.start < end;
      if (mine) {
        // Both ends at once: an arrow that leads nowhere is an error to who reads the file.
        const id = ++this.#flows;
        this.#arrow({ ph: "s", id }, fault.tid, fault.at);
        this.#arrow({ ph: "f", bp: "e", id }, tid, at);
      }
      return !mine;
    });
  }

  #arrow(end: { readonly ph: "s" | "f"; readonly id: number; readonly bp?: "e" }, tid: number, ts: number): void {
    this.#line(JSON.stringify({ ...end, name: "brings", cat: "flow", pid: PID, tid, ts }));
  }
}
