/** Events as rows of numbers, to send to another thread: a row for each, and texts by number, each sent once. */
import { TRACE_NAMES, TRACEPOINTS, type TraceEvent, type TraceUnit } from "../base/index.ts";

/** Where a row's fields begin: the tracepoint's number, `at` and `duration` come first. */
export const ROW_FIELDS = 3;
/** Numbers of a row. */
export const ROW_STRIDE =
  ROW_FIELDS + Math.max(...TRACE_NAMES.map((name) => Object.keys(TRACEPOINTS[name].fields).length));

interface Layout {
  readonly number: number;
  readonly fields: readonly Field[];
}

interface Field {
  readonly key: string;
  readonly text: boolean;
  /** The text of the last event and its number: the next one's is mostly the same. */
  recent: string;
  recentNumber: number;
}

function makeLayouts(): Map<string, Layout> {
  return new Map(
    TRACE_NAMES.map((name, number) => {
      const entries = Object.entries<TraceUnit>(TRACEPOINTS[name].fields);
      const fields = entries.map(([key, unit]) => ({ key, text: unit === "text", recent: "", recentNumber: -1 }));
      return [name, { number, fields }];
    }),
  );
}

/** Some events, in order. `texts` are those that no earlier chunk of the same packer brought, in the order of their numbers. */
export interface EventChunk {
  readonly rows: Float64Array<ArrayBuffer>;
  readonly texts: readonly string[];
}

/** Turns events into chunks. Adding one allocates nothing. */
export class EventPacker {
  readonly #rows: Float64Array<ArrayBuffer>;
  #used = 0;
  #texts: string[] = [];
  readonly #numbers = new Map<string, number>();
  readonly #layouts = makeLayouts();

  /** `capacity`: events of one chunk. */
  constructor(capacity: number) {
    this.#rows = new Float64Array(capacity * ROW_STRIDE);
  }

  get empty(): boolean {
    return this.#used === 0;
  }

  /** Adds an event. True when the chunk is full: {@link take} it before the next. */
  add({ name, fields, at, duration }: TraceEvent): boolean {
    const layout = this.#layouts.get(name);
    if (layout === undefined) {
      return false;
    }
    const rows = this.#rows;
    let i = this.#used;
    this.#used += ROW_STRIDE;
    rows[i++] = layout.number;
    rows[i++] = at;
    rows[i++] = duration;
    const values = fields as Readonly<Record<string, string | number | boolean>>;
    for (let f = 0; f < layout.fields.length; f++) {
      const field = layout.fields[f];
      const value = values[field.key];
      rows[i++] = field.text ? this.#numberOf(field, value as string) : Number(value);
    }
    return this.#used === rows.length;
  }

  /** What was added since the last chunk. */
  take(): EventChunk {
    const chunk = { rows: this.#rows.slice(0, this.#used), texts: this.#texts };
    this.#used = 0;
    this.#texts = [];
    return chunk;
  }

  #numberOf(field: Field, text: string): number {
    if (field.recent === text && field.recentNumber !== -1) {
      return field.recentNumber;
    }
    let number = this.#numbers.get(text);
    if (number === undefined) {
      number = this.#numbers.size;
      this.#numbers.set(text, number);
      this.#texts.push(text);
    }
    field.recent = text;
    field.recentNumber = number;
    return number;
  }
}
