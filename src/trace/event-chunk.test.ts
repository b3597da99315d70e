import fc from "fast-check";
import { expect, test } from "vitest";
import { TRACE_NAMES, TRACEPOINTS, type TraceEvent, type TraceUnit } from "../base/index.ts";
import { type EventChunk, EventPacker, ROW_FIELDS, ROW_STRIDE } from "./event-chunk.ts";

/** What a reader of chunks makes of the rows. `texts` is what came before. */
function unpack({ rows, texts: fresh }: EventChunk, texts: string[]): unknown[] {
  texts.push(...fresh);
  const events: unknown[] = [];
  for (let row = 0; row < rows.length; row += ROW_STRIDE) {
    const name = TRACE_NAMES[rows[row]];
    const fields = Object.entries(TRACEPOINTS[name].fields).map(([key, unit], i) => {
      const value = rows[row + ROW_FIELDS + i];
      return [key, unit === "text" ? texts[value] : unit === "flag" ? value === 1 : value];
    });
    events.push({ name, fields: Object.fromEntries(fields), at: rows[row + 1], duration: rows[row + 2] });
  }
  return events;
}

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

test("events are the same after they were packed, in chunks of any size", () => {
  fc.assert(
    fc.property(fc.array(anEvent), fc.integer({ min: 1, max: 5 }), (events, capacity) => {
      const packer = new EventPacker(capacity);
      const texts: string[] = [];
      const seen: unknown[] = [];
      const send = () => seen.push(...unpack(packer.take(), texts));
      for (const event of events) {
        if (packer.add(event)) {
          send();
        }
      }
      if (!packer.empty) {
        send();
      }
      expect(seen).toEqual(events);
    }),
  );
});
