import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { AddressSpace, PhysicalMemory, validateMm } from "../../mm/index.ts";
import { openDawn } from "../../platform/node/dawn.ts";
import { openFileObject } from "../../platform/node/file-pager.ts";
import { SoftwareMmu } from "../../platform/software/cpu-mmu.ts";
import { WebGpuDriver } from "./driver.ts";

const INCREMENT = /* wgsl */ `
@group(0) @binding(0) var<storage, read_write> data: array<u32>;
@compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3u) {
  if (id.x < arrayLength(&data)) { data[id.x] += 1u; }
}`;

const SUM = /* wgsl */ `
struct Params { scale: u32 }
@group(0) @binding(0) var<storage, read> data: array<u32>;
@group(0) @binding(1) var<storage, read_write> sums: array<atomic<u32>>;
@group(0) @binding(2) var<uniform> params: Params;
@compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3u) {
  if (id.x < arrayLength(&data)) { atomicAdd(&sums[0], data[id.x] * params.scale); }
}`;

async function openMachine(options: { deviceMemory?: number } = {}) {
  const { adapter, close } = await openDawn();
  const driver = new WebGpuDriver();
  const device = await driver.open({ gpu: adapter, label: "test", ...options });
  const memory = new PhysicalMemory(new SoftwareMmu());
  const mm = AddressSpace.create({ memory });
  return {
    driver,
    device,
    memory,
    mm,
    async [Symbol.asyncDispose]() {
      await mm[Symbol.asyncDispose]();
      await driver.unload();
      close();
    },
  };
}

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
    expect(first.pagesUploaded).toBe(64);
    validateMm(m.mm);
    const second = await kernel.dispatch({ bind: { data }, workgroups: 1024 });
    expect(second.bytesToDevice).toBe(0);
    await data.write(4096 * 5, new Uint32Array([100]));
    validateMm(m.mm);
    const third = await kernel.dispatch({ bind: { data }, workgroups: 1024 });
    expect(third.pagesUploaded).toBe(1);
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
    using l = await sums.lease("r");
    expect(l.u32[0]).toBe(16 * 1024 * 6 * 3 + 3);
  });

  test("fork, munmap and mprotect are seen by the device", async () => {
    await using m = await openMachine();
    const data = await m.mm.mmap({ length: 4 * 4096 });
    const kernel = await m.device.kernel(INCREMENT);
    await kernel.dispatch({ bind: { data }, workgroups: 64 });
    const child = await m.mm.fork();
    await kernel.dispatch({ bind: { data }, workgroups: 64 });
    {
      const { Mapping } = await import("../../mm/index.ts");
      using l = await new Mapping(child, data.start, data.length, "child").lease("r");
      expect(l.u32[7]).toBe(1);
    }
    {
      using l = await data.lease("r");
      expect(l.u32[7]).toBe(2);
    }
    await child[Symbol.asyncDispose]();
    await m.mm.mprotect(data.start, 4096, "r");
    await expect(kernel.dispatch({ bind: { data }, workgroups: 64 })).rejects.toThrow("EACCES");
    await m.mm.munmap(data.start, 4096);
    await expect(kernel.dispatch({ bind: { data }, workgroups: 64 })).rejects.toThrow("EFAULT");
    validateMm(m.mm);
  });

  test("a lease that is held makes the dispatch fail with EBUSY", async () => {
    await using m = await openMachine();
    const data = await m.mm.mmap({ length: 4096, name: "data" });
    const kernel = await m.device.kernel(INCREMENT);
    using _lease = await data.lease("r");
    await expect(kernel.dispatch({ bind: { data }, workgroups: 1, timeoutMs: 20 })).rejects.toThrow(
      /EBUSY.*lease on anon|EBUSY.*lease on data/,
    );
  });
});

describe("files and budget", () => {
  let folder: string;
  beforeAll(async () => {
    folder = await mkdtemp(join(tmpdir(), "pm-"));
  });
  afterAll(() => rm(folder, { recursive: true }));

  test("a file that is bound but never leased needs no window; a shared one is written back", async () => {
    await using m = await openMachine();
    const path = join(folder, "f");
    await writeFile(path, new Uint32Array(2000).fill(5));
    const object = await openFileObject(m.memory, path, { write: true });
    const data = await m.mm.mmap({ object, length: 8000, shared: true });
    await object.put();
    const kernel = await m.device.kernel(INCREMENT);
    await kernel.dispatch({ bind: { data }, workgroups: 32 });
    await data.msync();
    const { readFile } = await import("node:fs/promises");
    const bytes = await readFile(path);
    expect(bytes.length).toBe(8000);
    expect(new Uint32Array(bytes.buffer, bytes.byteOffset, 2000).every((v) => v === 6)).toBe(true);
    validateMm(m.mm);
  });

  test("the budget evicts what was bound longest ago, and nothing is lost", async () => {
    await using m = await openMachine({ deviceMemory: 3 * 65536 });
    const kernel = await m.device.kernel(INCREMENT);
    const maps = await Promise.all(Array.from({ length: 6 }, () => m.mm.mmap({ length: 65536 })));
    for (let round = 0; round < 3; round++) {
      for (const data of maps) {
        await kernel.dispatch({ bind: { data }, workgroups: 256 });
        expect(m.device.stats().deviceMemory.used).toBeLessThanOrEqual(3 * 65536);
      }
    }
    for (const data of maps) {
      using l = await data.lease("r");
      expect(l.u32.every((v) => v === 3)).toBe(true);
    }
    const big = await m.mm.mmap({ length: 65536 * 4 });
    await expect(kernel.dispatch({ bind: { data: big }, workgroups: 1 })).rejects.toThrow(/ENOMEM.*budget/);
  });

  test("extents grow and split without losing device-private pages", async () => {
    await using m = await openMachine();
    const data = await m.mm.mmap({ length: 16 * 4096 });
    const kernel = await m.device.kernel(INCREMENT);
    await kernel.dispatch({ bind: { data: data.range(4096 * 4, 4096 * 4) }, workgroups: 64 });
    await kernel.dispatch({ bind: { data }, workgroups: 256 });
    validateMm(m.mm);
    const sum = await m.device.kernel(SUM);
    await sum.dispatch({
      bind: { data: data.range(0, 4096), sums: data.range(8192, 4096) },
      params: { scale: 1 },
      workgroups: 16,
    });
    using l = await data.lease("r");
    expect(l.u32[0]).toBe(1);
    expect(l.u32[(4096 * 4) / 4]).toBe(2);
    expect(l.u32[2048]).toBe(1 + 1024);
  });

  test("what a lost device held alone is reported, never zero", async () => {
    const { adapter, close } = await openDawn();
    const gpu = await adapter.requestDevice();
    const driver = new WebGpuDriver();
    const device = await driver.open({ gpu, label: "lost" });
    const memory = new PhysicalMemory(new SoftwareMmu());
    const mm = AddressSpace.create({ memory });
    const data = await mm.mmap({ length: 8192, name: "mine" });
    const kernel = await device.kernel(INCREMENT);
    await kernel.dispatch({ bind: { data: data.range(0, 4096) }, workgroups: 1 });
    gpu.destroy();
    await gpu.lost;
    await expect((async () => await data.lease("r"))()).rejects.toThrow("EHWPOISON");
    (await data.lease("rw", { offset: 4096 })).release();
    await expect(kernel.dispatch({ bind: { data }, workgroups: 1 })).rejects.toThrow("ENODEV");
    validateMm(mm);
    await mm[Symbol.asyncDispose]();
    await driver.unload();
    close();
  });
});
