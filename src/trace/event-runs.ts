/**
 * Events of one name that follow each other at once, as one slice of a trace file: a loop over a thousand pages sends a
 * thousand faults. Nothing is lost: what each of them was is a part of the argument `runs`,
 *
 *     PAGE+PAGES@NS+NS        first page behind the slice's `start`, pages; start after that of the slice, duration
 *     PAGE+PAGES@NS+NS~NS     of a fault that was announced, after how long notifiers were told, unless that was at once
 */
import { PAGE_SIZE, TRACE_NAMES, TRACEPOINTS, type TraceName } from "../base/index.ts";
import { CLEARED, CLEARED_TOLD, ROW_FIELDS, ROW_STRIDE } from "./event-chunk.ts";
import type { TextBytes } from "./text-bytes.ts";

/** Events of one slice, at most: a viewer shows what is in it as one line. */
const MOST_RUNS = 256;
/** Milliseconds between two events of one slice, at most. */
const MOST_BETWEEN = 0.02;

const NAMES: readonly TraceName[] = ["mm.fault", "mmu.start", "mmu.end", "gpu.upload"];
const FAULT = TRACE_NAMES.indexOf("mm.fault");

/** Which fields of a row are what, for a tracepoint whose events may be one slice. */
interface Layout {
  readonly instant: boolean;
  /** These are the same in all events of a slice. */
  readonly same: readonly number[];
  readonly start: number;
  readonly end: number;
  /** These are added up. */
  readonly sums: readonly number[];
}

const LAYOUTS: readonly (Layout | undefined)[] = [...TRACE_NAMES, CLEARED].map((name) => {
  const of = name === CLEARED ? "mmu.end" : (name as TraceName);
  if (!NAMES.includes(of)) {
    return undefined;
  }
  const { fields, shape } = TRACEPOINTS[of];
  const entries = Object.entries(fields).map(([key, unit], i) => ({ key, unit, at: ROW_FIELDS + i }));
  const ranges = entries.filter(({ unit }) => unit === "address");
  const sums = entries.filter(({ unit }) => unit === "pages" || unit === "bytes");
  return {
    instant: shape === "instant" && name !== CLEARED,
    same: entries.filter((entry) => !ranges.includes(entry) && !sums.includes(entry)).map(({ at }) => at),
    start: ranges[0].at,
    end: ranges[1].at,
    sums: sums.map(({ at }) => at),
  };
});

const endOf = (rows: Float64Array, row: number) =>
  rows[row] === CLEARED ? rows[row + 2] : rows[row + 1] + rows[row + 2];

const isWhole = (address: number) => address % PAGE_SIZE === 0;

/** One past the last of the rows that are one slice with the row; the next row where there is no other. */
export function endOfRuns(rows: Float64Array, row: number): number {
  const layout = LAYOUTS[rows[row]];
  let next = row + ROW_STRIDE;
  if (layout === undefined || !isWhole(rows[row + layout.start]) || !isWhole(rows[row + layout.end])) {
    return next;
  }
  const most = Math.min(rows.length, row + MOST_RUNS * ROW_STRIDE);
  while (next < most && follows(layout, rows, row, next)) {
    next += ROW_STRIDE;
  }
  return next;
}

function follows({ same, start, end, instant }: Layout, rows: Float64Array, first: number, row: number): boolean {
  if (rows[row] !== rows[first] || !(rows[row + 1] >= rows[first + 1])) {
    return false;
  }
  if (instant ? rows[row + 1] !== rows[first + 1] : rows[row + 1] - endOf(rows, row - ROW_STRIDE) > MOST_BETWEEN) {
    return false;
  }
  for (let i = 0; i < same.length; i++) {
    if (rows[row + same[i]] !== rows[first + same[i]]) {
      return false;
    }
  }
  return isWhole(rows[row + start]) && isWhole(rows[row + end]);
}

const whole = new Float64Array(ROW_STRIDE);

/**
 * Rows `[from, to)` as one: from the first start to the last end, from the lowest page to the highest, pages and bytes added
 * up. Of announced faults it is the fault. Good until the next call.
 */
export function wholeOf(rows: Float64Array, from: number, to: number): Float64Array {
  const layout = LAYOUTS[rows[from]] as Layout;
  whole.set(rows.subarray(from, from + ROW_STRIDE));
  let until = endOf(rows, from);
  for (let row = from + ROW_STRIDE; row < to; row += ROW_STRIDE) {
    until = Math.max(until, endOf(rows, row));
    whole[layout.start] = Math.min(whole[layout.start], rows[row + layout.start]);
    whole[layout.end] = Math.max(whole[layout.end], rows[row + layout.end]);
    for (let i = 0; i < layout.sums.length; i++) {
      whole[layout.sums[i]] += rows[row + layout.sums[i]];
    }
  }
  whole[2] = until - whole[1];
  if (rows[from] === CLEARED) {
    whole[0] = FAULT;
    whole[ROW_FIELDS + 3] = 1;
    whole[ROW_FIELDS + 4] = 0;
  }
  return whole;
}

const [PLUS, AT, SPACE, TILDE] = [43, 64, 32, 126];
const numbers = new Float64Array(5);

/**
 * Puts what {@link readRuns} reads, of rows of which {@link wholeOf} was asked last. Times are rounded to nanoseconds since
 * `origin`; `least` is the shortest duration.
 */
export function putRuns(
  text: TextBytes,
  rows: Float64Array,
  from: number,
  to: number,
  origin: number,
  least: number,
): void {
  const { start, end } = LAYOUTS[rows[from]] as Layout;
  const lowest = whole[start];
  const first = Math.round((rows[from + 1] - origin) * 1e6);
  for (let row = from; row < to; row += ROW_STRIDE) {
    const began = Math.round((rows[row + 1] - origin) * 1e6);
    numbers[0] = (rows[row + start] - lowest) / PAGE_SIZE;
    numbers[1] = (rows[row + end] - rows[row + start]) / PAGE_SIZE;
    numbers[2] = began - first;
    numbers[3] = Math.max(least, Math.round((endOf(rows, row) - origin) * 1e6) - began);
    if (row > from) {
      text.byte(SPACE);
    }
    text.number(numbers, 0);
    text.byte(PLUS);
    text.number(numbers, 1);
    text.byte(AT);
    text.number(numbers, 2);
    text.byte(PLUS);
    text.number(numbers, 3);
    if (rows[row] === CLEARED && rows[row + CLEARED_TOLD] !== rows[row + 1]) {
      numbers[4] = Math.round((rows[row + CLEARED_TOLD] - origin) * 1e6) - began;
      text.byte(TILDE);
      text.number(numbers, 4);
    }
  }
}

/** One event of a slice: its pages, and nanoseconds. */
export interface EventRun {
  /** Pages behind the slice's `start`. */
  readonly page: number;
  readonly pages: number;
  readonly after: number;
  readonly duration: number;
  /** After how long notifiers were told. */
  readonly told: number;
}

/** The events of an argument `runs`; undefined when it is of another making. */
export function readRuns(runs: unknown): readonly EventRun[] | undefined {
  if (typeof runs !== "string") {
    return undefined;
  }
  const found: EventRun[] = [];
  for (const text of runs.split(" ")) {
    const [match, page, pages, after, duration, told] = /^(\d+)\+(\d+)@(\d+)\+(\d+)(?:~(\d+))?$/.exec(text) ?? [];
    if (match === undefined) {
      return undefined;
    }
    found.push({ page: +page, pages: +pages, after: +after, duration: +duration, told: +(told ?? 0) });
  }
  return found;
}
