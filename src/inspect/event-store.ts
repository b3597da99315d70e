/** Events as columns of typed arrays: a million of them are some 60 MB, and a browser walks them without stutter. */
import { PAGE_SIZE, TRACE_NAMES, TRACEPOINTS, type TraceName } from "../base/index.ts";

/** The names of the columns and their kinds, in the order of the wire. Wide columns first, so that all are aligned. */
const COLUMNS = {
  /** Microseconds. */
  time: Float64Array,
  duration: Float64Array,
  /** First page of the range; -1 for none. */
  page: Float64Array,
  /** Bytes, or the first count. */
  value: Float64Array,
  /** The second count. */
  value2: Float64Array,
  pages: Uint32Array,
  device: Uint16Array,
  /** The first two texts that are no device: a name, a cause. */
  text: Uint16Array,
  text2: Uint16Array,
  space: Uint16Array,
  kind: Uint8Array,
  flags: Uint8Array,
} as const;

type ColumnName = keyof typeof COLUMNS;
type Columns = { [N in ColumnName]: InstanceType<(typeof COLUMNS)[N]> };

const COLUMN_NAMES = Object.keys(COLUMNS) as readonly ColumnName[];

/** Bits of `flags`: the first flag of a tracepoint, and the second. */
export const FIRST_FLAG = 1;
export const SECOND_FLAG = 2;

const KIND_OF = new Map<string, number>(TRACE_NAMES.map((name, i) => [name, i]));

/** The number of a tracepoint in `kind`. */
export function kindOf(name: TraceName): number {
  return KIND_OF.get(name) ?? 0;
}

interface Plan {
  readonly texts: readonly string[];
  readonly numbers: readonly string[];
  readonly flags: readonly string[];
  readonly range: boolean;
}

/** Where the fields of each tracepoint go. */
const PLANS: readonly Plan[] = TRACE_NAMES.map((name) => {
  const entries = Object.entries(TRACEPOINTS[name].fields);
  const of = (...units: readonly string[]) =>
    entries.filter(([, unit]) => units.includes(unit)).map(([field]) => field);
  const numbers = [...of("bytes"), ...of("count")];
  return {
    texts: of("text").filter((field) => field !== "device"),
    numbers,
    flags: of("flag"),
    range: of("address").length === 2,
  };
});

/** How much of a device's memory holds what, at one time. */
export interface MemorySample {
  /** Microseconds. */
  readonly time: number;
  readonly device: number;
  readonly resident: number;
  readonly dirty: number;
  readonly free: number;
  readonly toDevice: number;
  readonly toHost: number;
}

const SAMPLE_FIELDS = ["time", "device", "resident", "dirty", "free", "toDevice", "toHost"] as const;

type Fields = Readonly<Record<string, unknown>>;

interface Header {
  readonly from: number;
  readonly count: number;
  readonly texts: readonly string[];
  readonly samplesFrom: number;
  readonly samples: number;
}

/** A growing table of events. Rows are in the order in which the events ended. */
export class EventStore {
  #columns: Columns;
  #capacity: number;
  #texts: string[] = [""];
  readonly #textIds = new Map<string, number>([["", 0]]);
  readonly samples: MemorySample[] = [];
  count = 0;
  /** Events that found no room. */
  dropped = 0;
  readonly #limit: number;
  #begin = Number.POSITIVE_INFINITY;

  constructor(capacity = 1024, limit = 8_000_000) {
    this.#capacity = capacity;
    this.#limit = limit;
    this.#columns = makeColumns(capacity);
  }

  /** The columns; rows from `count` on mean nothing. Ask again after rows were added. */
  get columns(): Readonly<Columns> {
    return this.#columns;
  }

  get texts(): readonly string[] {
    return this.#texts;
  }

  text(id: number): string {
    return this.#texts[id] ?? "";
  }

  /** The earliest moment of the events, in microseconds: a process has mostly run for a while by then. */
  get begin(): number {
    return this.count === 0 ? 0 : this.#begin;
  }

  /** One past the latest moment of the events, in microseconds. */
  get end(): number {
    const { time, duration } = this.#columns;
    return this.count === 0 ? 0 : time[this.count - 1] + duration[this.count - 1];
  }

  /** Takes one event, times in microseconds. Unknown names are left out. */
  add(name: string, fields: Fields, time: number, duration: number): void {
    const kind = KIND_OF.get(name);
    if (kind === undefined) {
      return;
    }
    if (name === "gpu.memory") {
      const device = this.#textId(String(fields.device));
      const [resident, dirty, free] = [Number(fields.resident), Number(fields.dirty), Number(fields.free)];
      this.samples.push({
        time,
        device,
        resident,
        dirty,
        free,
        toDevice: Number(fields.toDevice),
        toHost: Number(fields.toHost),
      });
      return;
    }
    if (this.count === this.#capacity && !this.#grow()) {
      this.dropped++;
      return;
    }
    const plan = PLANS[kind];
    const c = this.#columns;
    const row = this.count++;
    c.kind[row] = kind;
    c.time[row] = time;
    this.#begin = Math.min(this.#begin, time);
    c.duration[row] = duration;
    if (plan.range) {
      const start = Math.floor(Number(fields.start) / PAGE_SIZE);
      c.page[row] = start;
      c.pages[row] = Math.ceil(Number(fields.end) / PAGE_SIZE) - start;
    } else {
      c.page[row] = -1;
      c.pages[row] = Number(fields.pages ?? 0);
    }
    c.space[row] = Number(fields.space ?? 0);
    c.device[row] = fields.device !== undefined && typeof fields.device === "string" ? this.#textId(fields.device) : 0;
    c.text[row] = plan.texts.length > 0 ? this.#textId(String(fields[plan.texts[0]] ?? "")) : 0;
    c.text2[row] = plan.texts.length > 1 ? this.#textId(String(fields[plan.texts[1]] ?? "")) : 0;
    c.value[row] = plan.numbers.length > 0 ? Number(fields[plan.numbers[0]] ?? 0) : 0;
    c.value2[row] = plan.numbers.length > 1 ? Number(fields[plan.numbers[1]] ?? 0) : 0;
    c.flags[row] =
      (plan.flags.length > 0 && fields[plan.flags[0]] === true ? FIRST_FLAG : 0) |
      (plan.flags.length > 1 && fields[plan.flags[1]] === true ? SECOND_FLAG : 0);
  }

  #textId(text: string): number {
    let id = this.#textIds.get(text);
    if (id === undefined) {
      id = this.#texts.push(text) - 1;
      this.#textIds.set(text, id);
    }
    return id;
  }

  #grow(needed = this.#capacity + 1): boolean {
    if (needed > this.#limit) {
      return false;
    }
    const capacity = Math.min(this.#limit, Math.max(needed, this.#capacity * 2));
    const next = makeColumns(capacity);
    for (const name of COLUMN_NAMES) {
      next[name].set(this.#columns[name].subarray(0, this.count) as never);
    }
    this.#columns = next;
    this.#capacity = capacity;
    return true;
  }

  /** Rows from `from` on, and samples from `samplesFrom` on, as bytes for {@link append}. */
  encode(from: number, samplesFrom: number): Uint8Array<ArrayBuffer> {
    const first = Math.min(Math.max(0, from), this.count);
    const firstSample = Math.min(Math.max(0, samplesFrom), this.samples.length);
    const count = this.count - first;
    const samples = this.samples.length - firstSample;
    const header: Header = { from: first, count, texts: this.#texts, samplesFrom: firstSample, samples };
    const head = new TextEncoder().encode(JSON.stringify(header));
    const headBytes = Math.ceil((head.length + 4) / 8) * 8;
    const rowBytes = COLUMN_NAMES.reduce((sum, name) => sum + columnBytes(name, count), 0);
    const bytes = new Uint8Array(headBytes + samples * SAMPLE_FIELDS.length * 8 + rowBytes);
    new DataView(bytes.buffer).setUint32(0, head.length, true);
    bytes.set(head, 4);
    let at = headBytes;
    const flat = new Float64Array(bytes.buffer, at, samples * SAMPLE_FIELDS.length);
    for (let i = 0; i < samples; i++) {
      SAMPLE_FIELDS.forEach((field, f) => {
        flat[i * SAMPLE_FIELDS.length + f] = this.samples[firstSample + i][field];
      });
    }
    at += flat.byteLength;
    for (const name of COLUMN_NAMES) {
      const part = this.#columns[name].subarray(first, this.count);
      bytes.set(new Uint8Array(part.buffer, part.byteOffset, part.byteLength), at);
      at += columnBytes(name, count);
    }
    return bytes;
  }

  /** Adds what {@link encode} made of another store's rows. Returns how many rows came. */
  append(bytes: ArrayBuffer): number {
    const length = new DataView(bytes).getUint32(0, true);
    const header = JSON.parse(new TextDecoder().decode(new Uint8Array(bytes, 4, length))) as Header;
    const skip = this.count - header.from;
    if (skip < 0 || this.samples.length < header.samplesFrom) {
      throw new RangeError(`rows ${this.count} to ${header.from} are missing: ask for them first`);
    }
    this.#texts = [...header.texts];
    for (const [id, text] of this.#texts.entries()) {
      this.#textIds.set(text, id);
    }
    let at = Math.ceil((length + 4) / 8) * 8;
    const flat = new Float64Array(bytes, at, header.samples * SAMPLE_FIELDS.length);
    for (let i = this.samples.length - header.samplesFrom; i < header.samples; i++) {
      const [time, device, resident, dirty, free, toDevice, toHost] = flat.subarray(i * 7, i * 7 + 7);
      this.samples.push({ time, device, resident, dirty, free, toDevice, toHost });
    }
    at += flat.byteLength;
    const fresh = header.count - skip;
    if (fresh <= 0) {
      return 0;
    }
    if (this.count + fresh > this.#capacity && !this.#grow(this.count + fresh)) {
      this.dropped += fresh;
      return 0;
    }
    for (const name of COLUMN_NAMES) {
      const part = new COLUMNS[name](bytes, at, header.count).subarray(skip);
      this.#columns[name].set(part as never, this.count);
      at += columnBytes(name, header.count);
    }
    for (const time of this.#columns.time.subarray(this.count, this.count + fresh)) {
      this.#begin = Math.min(this.#begin, time);
    }
    this.count += fresh;
    return fresh;
  }
}

/** Columns are padded, so that the next one is aligned. */
function columnBytes(name: ColumnName, count: number): number {
  return Math.ceil((count * COLUMNS[name].BYTES_PER_ELEMENT) / 8) * 8;
}

function makeColumns(capacity: number): Columns {
  return Object.fromEntries(COLUMN_NAMES.map((name) => [name, new COLUMNS[name](capacity)])) as unknown as Columns;
}
