import { describe, expect, test } from "vitest";
import { MemoryObject, validateMm } from "../../mm/index.ts";
import { COPY, groupsFor, INCREMENT, increment, openMachine, SUM, wordsOf } from "../../testing/machine.ts";

describe("bind mode", () => {
  test("a kernel's writes come back when the CPU leases them, and only changes go up again", async () => {
    await using m = await openMachine();
    const data = await m.mm.mmap({ length: 64 * 4096 });
    {
      using l = await data.lease("rw");
      l.u32.forEach((_, i, a) => {
        a[i] = i;
      });
    }
    const kernel = await m.device.kernel(INCREMENT);
    const first = await kernel.dispatch({ bind: { data }, workgroups: 1024 });
    expect(first).toMatchObject({ pagesUploaded: 64, pagesMigrated: 64, restarts: 0 });
    validateMm(m.mm);
    const second = await kernel.dispatch({ bind: { data }, workgroups: 1024 });
    expect(second).toMatchObject({ bytesToDevice: 0, pagesMigrated: 0 });
    await data.write(4096 * 5, new Uint32Array([100]));
    validateMm(m.mm);
    const third = await kernel.dispatch({ bind: { data }, workgroups: 1024 });
    expect(third).toMatchObject({ pagesUploaded: 1, pagesMigrated: 1 });
    using l = await data.lease("r");
    expect(l.u32[0]).toBe(3);
    expect(l.u32[1024 * 5]).toBe(101);
    expect(l.u32[65535]).toBe(65538);
    validateMm(m.mm);
  });

  test("a read mapping is a clean copy: a lease for reading moves nothing, one for writing makes one page go up", async () => {
    await using m = await openMachine();
    const data = await m.mm.mmap({ length: 16 * 4096 });
    const sums = await m.mm.mmap({ length: 4 });
    {
      using l = await data.lease("rw");
      l.u32.fill(2);
    }
    const kernel = await m.device.kernel(SUM);
    const run = () => kernel.dispatch({ bind: { data, sums }, params: { scale: 3 }, workgroups: 256 });
    expect((await run()).pagesUploaded).toBe(16);
    (await data.lease("r")).release();
    expect((await run()).pagesUploaded).toBe(0);
    await data.write(0, new Uint32Array([3]));
    expect((await run()).pagesUploaded).toBe(1);
    expect((await wordsOf(sums))[0]).toBe(16 * 1024 * 6 * 3 + 3);
  });

  test("pages that nobody ever wrote are zeros on the device and move no bytes, over used memory too", async () => {
    await using m = await openMachine();
    const data = await m.mm.mmap({ length: 8 * 4096 });
    const kernel = await m.device.kernel(INCREMENT);
    expect(await kernel.dispatch({ bind: { data }, workgroups: 128 })).toMatchObject({
      bytesToDevice: 0,
      pagesUploaded: 0,
      pagesMigrated: 8,
    });
    await m.mm.madvise(data.start, 4 * 4096, "dontneed");
    const again = await kernel.dispatch({ bind: { data }, workgroups: 128 });
    expect(again).toMatchObject({ bytesToDevice: 0, pagesMigrated: 4 });
    const words = await wordsOf(data);
    expect(words.subarray(0, 4096).every((w) => w === 1)).toBe(true);
    expect(words.subarray(4096).every((w) => w === 2)).toBe(true);
  });

  test("a kernel without memory, and one without params, run", async () => {
    await using m = await openMachine();
    const kernel = await m.device.kernel("@compute @workgroup_size(1) fn main() {}");
    expect(await kernel.dispatch({ workgroups: 1 })).toEqual({
      bytesToDevice: 0,
      pagesUploaded: 0,
      pagesMigrated: 0,
      restarts: 0,
      rounds: 1,
      deviceFaults: 0,
      pagesPrefetched: 0,
      prefetchHits: 0,
      evictions: 0,
    });
    expect(m.device.stats().dispatches).toBe(1);
  });

  test("dispatches that are asked for at once run one after another, each with figures of its own", async () => {
    await using m = await openMachine();
    const kernel = await m.device.kernel(INCREMENT);
    const maps = await Promise.all([1, 2, 3].map((pages) => m.mm.mmap({ length: pages * 4096 })));
    for (const data of maps) {
      await data.write(0, new Uint8Array(data.length).fill(1));
    }
    const stats = await Promise.all(
      maps.map((data) => kernel.dispatch({ bind: { data }, workgroups: groupsFor(data.length) })),
    );
    expect(stats.map((s) => s.pagesUploaded)).toEqual([1, 2, 3]);
    expect(stats.map((s) => s.bytesToDevice)).toEqual([4096, 8192, 12288]);
  });

  test("many dispatches on one mapping at once lose no increment", async () => {
    await using m = await openMachine();
    const kernel = await m.device.kernel(INCREMENT);
    const data = await m.mm.mmap({ length: 4096 });
    await Promise.all(Array.from({ length: 20 }, () => increment(kernel, data)));
    expect((await wordsOf(data)).every((w) => w === 20)).toBe(true);
  });
});

describe("ranges", () => {
  test("only the range is bound, uploaded and changed, from its first byte to its last", async () => {
    await using m = await openMachine();
    const data = await m.mm.mmap({ length: 4 * 4096 });
    const kernel = await m.device.kernel(INCREMENT);
    await data.write(0, new Uint8Array(data.length).fill(0));
    const stats = await kernel.dispatch({ bind: { data: data.range(4096 + 256, 4096) }, workgroups: 64 });
    expect(stats.pagesUploaded).toBe(2);
    const words = await wordsOf(data);
    expect(words.indexOf(1)).toBe((4096 + 256) / 4);
    expect(words.lastIndexOf(1)).toBe((8192 + 256) / 4 - 1);
    expect(words.filter((w) => w === 1)).toHaveLength(1024);
  });

  test("two read ranges of one mapping may overlap", async () => {
    await using m = await openMachine();
    const data = await m.mm.mmap({ length: 4 * 4096 });
    const out = await m.mm.mmap({ length: 4096 });
    await data.write(0, new Uint32Array(4096).fill(1));
    const kernel = await m.device.kernel(/* wgsl */ `
      @group(0) @binding(0) var<storage, read> a: array<u32>;
      @group(0) @binding(1) var<storage, read> b: array<u32>;
      @group(0) @binding(2) var<storage, read_write> out: array<u32>;
      @compute @workgroup_size(1) fn main() { out[0] = arrayLength(&a) + a[1023] + b[0] + b[2047]; }`);
    const bind = { a: data.range(0, 8192), b: data.range(4096, 8192), out };
    await kernel.dispatch({ bind, workgroups: 1 });
    expect((await wordsOf(out))[0]).toBe(2048 + 3);
  });

  test("neighbouring ranges of one mapping may be read and written by one dispatch", async () => {
    await using m = await openMachine();
    const data = await m.mm.mmap({ length: 4 * 4096 });
    await data.write(0, new Uint32Array(1024).fill(7));
    const kernel = await m.device.kernel(COPY);
    for (let i = 0; i < 3; i++) {
      const bind = { src: data.range(i * 4096, 4096), dst: data.range((i + 1) * 4096, 4096) };
      await kernel.dispatch({ bind, workgroups: 16 });
    }
    expect((await wordsOf(data)).every((w) => w === 7)).toBe(true);
    validateMm(m.mm);
  });

  test("two written ranges of one mapping share a buffer", async () => {
    await using m = await openMachine();
    const data = await m.mm.mmap({ length: 4 * 4096 });
    const kernel = await m.device.kernel(/* wgsl */ `
      @group(0) @binding(0) var<storage, read_write> a: array<u32>;
      @group(0) @binding(1) var<storage, read_write> b: array<u32>;
      @compute @workgroup_size(1) fn main() { a[0] = 1; b[0] = 2; }`);
    await kernel.dispatch({ bind: { a: data.range(0, 4096), b: data.range(8192, 4096) }, workgroups: 1 });
    await increment(await m.device.kernel(INCREMENT), data);
    const words = await wordsOf(data);
    expect([words[0], words[1024], words[2048]]).toEqual([2, 1, 3]);
  });

  test("extents grow and split without losing device-private pages", async () => {
    await using m = await openMachine();
    const data = await m.mm.mmap({ length: 16 * 4096 });
    const kernel = await m.device.kernel(INCREMENT);
    await kernel.dispatch({ bind: { data: data.range(4096 * 4, 4096 * 4) }, workgroups: 64 });
    await kernel.dispatch({ bind: { data }, workgroups: 256 });
    validateMm(m.mm);
    const sum = await m.device.kernel(SUM);
    const bind = { data: data.range(0, 4096), sums: data.range(8192, 4096) };
    await sum.dispatch({ bind, params: { scale: 1 }, workgroups: 16 });
    const words = await wordsOf(data);
    expect(words[0]).toBe(1);
    expect(words[(4096 * 4) / 4]).toBe(2);
    expect(words[2048]).toBe(1 + 1024);
  });

  test("one range may span several mappings with memory of their own", async () => {
    await using m = await openMachine();
    const a = sharedZeros(m.memory, 2);
    const b = sharedZeros(m.memory, 2);
    const data = await m.mm.mmap({ object: a, length: 4 * 4096, shared: true });
    await m.mm.mmap({ object: b, length: 2 * 4096, shared: true, addr: data.start + 8192, fixed: true });
    await increment(await m.device.kernel(INCREMENT), data);
    const other = await m.mm.mmap({ object: b, length: 2 * 4096, shared: true });
    expect((await wordsOf(other)).every((w) => w === 1)).toBe(true);
    await a.put();
    await b.put();
    validateMm(m.mm);
  });
});

function sharedZeros(memory: ConstructorParameters<typeof MemoryObject>[0], pages: number): MemoryObject {
  return new MemoryObject(memory, { pages });
}

describe("types", () => {
  test("an array of fixed size takes its own bytes of a larger mapping", async () => {
    await using m = await openMachine();
    const data = await m.mm.mmap({ length: 2 * 4096 });
    await data.write(0, new Uint8Array(8192).fill(9));
    const kernel = await m.device.kernel(/* wgsl */ `
      @group(0) @binding(0) var<storage, read_write> data: array<u32, 5>;
      @compute @workgroup_size(1) fn main() { for (var i = 0; i < 5; i++) { data[i] = 1; } }`);
    expect((await kernel.dispatch({ bind: { data }, workgroups: 1 })).pagesUploaded).toBe(1);
    const words = await wordsOf(data);
    expect([...words.subarray(0, 6)]).toEqual([1, 1, 1, 1, 1, 0x09090909]);
  });

  test("a struct with a runtime-sized array behind its members sees the rest of the mapping", async () => {
    await using m = await openMachine();
    const data = await m.mm.mmap({ length: 100 });
    const kernel = await m.device.kernel(/* wgsl */ `
      struct Head { count: u32, rest: array<vec2u> }
      @group(0) @binding(0) var<storage, read_write> data: Head;
      @compute @workgroup_size(1) fn main() { data.count = arrayLength(&data.rest); }`);
    await kernel.dispatch({ bind: { data }, workgroups: 1 });
    // 100 bytes are seen as 112: 8 of the head, and 13 elements.
    expect((await wordsOf(data))[0]).toBe(13);
  });
});
