import { describe, expect, it } from "vitest";
import { trace } from "../base/index.ts";
import { type MeterLike, sendMetrics } from "./metrics.ts";

describe("metrics", () => {
  it("count bytes by direction, faults by who raised them, and stop when told to", () => {
    const seen: [string, number, Record<string, string> | undefined][] = [];
    const instrument = (name: string) => {
      const put = (value: number, attributes?: Record<string, string>) => void seen.push([name, value, attributes]);
      return { add: put, record: put };
    };
    const meter: MeterLike = { createCounter: instrument, createHistogram: instrument, createGauge: instrument };
    const stop = sendMetrics(meter);
    const range = { space: 1, start: 0, end: 8192 };
    trace("gpu.upload", { device: "gpu", ...range, pages: 2, bytes: 8192 });
    trace("mm.fault", { ...range, write: false, device: false });
    trace("gpu.memory", { device: "gpu", resident: 3, dirty: 2, free: 1, toDevice: 0, toHost: 0 });
    stop();
    trace("gpu.upload", { device: "gpu", ...range, pages: 2, bytes: 8192 });
    expect(seen).toEqual([
      ["pagemirror.bytes.moved", 8192, { device: "gpu", direction: "to device" }],
      ["pagemirror.faults", 1, { by: "cpu" }],
      ["pagemirror.device.pages", 3, { device: "gpu", state: "resident" }],
      ["pagemirror.device.pages", 2, { device: "gpu", state: "dirty" }],
      ["pagemirror.device.pages", 1, { device: "gpu", state: "free" }],
    ]);
  });
});
