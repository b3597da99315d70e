import { readFileSync } from "node:fs";
import { afterEach, describe, expect, it } from "vitest";
import {
  listenToTrace,
  TRACE_NAMES,
  TRACEPOINTS,
  type TraceEvent,
  trace,
  traceClearStart,
  traceEnd,
  traceFault,
  traceIdOf,
  traceLatest,
  traceNow,
  traceOn,
  watchTrace,
} from "./index.ts";

describe("tracing", () => {
  const stops: (() => void)[] = [];
  afterEach(() => {
    for (const stop of stops.splice(0)) {
      stop();
    }
  });
  const listen = (): TraceEvent[] => {
    const events: TraceEvent[] = [];
    stops.push(listenToTrace((event) => events.push(event)));
    return events;
  };

  it("is off until somebody listens, and off again after the last has stopped", () => {
    expect([traceOn, traceNow()]).toEqual([false, 0]);
    const first = listenToTrace(() => undefined);
    const second = listenToTrace(() => undefined);
    first();
    first();
    expect(traceOn).toBe(true);
    expect(traceNow()).toBeGreaterThan(0);
    second();
    expect(traceOn).toBe(false);
  });

  it("tells who watches when the first listens and when the last has stopped", () => {
    const seen: boolean[] = [];
    const unwatch = watchTrace((on) => seen.push(on));
    const [first, second] = [listenToTrace(() => undefined), listenToTrace(() => undefined)];
    first();
    expect(seen).toEqual([true]);
    second();
    second();
    expect(seen).toEqual([true, false]);
    unwatch();
    listenToTrace(() => undefined)();
    expect(seen).toEqual([true, false]);
  });

  it("sends each event to every listener, in the order of the calls", () => {
    const [a, b] = [listen(), listen()];
    trace("sync.wait", { lock: "mmap", mode: "read" });
    trace("gpu.fence", { device: "gpu", why: "idle" });
    expect(a.map(({ name }) => name)).toEqual(["sync.wait", "gpu.fence"]);
    expect(b).toEqual(a);
  });

  it("measures slices from their start, and takes one with an unknown start for an instant", () => {
    const events = listen();
    const since = performance.now() - 5;
    trace("sync.wait", { lock: "mmap", mode: "read" }, since);
    trace("sync.wait", { lock: "mmap", mode: "read" }, 0);
    expect(events[0].at).toBe(since);
    expect(events[0].duration).toBeGreaterThanOrEqual(5);
    expect(events[1].duration).toBe(0);
  });

  const fault = (vpn: number, now?: number) => traceFault(1, vpn, vpn + 1, true, false, 1, now);
  const kinds = (events: readonly TraceEvent[]) =>
    events.map(({ name, fields }) => [name, "start" in fields && fields.start]);

  it("sends an announced write fault in order, at the end of the invalidation, with one end for all three", () => {
    const events = listen();
    const since = performance.now();
    traceClearStart(1, 5, 6, since);
    fault(5, traceLatest());
    traceEnd(1, 5, 6, "clear", traceLatest());
    const all = ["mmu.start", "mm.fault", "mmu.end"];
    expect(kinds(events)).toEqual(all.map((name) => [name, 5 * 4096]));
    expect(new Set(events.map(({ at, duration }) => at + duration)).size).toBe(1);
    expect([events[0].at, events[1].at]).toEqual([since, 1]);
  });

  it("keeps the order when something else comes in between, or the end is another one", () => {
    const events = listen();
    traceClearStart(1, 5, 6, 0);
    trace("gpu.fence", { device: "gpu", why: "idle" });
    traceEnd(1, 5, 6, "clear", traceLatest());
    expect(kinds(events.splice(0)).map(([name]) => name)).toEqual(["mmu.start", "gpu.fence", "mmu.end"]);
    traceClearStart(1, 5, 6, 0);
    traceClearStart(2, 5, 6, 0);
    fault(5, traceLatest());
    traceEnd(2, 5, 6, "clear", traceLatest());
    traceEnd(1, 5, 6, "clear", traceLatest());
    expect(kinds(events.splice(0)).map(([name]) => name)).toEqual([
      "mmu.start",
      "mmu.start",
      "mm.fault",
      "mmu.end",
      "mmu.end",
    ]);
    traceClearStart(1, 5, 6, 0);
    fault(5);
    traceEnd(1, 5, 6, "clear", traceLatest());
    traceClearStart(1, 5, 6, 0);
    traceEnd(1, 5, 6, "clear", traceLatest());
    expect(kinds(events).map(([name]) => name)).toEqual(["mmu.start", "mm.fault", "mmu.end", "mmu.start", "mmu.end"]);
  });

  it("loses nothing when the listener stops in the middle of an invalidation", () => {
    const events: TraceEvent[] = [];
    const stop = listenToTrace((event) => events.push(event));
    traceClearStart(1, 5, 6, 0);
    stop();
    expect(kinds(events)).toEqual([["mmu.start", 5 * 4096]]);
  });

  it("numbers a space once", () => {
    const [a, b] = [{ traceId: 0 }, { traceId: 0 }];
    expect(traceIdOf(a)).toBe(traceIdOf(a));
    expect(traceIdOf(a)).not.toBe(traceIdOf(b));
  });
});

describe("docs/tracing.md", () => {
  const rows = readFileSync(new URL("../../docs/tracing.md", import.meta.url), "utf8")
    .split("\n")
    .filter((line) => /^\| `\w+\.\w+` \|/.test(line));

  it("lists the tracepoints of the code, with their shapes, meanings, fields and units", () => {
    const expected = TRACE_NAMES.map((name) => {
      const { doc, shape, fields } = TRACEPOINTS[name];
      const list = Object.entries(fields).map(([field, unit]) => `\`${field}\` ${unit}`);
      return `| \`${name}\` | ${shape} | ${doc} | ${list.join(", ")} |`;
    });
    expect(rows).toEqual(expected);
  });
});
