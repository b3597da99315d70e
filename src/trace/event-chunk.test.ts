import fc from "fast-check";
import { expect, test } from "vitest";
import {
  TRACE_NAMES,
  TRACEPOINTS,
  type TraceEvent,
  type TraceFields,
  type TraceName,
  TraceSink,
  type TraceUnit,
  vpnOf,
} from "../base/index.ts";
import { EventPacker, EventUnpacker, ROW_STRIDE } from "./event-chunk.ts";

function anyOf(unit: TraceUnit): fc.Arbitrary<string | number | boolean> {
  switch (unit) {
    case "text":
      return fc.string();
    case "flag":
      return fc.boolean();
    default:
      return fc.nat(Number.MAX_SAFE_INTEGER);
  }
}

const anEvent = fc.constantFrom(...TRACE_NAMES).chain((name) =>
  fc.record({
    name: fc.constant(name),
    fields: fc.record(
      Object.fromEntries(Object.entries(TRACEPOINTS[name].fields).map(([key, unit]) => [key, anyOf(unit)])),
      { noNullPrototype: true },
    ),
    at: fc.double({ min: 0, max: 1e9, noNaN: true }),
    duration: fc.double({ min: 0, max: 1e9, noNaN: true }),
  }),
) as unknown as fc.Arbitrary<TraceEvent>;

const pageSinks: Partial<Record<TraceName, (sink: TraceSink, event: TraceEvent) => void>> = {
  "mm.fault": (sink, { fields, at, duration }) => {
    const { space, start, end, write, device } = fields as TraceFields<"mm.fault">;
    sink.fault(space, vpnOf(start), vpnOf(end), write, device, at, duration);
  },
  "mmu.start": (sink, { fields, at, duration }) => {
    const { space, start, end, event, blockable } = fields as TraceFields<"mmu.start">;
    sink.start(space, vpnOf(start), vpnOf(end), event, blockable, at, duration);
  },
  "mmu.end": (sink, { fields, at }) => {
    const { space, start, end, event } = fields as TraceFields<"mmu.end">;
    sink.end(space, vpnOf(start), vpnOf(end), event, at);
  },
  "gpu.upload": (sink, { fields, at, duration }) => {
    const { device, space, start, end } = fields as TraceFields<"gpu.upload">;
    sink.upload(device, space, vpnOf(start), vpnOf(end), at, duration);
  },
};

class Listener extends TraceSink {
  readonly events: TraceEvent[] = [];

  override take(name: TraceName, fields: TraceFields, at: number, duration: number): void {
    this.events.push({ name, fields, at, duration } as unknown as TraceEvent);
  }
}

/** Packs what `send` sends, in chunks of `capacity` rows. */
function packed(
  capacity: number,
  same: boolean,
  send: (sink: TraceSink) => void,
  onChunk: () => void = () => undefined,
): TraceEvent[] {
  const rows = () => new Float64Array(capacity * ROW_STRIDE);
  const unpacker = new EventUnpacker();
  const seen: TraceEvent[] = [];
  const take = () => {
    onChunk();
    seen.push(...unpacker.unpack(same ? packer.takeChunk() : packer.takeChunk(rows())));
  };
  const packer = new EventPacker(rows(), { onFull: take });
  send(packer);
  if (!packer.empty) {
    take();
  }
  return seen;
}

const aCapacity = fc.integer({ min: 1, max: 5 });

test("events are the same after they were packed, in chunks of any size, in new rows or the same", () => {
  fc.assert(
    fc.property(fc.array(anEvent), aCapacity, fc.boolean(), (events, capacity, same) => {
      const seen = packed(capacity, same, (sink) => {
        for (const { name, fields, at, duration } of events) {
          sink.take(name, fields, at, duration);
        }
      });
      expect(seen).toEqual(events);
    }),
  );
});

test("a write fault that was announced is one row, and its three events again when it is unpacked", () => {
  const send = (sink: TraceSink) => {
    sink.fault(1, 7, 8, true, false, 0.1, 0.2);
    sink.cleared(1, 5, 9, 1.1, 1.3, 1.7);
    sink.cleared(2, 4, 5, 2.1, 2.3, 2.9);
  };
  const listener = new Listener();
  send(listener);
  expect(listener.events.slice(1, 4)).toEqual([
    {
      name: "mmu.start",
      fields: { space: 1, start: 20_480, end: 36_864, event: "clear", blockable: true },
      at: 1.3,
      duration: 1.7 - 1.3,
    },
    {
      name: "mm.fault",
      fields: { space: 1, start: 20_480, end: 36_864, write: true, device: false },
      at: 1.1,
      duration: 1.7 - 1.1,
    },
    { name: "mmu.end", fields: { space: 1, start: 20_480, end: 36_864, event: "clear" }, at: 1.7, duration: 0 },
  ]);
  let chunks = 0;
  expect(packed(3, true, send, () => chunks++)).toEqual(listener.events);
  expect(chunks).toBe(1);
});

test("events that come with every page are packed as a listener gets them", () => {
  fc.assert(
    fc.property(fc.array(anEvent), aCapacity, (events, capacity) => {
      const send = (sink: TraceSink) => {
        for (const event of events) {
          pageSinks[event.name]?.(sink, event);
        }
      };
      const listener = new Listener();
      send(listener);
      expect(packed(capacity, true, send)).toEqual(listener.events);
    }),
  );
});
