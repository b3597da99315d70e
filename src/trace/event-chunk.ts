/** Events as rows of numbers, to send to another thread: a row for each, and texts by number, each sent once. */
import {
  PAGE_SIZE,
  TRACE_NAMES,
  TRACEPOINTS,
  type TraceEvent,
  type TraceFields,
  type TraceName,
  TraceSink,
  type TraceUnit,
} from "../base/index.ts";

/** Where a row's fields begin: the tracepoint's number, `at` and `duration` come first. */
export const ROW_FIELDS = 3;
const MOST_FIELDS = Math.max(...TRACE_NAMES.map((name) => Object.keys(TRACEPOINTS[name].fields).length));
/** Numbers of a row. */
export const ROW_STRIDE = ROW_FIELDS + MOST_FIELDS;

/** The names of each tracepoint's fields and their units, in the order of a row. */
const LAYOUTS = TRACE_NAMES.map((name) => Object.entries<TraceUnit>(TRACEPOINTS[name].fields));
const NUMBER_OF = new Map<string, number>(TRACE_NAMES.map((name, number) => [name, number]));
const FAULT = TRACE_NAMES.indexOf("mm.fault");
const START = TRACE_NAMES.indexOf("mmu.start");
const END = TRACE_NAMES.indexOf("mmu.end");
const UPLOAD = TRACE_NAMES.indexOf("gpu.upload");
/** Not a tracepoint: a row that stands for three events, {@link expandRow}. Its duration is the time at which it ended. */
export const CLEARED = TRACE_NAMES.length;
/** Where such a row says when notifiers were told. */
export const CLEARED_TOLD = ROW_FIELDS + 4;

/** Some events, in order. `texts` are those that no earlier chunk of the same packer brought, in the order of their numbers. */
export interface EventChunk {
  readonly rows: Float64Array;
  readonly texts: readonly string[];
}

/** What a packer tells of itself, in the middle of what is traced. */
export interface PackerEvents {
  /** The first event since the last chunk was taken. */
  onFirst?(): void;
  /** There is no room for another: {@link EventPacker.take} the chunk. */
  onFull(): void;
}

/** Turns events into chunks. Those that come with every page allocate nothing. */
export class EventPacker extends TraceSink {
  #rows: Float64Array;
  #used = 0;
  #texts: string[] = [];
  readonly #events: PackerEvents;
  readonly #numbers = new Map<string, number>();
  /** The text of each field's last event and its number: the next one's is mostly the same. */
  readonly #recent: string[] = new Array<string>(TRACE_NAMES.length * ROW_STRIDE).fill("");
  readonly #recentNumbers = new Int32Array(TRACE_NAMES.length * ROW_STRIDE).fill(-1);

  /** Rows are written to `rows`: as many as there is room for are a chunk. */
  constructor(rows: Float64Array, events: PackerEvents) {
    super();
    this.#rows = rows;
    this.#events = events;
  }

  get empty(): boolean {
    return this.#used === 0;
  }

  /** What was added since the last chunk, in the packer's own rows: to use at once, or to give new ones for. */
  takeChunk(next = this.#rows): EventChunk {
    const chunk = { rows: this.#rows.subarray(0, this.#used), texts: this.#texts };
    this.#rows = next;
    this.#used = 0;
    this.#texts = [];
    return chunk;
  }

  override take(name: TraceName, fields: TraceFields, at: number, duration: number): void {
    const number = NUMBER_OF.get(name);
    if (number === undefined) {
      return;
    }
    const row = this.#row(number, at, duration);
    const values = fields as Readonly<Record<string, string | number | boolean>>;
    for (const [i, [key, unit]] of LAYOUTS[number].entries()) {
      const value = values[key];
      this.#rows[row + i] =
        unit === "text" ? this.#textNumber(number * ROW_STRIDE + i, value as string) : Number(value);
    }
    this.#added();
  }

  override fault(
    space: number,
    vpn: number,
    vpnEnd: number,
    write: boolean,
    device: boolean,
    at: number,
    duration: number,
  ): void {
    const row = this.#rangeRow(FAULT, at, duration, space, vpn, vpnEnd);
    const rows = this.#rows;
    rows[row + 3] = write ? 1 : 0;
    rows[row + 4] = device ? 1 : 0;
    this.#added();
  }

  override start(
    space: number,
    vpn: number,
    vpnEnd: number,
    event: string,
    blockable: boolean,
    at: number,
    duration: number,
  ): void {
    const row = this.#rangeRow(START, at, duration, space, vpn, vpnEnd);
    const rows = this.#rows;
    rows[row + 3] = this.#textNumber(START * ROW_STRIDE, event);
    rows[row + 4] = blockable ? 1 : 0;
    this.#added();
  }

  override end(space: number, vpn: number, vpnEnd: number, event: string, at: number): void {
    const row = this.#rangeRow(END, at, 0, space, vpn, vpnEnd);
    const rows = this.#rows;
    rows[row + 3] = this.#textNumber(END * ROW_STRIDE, event);
    this.#added();
  }

  override cleared(space: number, vpn: number, vpnEnd: number, at: number, told: number, now: number): void {
    const row = this.#rangeRow(CLEARED, at, now, space, vpn, vpnEnd);
    const rows = this.#rows;
    rows[row + 3] = this.#textNumber(START * ROW_STRIDE, "clear");
    rows[row + 4] = told;
    this.#added();
  }

  override upload(device: string, space: number, vpn: number, vpnEnd: number, at: number, duration: number): void {
    const row = this.#row(UPLOAD, at, duration);
    const rows = this.#rows;
    rows[row] = this.#textNumber(UPLOAD * ROW_STRIDE, device);
    rows[row + 1] = space;
    rows[row + 2] = vpn * PAGE_SIZE;
    rows[row + 3] = vpnEnd * PAGE_SIZE;
    rows[row + 4] = vpnEnd - vpn;
    rows[row + 5] = (vpnEnd - vpn) * PAGE_SIZE;
    this.#added();
  }

  /** Begins a row; returns where its fields go. */
  #row(number: number, at: number, duration: number): number {
    const rows = this.#rows;
    const row = this.#used;
    if (row === 0) {
      this.#events.onFirst?.();
    }
    rows[row] = number;
    rows[row + 1] = at;
    rows[row + 2] = duration;
    return row + ROW_FIELDS;
  }

  /** {@link #row} of an event whose first fields are a range. */
  #rangeRow(number: number, at: number, duration: number, space: number, vpn: number, vpnEnd: number): number {
    const row = this.#row(number, at, duration);
    const rows = this.#rows;
    rows[row] = space;
    rows[row + 1] = vpn * PAGE_SIZE;
    rows[row + 2] = vpnEnd * PAGE_SIZE;
    return row;
  }

  #added(): void {
    this.#used += ROW_STRIDE;
    if (this.#used + ROW_STRIDE > this.#rows.length) {
      this.#events.onFull();
    }
  }

  /** `place` numbers the field among those of all tracepoints. */
  #textNumber(place: number, text: string): number {
    if (this.#recent[place] === text && this.#recentNumbers[place] !== -1) {
      return this.#recentNumbers[place];
    }
    let number = this.#numbers.get(text);
    if (number === undefined) {
      number = this.#numbers.size;
      this.#numbers.set(text, number);
      this.#texts.push(text);
    }
    this.#recent[place] = text;
    this.#recentNumbers[place] = number;
    return number;
  }
}

const expanded = new Float64Array(3 * ROW_STRIDE);

/** The events of a row that stands for several, as rows that are good until the next call; undefined for other rows. */
export function expandRow(rows: Float64Array, row: number): Float64Array | undefined {
  if (rows[row] !== CLEARED) {
    return undefined;
  }
  const at = rows[row + 1];
  const now = rows[row + 2];
  const told = rows[row + CLEARED_TOLD];
  for (let event = 0; event < expanded.length; event += ROW_STRIDE) {
    // The range is where the first three fields of all of them are, and mmu.start's and mmu.end's text after it.
    for (let i = 0; i < 4; i++) {
      expanded[event + ROW_FIELDS + i] = rows[row + ROW_FIELDS + i];
    }
    expanded[event + ROW_FIELDS + 4] = 1;
  }
  expanded[0] = START;
  expanded[1] = told;
  expanded[2] = now - told;
  expanded[ROW_STRIDE] = FAULT;
  expanded[ROW_STRIDE + 1] = at;
  expanded[ROW_STRIDE + 2] = now - at;
  expanded[ROW_STRIDE + ROW_FIELDS + 3] = 1;
  expanded[ROW_STRIDE + ROW_FIELDS + 4] = 0;
  expanded[2 * ROW_STRIDE] = END;
  expanded[2 * ROW_STRIDE + 1] = now;
  expanded[2 * ROW_STRIDE + 2] = 0;
  return expanded;
}

/** Makes events of the chunks of one packer. */
export class EventUnpacker {
  readonly #texts: string[] = [];

  /** The events of its next chunk. */
  *unpack({ rows, texts }: EventChunk): IterableIterator<TraceEvent> {
    this.#texts.push(...texts);
    for (let row = 0; row < rows.length; row += ROW_STRIDE) {
      const several = expandRow(rows, row);
      for (let event = 0; several !== undefined && event < several.length; event += ROW_STRIDE) {
        yield this.#event(several, event);
      }
      if (several === undefined) {
        yield this.#event(rows, row);
      }
    }
  }

  #event(rows: Float64Array, row: number): TraceEvent {
    const fields: Record<string, string | number | boolean> = {};
    for (const [i, [key, unit]] of LAYOUTS[rows[row]].entries()) {
      const value = rows[row + ROW_FIELDS + i];
      fields[key] = unit === "text" ? this.#texts[value] : unit === "flag" ? value === 1 : value;
    }
    return {
      name: TRACE_NAMES[rows[row]],
      fields: fields as unknown as TraceFields,
      at: rows[row + 1],
      duration: rows[row + 2],
    };
  }
}
