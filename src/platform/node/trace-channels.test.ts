import { subscribe, unsubscribe } from "node:diagnostics_channel";
import { metrics } from "@opentelemetry/api";
import { describe, expect, it } from "vitest";
import { trace, traceOn } from "../../base/index.ts";
import { sendOpenTelemetry } from "./otel.ts";
import { publishTrace, traceChannelName } from "./trace-channels.ts";

describe("events on diagnostics_channel", () => {
  it("reach the subscribers of their tracepoint, and nobody after the end", () => {
    const seen: unknown[] = [];
    const listener = (message: unknown) => void seen.push(message);
    subscribe(traceChannelName("gpu.fence"), listener);
    const stop = publishTrace();
    trace("gpu.fence", { device: "gpu", why: "idle" });
    trace("sync.wait", { lock: "mmap", mode: "read" });
    stop();
    expect(traceOn).toBe(false);
    unsubscribe(traceChannelName("gpu.fence"), listener);
    expect(seen).toEqual([{ device: "gpu", why: "idle", at: expect.any(Number), duration: 0 }]);
  });
});

describe("events as OpenTelemetry metrics", () => {
  it("go to the meter provider of the application", async () => {
    const added: [string, number][] = [];
    const names: string[] = [];
    const noop = metrics.getMeter("none");
    const meter = new Proxy(noop, {
      get: (target, key) =>
        key === "createCounter"
          ? (name: string) => ({ add: (value: number) => void added.push([name, value]) })
          : Reflect.get(target, key),
    });
    metrics.setGlobalMeterProvider({
      getMeter: (name) => {
        names.push(name);
        return meter;
      },
    });
    const stop = await sendOpenTelemetry();
    trace("gpu.evict", { device: "gpu", space: 1, start: 0, end: 4096, pages: 1, bytes: 0 });
    stop?.();
    metrics.disable();
    expect(names).toEqual(["pagemirror"]);
    expect(added).toEqual([["pagemirror.pages.evicted", 1]]);
  });
});
