import { expect, test } from "vitest";
import { MemoryObject, validateMm } from "../../mm/index.ts";
import { COPY, INCREMENT, increment, openMachine, wordsOf } from "../../testing/machine.ts";
import { turn } from "../../testing/spaces.ts";
import { SVM_GREEDY, SVM_PAGE, svmMachine } from "../../testing/svm-kernels.ts";

const LENGTH = 65536;

test("the budget evicts what was bound longest ago, and nothing is lost", async () => {
  await using m = await openMachine({ deviceMemory: 3 * LENGTH });
  const kernel = await m.device.kernel(INCREMENT);
  const maps = await Promise.all(Array.from({ length: 6 }, () => m.mm.mmap({ length: LENGTH })));
  for (let round = 0; round < 3; round++) {
    for (const data of maps) {
      await increment(kernel, data);
      expect(m.device.stats().deviceMemory.used).toBeLessThanOrEqual(3 * LENGTH);
    }
  }
  for (const data of maps) {
    expect((await wordsOf(data)).every((v) => v === 3)).toBe(true);
  }
  expect(m.device.stats().bytesEvicted).toBeGreaterThanOrEqual(5 * 3 * LENGTH - 3 * LENGTH);
  validateMm(m.mm);
});

test("what the dispatch itself binds is not evicted for its other ranges", async () => {
  await using m = await openMachine({ deviceMemory: 2 * LENGTH });
  const copy = await m.device.kernel(COPY);
  const maps = await Promise.all(Array.from({ length: 4 }, () => m.mm.mmap({ length: LENGTH })));
  await maps[0].write(0, new Uint32Array(LENGTH / 4).fill(3));
  for (let i = 0; i < 9; i++) {
    await copy.dispatch({ bind: { src: maps[i % 4], dst: maps[(i + 1) % 4] }, workgroups: 256 });
  }
  for (const data of maps) {
    expect((await wordsOf(data)).every((v) => v === 3)).toBe(true);
  }
});

test("ENOMEM names the variable whose memory does not fit", async () => {
  await using m = await openMachine({ deviceMemory: LENGTH });
  const data = await m.mm.mmap({ length: 2 * LENGTH });
  const kernel = await m.device.kernel(INCREMENT);
  await expect(kernel.dispatch({ bind: { data }, workgroups: 1 })).rejects.toThrow(/ENOMEM: data needs 131072 bytes/);
});

test("memory that grows under a small budget goes home instead of being copied into a larger buffer", async () => {
  await using m = await openMachine({ deviceMemory: 5 * 4096 });
  const kernel = await m.device.kernel(INCREMENT);
  const data = await m.mm.mmap({ length: 4 * 4096 });
  for (let pages = 1; pages <= 4; pages++) {
    await kernel.dispatch({ bind: { data: data.range(0, pages * 4096) }, workgroups: 64 });
    expect(m.device.stats().deviceMemory.used).toBeLessThanOrEqual(5 * 4096);
  }
  const words = await wordsOf(data);
  expect([0, 1, 2, 3].map((page) => words[page * 1024])).toEqual([4, 3, 2, 1]);
});

test("a range that ends in what another range of the dispatch begins in is placed anew when they grow together", async () => {
  await using m = await openMachine({ deviceMemory: 12 * 4096 });
  const data = await m.mm.mmap({ length: 8 * 4096 });
  await data.write(0, new Uint32Array(8 * 1024).fill(1));
  const out = await m.mm.mmap({ length: 4096 });
  const kernel = await m.device.kernel(/* wgsl */ `
    @group(0) @binding(0) var<storage, read> a: array<u32>;
    @group(0) @binding(1) var<storage, read> b: array<u32>;
    @group(0) @binding(2) var<storage, read_write> out: array<u32>;
    @compute @workgroup_size(1) fn main() { out[0] += a[0] + b[arrayLength(&b) - 1]; }`);
  const run = (a: number, b: number, pages: number) =>
    kernel.dispatch({
      bind: { a: data.range(a * 4096, 4096), b: data.range(b * 4096, pages * 4096), out },
      workgroups: 1,
    });
  await run(0, 1, 5);
  await run(0, 5, 3);
  await run(4, 0, 8);
  expect((await wordsOf(out))[0]).toBe(6);
});

test("memory that an exited space is just giving back is waited for", async () => {
  await using m = await openMachine({ deviceMemory: LENGTH });
  const kernel = await m.device.kernel(INCREMENT);
  const object = new MemoryObject(m.memory, { pages: LENGTH / 4096 });
  const data = await m.mm.mmap({ length: LENGTH });
  for (let turns = 0; turns < 4; turns++) {
    await increment(kernel, data);
    const mm = m.space();
    await increment(kernel, await mm.mmap({ object, length: LENGTH, shared: true }));
    await mm[Symbol.asyncDispose]();
    for (let i = 0; i < turns; i++) {
      await turn();
    }
    await increment(kernel, data);
  }
  expect((await wordsOf(data))[0]).toBe(8);
  expect((await wordsOf(await m.mm.mmap({ object, length: LENGTH, shared: true })))[0]).toBe(4);
  await object.put();
});

test("buffers beside those of pages are counted apart: what invocations keep, too, and all until the device is closed", async () => {
  await using m = await svmMachine(4);
  const { gpu } = m.device;
  const kernel = await m.device.kernel(SVM_GREEDY);
  const out = await m.mm.mmap({ length: 4096 });
  const data = await m.mm.mmap({ length: 32 * SVM_PAGE });
  const run = (pages: number) =>
    kernel.dispatch({ mm: m.mm, params: { data: data.svmAddress, pages, out: out.svmAddress }, workgroups: 1 });
  await run(2);
  const { used, limit, beside } = m.device.stats().deviceMemory;
  expect(used).toBeLessThanOrEqual(limit);
  expect(gpu.bufferBytes).toBe(used + beside);
  // More than the pool: it goes on from resume points, which keep words in the control buffer.
  await run(32);
  expect(m.device.stats().deviceMemory.beside).toBeGreaterThan(beside);
  await m.device.close();
  expect(gpu.bufferBytes).toBe(0);
});
