import fc from "fast-check";
import { expect, test } from "vitest";
import { TRACEPOINTS, type TraceFields, type TraceName, TraceSink } from "../base/index.ts";
import { EventStore, TraceLoader } from "../inspect/index.ts";
import { ChromeTraceWriter } from "./chrome.ts";
import { EventPacker, ROW_STRIDE } from "./event-chunk.ts";
import { readRuns } from "./event-runs.ts";

/** Puts every event into a store by itself, with the times that a file of that origin would have. */
class Direct extends TraceSink {
  readonly store = new EventStore();

  override take(name: TraceName, fields: TraceFields, at: number, duration: number): void {
    const start = Math.round((at - ORIGIN) * 1e6);
    const end = Math.round((at + duration - ORIGIN) * 1e6);
    const least = name === "gpu.upload" ? 1 : 0;
    const took = TRACEPOINTS[name].shape === "slice" ? Math.max(least, end - start) : 0;
    this.store.add(name, fields, start / 1000, took / 1000);
  }
}

const ORIGIN = 1000;

function file(send: (sink: TraceSink) => void): { readonly text: string; readonly lines: number } {
  let text = "";
  const writer = new ChromeTraceWriter((piece) => {
    text += new TextDecoder().decode(piece);
  }, ORIGIN);
  const packer = new EventPacker(new Float64Array(64 * ROW_STRIDE), {
    onFull: () => writer.addChunk(packer.takeChunk()),
  });
  send(packer);
  writer.addChunk(packer.takeChunk());
  writer.end();
  return { text, lines: (JSON.parse(text) as { ph: string }[]).filter(({ ph }) => ph === "X" || ph === "i").length };
}

function load(text: string): EventStore {
  const store = new EventStore();
  const loader = new TraceLoader(store);
  loader.push(text);
  loader.end();
  return store;
}

/** What happens to pages one after the other, with short breaks between them and long ones. */
const steps = fc.array(
  fc.record({
    what: fc.constantFrom("cleared", "cleared", "fault", "start", "end", "upload", "upload", "other"),
    device: fc.constantFrom("a", "a", "b"),
    space: fc.constantFrom(1, 1, 2),
    vpn: fc.nat(2 ** 34),
    pages: fc.integer({ min: 1, max: 2000 }),
    pause: fc.constantFrom(0, 0, 1, 700, 15_000, 25_000),
    told: fc.constantFrom(0, 0, 0, 130),
    took: fc.constantFrom(0, 1, 410, 999_999),
  }),
  { minLength: 1, maxLength: 120 },
);
type Steps = typeof steps extends fc.Arbitrary<infer T> ? T : never;

function send(sink: TraceSink, all: Steps): void {
  let ns = 0;
  const at = (time: number) => ORIGIN + time / 1e6;
  for (const { what, device, space, vpn, pages, pause, told, took } of all) {
    const began = ns + pause;
    ns = began + told + took;
    const range = [space, vpn, vpn + pages] as const;
    const lasted = at(ns) - at(began);
    if (what === "cleared") {
      sink.cleared(...range, at(began), at(began + told), at(ns));
    } else if (what === "fault") {
      sink.fault(...range, told > 0, space > 1, at(began), lasted);
    } else if (what === "start") {
      sink.start(...range, "unmap", told > 0, at(began), lasted);
    } else if (what === "end") {
      sink.end(...range, "unmap", at(ns));
    } else if (what === "upload") {
      sink.upload(device, ...range, at(began), lasted);
    } else {
      sink.take("gpu.fence", { device, why: "idle" }, at(began), lasted);
    }
  }
}

test("a file whose events share slices is read as if each had one of its own", () => {
  fc.assert(
    fc.property(steps, (all) => {
      const direct = new Direct();
      send(direct, all);
      expect(load(file((sink) => send(sink, all)).text).encode(0, 0)).toEqual(direct.store.encode(0, 0));
    }),
  );
});

test("a thousand announced faults at once are some slices, of faults and of invalidations", () => {
  const loop = (between: number) => (sink: TraceSink) => {
    for (let i = 0; i < 1000; i++) {
      const at = ORIGIN + i * between;
      sink.cleared(1, 7 * i, 7 * i + 1, at, at, at + 0.001);
    }
  };
  const close = file(loop(0.002));
  expect(close.lines).toBeLessThan(50);
  expect(load(close.text).count).toBe(3000);
  expect(file(loop(0.1)).lines).toBe(3000);
});

test("an argument of that name that somebody else made is left alone", () => {
  for (const other of [undefined, 7, "", "12", "1+1@0+0 ", "1+1@0+0 x"]) {
    expect(readRuns(other)).toBeUndefined();
  }
  expect(readRuns("3+1@0+5 0+2@7+0~4")).toEqual([
    { page: 3, pages: 1, after: 0, duration: 5, told: 0 },
    { page: 0, pages: 2, after: 7, duration: 0, told: 4 },
  ]);
});
