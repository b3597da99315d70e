import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type { TraceEvent, TraceFields, TraceName } from "../base/index.ts";
import { ChromeTraceWriter } from "./chrome.ts";

interface ChromeEvent {
  readonly ph: string;
  readonly name: string;
  readonly pid: number;
  readonly tid: number;
  readonly ts?: number;
  readonly dur?: number;
  readonly id?: number;
  readonly s?: string;
  readonly cat?: string;
  readonly bp?: string;
  readonly args?: Readonly<Record<string, unknown>>;
}

function event<N extends TraceName>(name: N, at: number, duration: number, fields: TraceFields<N>): TraceEvent {
  return { name, fields, at, duration } as unknown as TraceEvent;
}

function written(events: readonly TraceEvent[]): ChromeEvent[] {
  let text = "";
  const decoder = new TextDecoder();
  const writer = new ChromeTraceWriter((piece) => {
    text += decoder.decode(piece, { stream: true });
  }, 100);
  for (const one of events) {
    writer.add(one);
  }
  writer.end();
  writer.end();
  return JSON.parse(text) as ChromeEvent[];
}

const upload = (at: number, start: number, end: number) =>
  event("gpu.upload", at, 1, { device: "gpu", space: 1, start, end, pages: (end - start) / 4096, bytes: end - start });
const fault = (at: number, start: number, end: number) =>
  event("gpu.fault", at, 0, { device: "gpu", space: 1, start, end, write: false, pages: (end - start) / 4096 });

/** What the description of the format asks of each phase that is used. */
function check(e: ChromeEvent): void {
  expect(typeof e.name).toBe("string");
  expect(Number.isInteger(e.pid) && Number.isInteger(e.tid)).toBe(true);
  switch (e.ph) {
    case "M":
      expect(["process_name", "thread_name", "thread_sort_index"]).toContain(e.name);
      expect(typeof (e.name === "thread_sort_index" ? e.args?.sort_index : e.args?.name)).toBe(
        e.name === "thread_sort_index" ? "number" : "string",
      );
      return;
    case "X":
      expect(e.dur).toBeGreaterThanOrEqual(0);
      break;
    case "i":
      expect(["g", "p", "t"]).toContain(e.s);
      break;
    case "C":
      expect(Object.values(e.args ?? {}).every((value) => typeof value === "number")).toBe(true);
      break;
    case "s":
    case "f":
      expect(Number.isInteger(e.id)).toBe(true);
      expect(typeof e.cat).toBe("string");
      break;
    default:
      expect.fail(`phase ${e.ph} is not of the format`);
  }
  expect(Number.isFinite(e.ts)).toBe(true);
}

describe("a trace file", () => {
  it("is one JSON array of well-formed events, in microseconds from its origin", () => {
    const events = written([
      event("mm.map", 100, 0, { space: 1, start: 4096, end: 8192, name: 'a "b"', write: true }),
      event("gpu.dispatch", 101, 2.5, {
        device: "gpu",
        kernel: "k",
        mode: "svm",
        bytes: 1,
        pages: 2,
        restarts: 0,
        rounds: 3,
      }),
      event("gpu.memory", 103, 0, { device: "gpu", resident: 1, dirty: 2, free: 3, toDevice: 4, toHost: 5 }),
      fault(104, 4096, 8192),
      upload(105, 4096, 8192),
    ]);
    for (const e of events) {
      check(e);
    }
    const dispatch = events.find(({ name }) => name === "gpu.dispatch");
    expect([dispatch?.ts, dispatch?.dur]).toEqual([1000, 2500]);
    expect(events.find(({ name }) => name === "mm.map")?.args?.name).toBe('a "b"');
    expect(events.find(({ name }) => name === "pages gpu")?.args).toEqual({ resident: 1, dirty: 2, free: 3 });
    expect(events.find(({ name }) => name === "bytes gpu")?.args).toEqual({ toDevice: 4, toHost: 5 });
  });

  it("has an arrow from a device fault to the upload of its pages, to that one only, and none that leads nowhere", () => {
    const events = written([
      fault(100, 4096, 8192),
      fault(101, 16_384, 20_480),
      upload(102, 12_288, 20_480),
      upload(103, 0, 4096),
    ]);
    const starts = events.filter(({ ph }) => ph === "s");
    const ends = events.filter(({ ph }) => ph === "f");
    expect(starts.map(({ id, ts }) => [id, ts])).toEqual([[1, 1000]]);
    expect(ends.map(({ id, ts }) => [id, ts])).toEqual([[1, 2000]]);
    expect(ends[0].bp).toBe("e");
    expect(
      starts.every(({ tid, ts }) => events.some((e) => e.name === "gpu.fault" && e.tid === tid && e.ts === ts)),
    ).toBe(true);
  });

  it("has one slice for uploads that follow each other at once, and every arrow to its own of them", () => {
    const events = written([
      fault(100, 4096, 8192),
      fault(101, 16_384, 20_480),
      upload(102, 16_384, 20_480),
      upload(103, 40_960, 49_152),
      upload(104, 0, 8192),
      upload(106, 0, 4096),
    ]);
    const uploads = events.filter(({ name }) => name === "gpu.upload");
    expect(uploads.map(({ ts, dur, args }) => [ts, dur, args])).toEqual([
      [
        2000,
        3000,
        {
          device: "gpu",
          space: 1,
          start: 0,
          end: 49_152,
          pages: 5,
          bytes: 20_480,
          count: 3,
          runs: "4+1@0+1000000 10+2@1000000+1000000 0+2@2000000+1000000",
        },
      ],
      [6000, 1000, { device: "gpu", space: 1, start: 0, end: 4096, pages: 1, bytes: 4096 }],
    ]);
    const ends = events.filter(({ ph }) => ph === "f");
    expect(ends.map(({ id, ts, tid }) => [id, ts, tid])).toEqual([
      [1, 2000, uploads[0].tid],
      [2, 4000, uploads[0].tid],
    ]);
  });

  it("draws slices that overlap in time in rows of their own, so that none hides another", () => {
    const wait = (at: number, duration: number) => event("sync.wait", at, duration, { lock: "mmap", mode: "read" });
    const slices = written([wait(100, 10), wait(105, 10), wait(111, 2), wait(120, 1)]).filter(({ ph }) => ph === "X");
    const [first, second, third, fourth] = slices.map(({ tid }) => tid);
    expect(second).not.toBe(first);
    expect(third).toBe(first);
    expect(fourth).toBe(first);
  });

  it("draws nothing over what is in the same row, by no nanosecond: viewers drop such slices", () => {
    const slices = fc.array(
      fc.record({
        at: fc.double({ min: 100, max: 100.00002, noNaN: true }),
        duration: fc.double({ min: 0, max: 0.00001, noNaN: true }),
        what: fc.nat(2),
      }),
      { maxLength: 20 },
    );
    fc.assert(
      fc.property(slices, (parts) => {
        const sorted = [...parts].sort((a, b) => a.at + a.duration - b.at - b.duration);
        const rows = new Map<number, { readonly from: number; readonly to: number }[]>();
        const make = [
          (at: number, duration: number) => event("sync.wait", at, duration, { lock: "mmap", mode: "read" }),
          (at: number) => fault(at, 4096, 8192),
          (at: number, duration: number) => ({ ...upload(at, 4096, 8192), duration }),
        ];
        for (const { ph, tid, ts = 0, dur = 0 } of written(sorted.map((p) => make[p.what](p.at, p.duration)))) {
          if (ph === "X") {
            const from = Math.round(ts * 1000);
            rows.set(tid, [...(rows.get(tid) ?? []), { from, to: from + Math.round(dur * 1000) }]);
          }
        }
        for (const row of rows.values()) {
          row.sort((a, b) => a.from - b.from || a.to - b.to);
          expect(row.slice(1).every(({ from }, i) => row[i].to <= from)).toBe(true);
        }
      }),
    );
  });

  it("binds both ends of each arrow to a slice that lasts at that moment, on the same row", () => {
    const events = written([fault(100, 4096, 8192), { ...upload(100.5, 4096, 8192), duration: 0 }]);
    const arrows = events.filter(({ ph }) => ph === "s" || ph === "f");
    expect(arrows.map(({ ph }) => ph)).toEqual(["s", "f"]);
    for (const { tid, ts = 0 } of arrows) {
      const around = events.filter((e) => {
        const [from, to] = [e.ts ?? 0, (e.ts ?? 0) + (e.dur ?? 0)];
        return e.ph === "X" && e.tid === tid && from <= ts && ts < to;
      });
      expect(around).toHaveLength(1);
    }
  });

  it("has a lane for the faults of leases and one for those that devices cause, which are of no single device", () => {
    const events = written([
      event("mm.map", 100, 0, { space: 1, start: 4096, end: 8192, name: "a", write: true }),
      event("mm.fault", 101, 0.1, { space: 1, start: 4096, end: 8192, write: true, device: false }),
      event("mm.fault", 102, 0.1, { space: 1, start: 4096, end: 8192, write: false, device: true }),
    ]);
    const names = events.filter(({ name }) => name === "thread_name").map(({ args }) => args?.name);
    expect(names).toEqual(["mappings", "CPU faults", "faults for devices"]);
  });

  it("names each row before its first event, and puts those of devices first", () => {
    const events = written([
      event("sync.wait", 100, 10, { lock: "mmap", mode: "read" }),
      event("gpu.fence", 100, 10, { device: "gpu", why: "idle" }),
      upload(105, 0, 4096),
    ]);
    const order = new Map<number, number>();
    const names = new Map<number, string>();
    for (const { ph, name, tid, args } of events) {
      if (name === "thread_name") {
        names.set(tid, String(args?.name));
      } else if (name === "thread_sort_index") {
        order.set(tid, Number(args?.sort_index));
      } else if (ph !== "M") {
        expect(names.has(tid) && order.has(tid)).toBe(true);
      }
    }
    const sorted = [...order].sort(([, a], [, b]) => a - b).map(([tid]) => names.get(tid));
    expect(sorted).toEqual(["gpu transfers", "gpu waits", "lock waits"]);
  });
});
