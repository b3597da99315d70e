/** Numbers and events in words. */
import { formatAddr, PAGE_SIZE, TRACE_NAMES } from "../../src/base/index.ts";
import { type EventStore, FIRST_FLAG } from "../../src/inspect/index.ts";

export function bytesText(bytes: number): string {
  const units = ["B", "KiB", "MiB", "GiB"];
  let [value, unit] = [bytes, 0];
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit++;
  }
  return `${unit === 0 ? value : value.toFixed(1)} ${units[unit]}`;
}

/** Microseconds. */
export function timeText(us: number): string {
  const size = Math.abs(us);
  return size >= 1e6
    ? `${(us / 1e6).toFixed(3)} s`
    : size >= 1000
      ? `${(us / 1000).toFixed(2)} ms`
      : `${us.toFixed(size < 10 ? 1 : 0)} µs`;
}

/** A moment on an axis whose marks are `step` apart, all in one unit: that of the latest. */
export function markText(us: number, step: number, latest: number): string {
  const [unit, size] = latest >= 1e6 ? ["s", 1e6] : latest >= 1000 ? ["ms", 1000] : ["µs", 1];
  return `${(us / size).toFixed(Math.max(0, -Math.floor(Math.log10(step / size) + 1e-9)))} ${unit}`;
}

export function countText(n: number): string {
  return n.toLocaleString("en-US");
}

/** One event in a line, without its time. */
export function eventText(store: EventStore, row: number): string {
  const { columns: c } = store;
  const name = TRACE_NAMES[c.kind[row]];
  const words = [store.text(c.text[row]), store.text(c.text2[row])].filter((word) => word !== "");
  const pages = c.page[row] >= 0 ? `${countText(c.pages[row])} ${c.pages[row] === 1 ? "page" : "pages"}` : "";
  const write = (name === "mm.fault" || name === "gpu.fault") && c.flags[row] & FIRST_FLAG ? "to write" : "";
  const took = c.duration[row] > 0 ? `in ${timeText(c.duration[row])}` : "";
  return [name, ...words, write, pages, took].filter((word) => word !== "").join(" · ");
}

export function pageText(page: number): string {
  return formatAddr(page * PAGE_SIZE);
}
