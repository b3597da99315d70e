/** Every tracepoint, sent by what it is about, with the fields that its table promises. */
import { expect, test } from "vitest";
import {
  listenToTrace,
  TRACE_NAMES,
  TRACEPOINTS,
  type TraceEvent,
  type TraceName,
  traceOn,
} from "../src/base/index.ts";
import { traceSpace } from "../src/mm/index.ts";
import { increment, openMachine } from "../src/testing/machine.ts";

const ADD = /* wgsl */ `
@group(0) @binding(0) var<storage, read_write> data: array<u32>;
@compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3u) {
  if (id.x < arrayLength(&data)) { data[id.x] += 1u; }
}`;
const READ = /* wgsl */ `
@group(0) @binding(0) var<storage, read> data: array<u32>;
@group(0) @binding(1) var<storage, read_write> sum: array<u32>;
@compute @workgroup_size(1) fn main() { sum[0] = data[0]; }`;
const FOLLOW = /* wgsl */ `
struct Params { data: u32, words: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3u) {
  if (id.x < params.words) { pm_store_u32(params.data + id.x, pm_load_u32(params.data + id.x) + 1u); }
}`;

const JS_TYPE = {
  address: "number",
  bytes: "number",
  pages: "number",
  count: "number",
  space: "number",
  text: "string",
  flag: "boolean",
} as const;

/** Needs more staging than there is, which only a transfer of many MiB does. */
const SELDOM: readonly TraceName[] = ["gpu.throttle"];

test("each tracepoint is sent, with the fields and units of its table", async () => {
  const events: TraceEvent[] = [];
  const stop = listenToTrace((event) => events.push(event));
  try {
    {
      await using m = await openMachine({ deviceMemory: 1 << 19 });
      const early = await m.mm.mmap({ length: 4096, name: "early" });
      traceSpace(m.mm);
      await Promise.all([early.munmap(), m.mm.mmap({ length: 4096 }), m.mm.mmap({ length: 4096 })]);
      const add = await m.device.kernel(ADD);
      const read = await m.device.kernel(READ);
      const [a, b, sum] = [
        await m.mm.mmap({ length: 1 << 18, name: "a" }),
        await m.mm.mmap({ length: 1 << 18, name: "b" }),
        await m.mm.mmap({ length: 4096, name: "sum" }),
      ];
      await a.write(0, new Uint8Array(1 << 18).fill(1));
      await read.dispatch({ bind: { data: a, sum }, workgroups: 1 });
      await increment(add, a);
      await increment(add, b);
      await a.read();
    }
    {
      await using m = await openMachine({ deviceMemory: 1 << 20 });
      const data = await m.mm.mmap({ length: 1 << 21, name: "data" });
      await data.write(0, new Uint8Array(1 << 21).fill(1));
      const follow = await m.device.kernel(FOLLOW);
      const words = data.length / 4;
      const params = { data: data.svmAddress, words };
      await follow.dispatch({ mm: m.mm, params, workgroups: words / 64 });
      m.device.gpu.destroy();
      m.device.gpu.lost.mark("a test took it away");
    }
  } finally {
    stop();
  }
  expect(traceOn).toBe(false);
  const sent = new Set(events.map(({ name }) => name));
  expect(TRACE_NAMES.filter((name) => !sent.has(name) && !SELDOM.includes(name))).toEqual([]);
  for (const { name, fields, at, duration } of events) {
    const types = Object.fromEntries(Object.entries(fields).map(([field, value]) => [field, typeof value]));
    const promised = Object.entries(TRACEPOINTS[name].fields).map(([field, unit]) => [field, JS_TYPE[unit]]);
    expect({ name, types }).toEqual({ name, types: Object.fromEntries(promised) });
    expect(Number.isFinite(at) && duration >= 0).toBe(true);
  }
  const bytes = (name: TraceName) =>
    events
      .filter((event) => event.name === name)
      .reduce((all, { fields }) => all + ("bytes" in fields ? fields.bytes : 0), 0);
  const memory = events.filter((event): event is TraceEvent<"gpu.memory"> => event.name === "gpu.memory");
  const most = new Map(
    memory.map(({ fields }, i) => [
      `${fields.device} ${fields.toDevice < (memory[i - 1]?.fields.toDevice ?? 0)}`,
      fields.toDevice,
    ]),
  );
  expect(bytes("gpu.upload")).toBeGreaterThanOrEqual(Math.max(...most.values()));
  expect(
    events.some(({ name, fields }) => name === "mm.migrate" && "cause" in fields && fields.cause === "evict"),
  ).toBe(true);
});
