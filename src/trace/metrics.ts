/** Trace events as OpenTelemetry metrics: the application's meter is passed in, nothing is imported here. */
import { listenToTrace, type TraceEvent } from "../base/index.ts";

type Attributes = Record<string, string>;

interface CounterLike {
  add(value: number, attributes?: Attributes): void;
}

interface RecorderLike {
  record(value: number, attributes?: Attributes): void;
}

interface InstrumentOptions {
  readonly description?: string;
  readonly unit?: string;
}

/** As much of OpenTelemetry's `Meter` as is used. */
export interface MeterLike {
  createCounter(name: string, options?: InstrumentOptions): CounterLike;
  createHistogram(name: string, options?: InstrumentOptions): RecorderLike;
  createGauge(name: string, options?: InstrumentOptions): RecorderLike;
}

/** Sends metrics to a meter until the returned function is called. Names are in docs/tracing.md. */
export function sendMetrics(meter: MeterLike): () => void {
  const counter = (name: string, unit: string, description: string) =>
    meter.createCounter(`pagemirror.${name}`, { unit, description });
  const moved = counter("bytes.moved", "By", "Bytes that went over the bus, by direction");
  const faults = counter("faults", "{fault}", "Faults, by who raised them");
  const migrated = counter("pages.migrated", "{page}", "Pages that moved, by cause");
  const evicted = counter("pages.evicted", "{page}", "Pages of device memory that were given up for others");
  const invalidations = counter("invalidations", "{invalidation}", "Invalidations, by event");
  const poisoned = counter("pages.poisoned", "{page}", "Pages whose only copy was lost");
  const restarts = counter("dispatch.restarts", "{restart}", "Tries of dispatches that were undone");
  const dispatches = meter.createHistogram("pagemirror.dispatch.duration", { unit: "ms", description: "Dispatches" });
  const waits = meter.createHistogram("pagemirror.lock.wait", { unit: "ms", description: "Waits for locks, by class" });
  const pages = meter.createGauge("pagemirror.device.pages", {
    unit: "{page}",
    description: "Pages of device memory, by state",
  });
  const send = (event: TraceEvent): void => {
    const { duration } = event;
    switch (event.name) {
      case "gpu.upload":
      case "gpu.readback": {
        const { device, bytes } = (event as TraceEvent<"gpu.upload" | "gpu.readback">).fields;
        moved.add(bytes, { device, direction: event.name === "gpu.upload" ? "to device" : "to host" });
        break;
      }
      case "mm.fault":
        faults.add(1, { by: (event as TraceEvent<"mm.fault">).fields.device ? "hmm" : "cpu" });
        break;
      case "gpu.round": {
        const { device, faults: missed } = (event as TraceEvent<"gpu.round">).fields;
        faults.add(missed, { by: "device", device });
        break;
      }
      case "mm.migrate": {
        const { pages: count, to, cause } = (event as TraceEvent<"mm.migrate">).fields;
        migrated.add(count, { to, cause });
        break;
      }
      case "gpu.evict": {
        const { device, pages: count } = (event as TraceEvent<"gpu.evict">).fields;
        evicted.add(count, { device });
        break;
      }
      case "mmu.start":
        invalidations.add(1, { event: (event as TraceEvent<"mmu.start">).fields.event });
        break;
      case "mm.poison": {
        const { start, end } = (event as TraceEvent<"mm.poison">).fields;
        poisoned.add((end - start) / 4096);
        break;
      }
      case "gpu.dispatch": {
        const { device, mode, restarts: undone } = (event as TraceEvent<"gpu.dispatch">).fields;
        dispatches.record(duration, { device, mode });
        restarts.add(undone, { device });
        break;
      }
      case "sync.wait":
        waits.record(duration, { lock: (event as TraceEvent<"sync.wait">).fields.lock });
        break;
      case "gpu.memory": {
        const { device, resident, dirty, free } = (event as TraceEvent<"gpu.memory">).fields;
        pages.record(resident, { device, state: "resident" });
        pages.record(dirty, { device, state: "dirty" });
        pages.record(free, { device, state: "free" });
        break;
      }
      default:
        break;
    }
  };
  return listenToTrace(send);
}
