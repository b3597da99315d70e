import { expect, test } from "vitest";
import { PAGE_SIZE } from "../../../base/index.ts";
import { validateMm } from "../../../mm/index.ts";
import { wordsOf } from "../../../testing/machine.ts";
import { SVM_PAGE, svmMachine } from "../../../testing/svm-kernels.ts";

/** `out[i] = data[offsets[i]]`: the offsets are bound, the data is reached by address. */
const LOOKUP = /* wgsl */ `
struct Params { data: u32, out: u32, count: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read> offsets: array<u32>;
@compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3u) {
  if (id.x < params.count) { pm_store_u32(params.out + id.x, pm_load_u32(params.data + offsets[id.x])); }
}`;

const COUNT = 512;
const PAGES = 64;

async function setUp(frames?: number) {
  const m = await svmMachine(frames);
  const data = await m.mm.mmap({ length: PAGES * SVM_PAGE, name: "data" });
  const out = await m.mm.mmap({ length: COUNT * 4, name: "out" });
  const offsets = await m.mm.mmap({ length: COUNT * 4, name: "offsets" });
  const place = (i: number) => (i * 2741) % (data.length / 4);
  {
    using lease = await data.lease("rw");
    const words = lease.u32;
    words.forEach((_, i) => {
      words[i] = i ^ 0x5555;
    });
    using list = await offsets.lease("rw");
    const into = list.u32;
    for (let i = 0; i < COUNT; i++) {
      into[i] = place(i);
    }
  }
  const kernel = await m.device.kernel(LOOKUP);
  const params = { data: data.svmAddress, out: out.svmAddress, count: COUNT };
  const run = () => kernel.dispatch({ mm: m.mm, bind: { offsets }, params, workgroups: COUNT / 64 });
  return { m, data, out, offsets, kernel, params, place, run, [Symbol.asyncDispose]: () => m[Symbol.asyncDispose]() };
}

test("a kernel reads a bound variable and follows its numbers", async () => {
  await using s = await setUp();
  await s.run();
  expect([...(await wordsOf(s.out)).subarray(0, COUNT)]).toEqual(
    Array.from({ length: COUNT }, (_, i) => s.place(i) ^ 0x5555),
  );
  validateMm(s.m.mm);
});

test("what is bound is brought up to date for each dispatch", async () => {
  await using s = await setUp();
  await s.run();
  await s.offsets.write(8, new Uint32Array([77]));
  await s.run();
  expect((await wordsOf(s.out))[2]).toBe(77 ^ 0x5555);
});

test("bound ranges and the pool share the cap, and what is bound stays while pages come and go", async () => {
  await using s = await setUp(9);
  const stats = await s.run();
  expect(stats.evictions).toBeGreaterThan(0);
  expect([...(await wordsOf(s.out)).subarray(0, COUNT)]).toEqual(
    Array.from({ length: COUNT }, (_, i) => s.place(i) ^ 0x5555),
  );
  const { used, limit } = s.m.device.stats().deviceMemory;
  expect(used).toBeLessThanOrEqual(limit);
});

test("a variable without memory, memory of another space, and stores to what is bound are refused", async () => {
  await using s = await setUp();
  const { kernel, params, m } = s;
  await expect(kernel.dispatch({ mm: m.mm, params, workgroups: 1 })).rejects.toMatchObject({ code: "EINVAL" });
  const other = m.space();
  const foreign = await other.mmap({ length: PAGE_SIZE });
  await expect(kernel.dispatch({ mm: m.mm, bind: { offsets: foreign }, params, workgroups: 1 })).rejects.toMatchObject({
    code: "EINVAL",
  });
  await expect(kernel.dispatch({ mm: m.mm, bind: { offsets: s.out }, params, workgroups: 1 })).rejects.toThrow(
    /EINVAL.*offsets \(out\)/,
  );
  await s.run();
  expect((await wordsOf(s.out))[1]).toBe(s.place(1) ^ 0x5555);
});

test("a lease on what is bound holds the dispatch up until it ends", async () => {
  await using s = await setUp();
  const lease = await s.offsets.lease("rw");
  const { kernel, params, m, offsets } = s;
  await expect(kernel.dispatch({ mm: m.mm, bind: { offsets }, params, workgroups: 1, timeoutMs: 20 })).rejects.toThrow(
    /EBUSY.*lease on offsets/,
  );
  const running = s.run();
  lease.u32[0] = 5;
  lease[Symbol.dispose]();
  await running;
  expect((await wordsOf(s.out))[0]).toBe(5 ^ 0x5555);
});
