import { describe, expect, test } from "vitest";
import { AddressSpace, type Mapping, PhysicalMemory, validateMm } from "../../../mm/index.ts";
import { type OpenAdapter, openDawn } from "../../../platform/node/dawn.ts";
import { SoftwareMmu } from "../../../platform/software/cpu-mmu.ts";
import { wordsOf } from "../../../testing/machine.ts";
import type { WebGpuDevice } from "../device.ts";
import { WebGpuDriver } from "../driver.ts";
import type { SvmKernel } from "./svm-kernel.ts";

interface Machine extends AsyncDisposable {
  readonly device: WebGpuDevice;
  readonly mm: AddressSpace;
}

async function machine(deviceMemory?: number): Promise<Machine> {
  const opened: OpenAdapter = await openDawn();
  const driver = new WebGpuDriver();
  const device = await driver.open({ gpu: opened.adapter, label: "svm", waiting: opened.waiting, deviceMemory });
  const mm = AddressSpace.create({ memory: new PhysicalMemory(new SoftwareMmu()) });
  return {
    device,
    mm,
    async [Symbol.asyncDispose]() {
      await mm[Symbol.asyncDispose]();
      await driver.unload();
      opened.close();
    },
  };
}

const SUM = /* wgsl */ `
struct Params { data: u32, words: u32, sums: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3u) {
  var sum = 0u;
  for (var i = id.x; i < params.words; i += 4096u) { sum += pm_load_u32(params.data + i); }
  pm_store_u32(params.sums + id.x, sum);
}`;

const INCREMENT = /* wgsl */ `
struct Params { data: u32, words: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3u) {
  if (id.x < params.words) { pm_store_u32(params.data + id.x, pm_load_u32(params.data + id.x) + 1u); }
}`;

const CHASE = /* wgsl */ `
struct Params { head: u32, out: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@compute @workgroup_size(1) fn main() {
  var at = params.head;
  var n = 0u;
  while (at != 0u) { n += pm_load_u32(at + 1u); at = pm_load_u32(at); }
  pm_store_u32(params.out, n);
}`;

async function fill(mapping: Mapping, value: (i: number) => number): Promise<void> {
  using lease = await mapping.lease("rw");
  const words = lease.u32;
  for (let i = 0; i < words.length; i++) {
    words[i] = value(i);
  }
}

describe("svm mode", () => {
  test("a kernel sums memory that it reaches by address", async () => {
    await using m = await machine();
    const data = await m.mm.mmap({ length: 1 << 22 });
    const sums = await m.mm.mmap({ length: 4096 * 4 });
    await fill(data, (i) => i & 0xff);
    const kernel = await m.device.kernel(SUM);
    expect(kernel.mode).toBe("svm");
    const params = { data: data.svmAddress, words: data.length / 4, sums: sums.svmAddress };
    const stats = await kernel.dispatch({ mm: m.mm, params, workgroups: 64 });
    validateMm(m.mm);
    using lease = await sums.lease("r");
    let total = 0;
    for (const word of lease.u32) {
      total += word;
    }
    expect(total).toBe((data.length / 4 / 256) * (255 * 128));
    expect(stats.rounds).toBeLessThan(8);
  });

  test("read-modify-write over memory four times the pool loses and doubles nothing", async () => {
    await using m = await machine(1 << 20);
    const data = await m.mm.mmap({ length: 4 << 20 });
    await fill(data, (i) => i * 3);
    const kernel = await m.device.kernel(INCREMENT);
    const words = data.length / 4;
    const params = { data: data.svmAddress, words };
    for (let round = 0; round < 2; round++) {
      const stats = await kernel.dispatch({ mm: m.mm, params, workgroups: words / 64 });
      expect(stats.evictions).toBeGreaterThan(0);
      expect(m.device.stats().deviceMemory.used).toBeLessThanOrEqual(1 << 20);
      validateMm(m.mm);
    }
    using lease = await data.lease("r");
    expect(lease.u32.findIndex((word, i) => word !== (i * 3 + 2) >>> 0)).toBe(-1);
  });

  test("a pointer chase over 1024 dependent pages takes few rounds", async () => {
    await using m = await machine();
    const pages = 1024;
    const data = await m.mm.mmap({ length: pages * 16384 });
    const out = await m.mm.mmap({ length: 4 });
    {
      using lease = await data.lease("rw");
      const words = lease.u32;
      const order = Array.from({ length: pages }, (_, i) => (i * 389) % pages);
      order.forEach((page, i) => {
        words[page * 4096] = i + 1 < pages ? data.svmAddress + order[i + 1] * 4096 : 0;
        words[page * 4096 + 1] = 2;
      });
    }
    const kernel = await m.device.kernel(CHASE);
    const params = { head: data.svmAddress, out: out.svmAddress };
    const stats = await kernel.dispatch({ mm: m.mm, params, workgroups: 1 });
    using lease = await out.lease("r");
    expect(lease.u32[0]).toBe(2 * pages);
    expect(stats.rounds).toBeLessThanOrEqual(40);
  });

  test("memory that may be written but is only read stays with the host, too, and is read without checks", async () => {
    await using m = await machine();
    const data = await m.mm.mmap({ length: 1 << 20, name: "data" });
    const sums = await m.mm.mmap({ length: 4096 * 4 });
    await fill(data, () => 3);
    const kernel = await m.device.kernel(SUM);
    const params = { data: data.svmAddress, words: data.length / 4, sums: sums.svmAddress };
    const run = (into = sums) =>
      kernel.dispatch({ mm: m.mm, params: { ...params, sums: into.svmAddress }, workgroups: 64 });
    await run();
    const { compiled } = kernel as SvmKernel;
    const { guarded } = compiled;
    let guardedRounds = 0;
    Object.assign(compiled, {
      guarded: () => {
        guardedRounds++;
        return guarded?.();
      },
    });
    const again = await run();
    expect([again.rounds, guardedRounds]).toEqual([1, 1]);
    // Other sums: the kernel may read them, but not write them yet.
    const others = await m.mm.mmap({ length: 4096 * 4 });
    await m.device.prefetch(others);
    const stats = await run(others);
    expect([stats.rounds, stats.deviceFaults, guardedRounds]).toEqual([2, 1, 3]);
    using lease = await others.lease("r");
    expect(new Set(lease.u32)).toEqual(new Set([(data.length / 4 / 4096) * 3]));
    // Nobody wrote it: the host's bytes are good, and nothing has to come home.
    const { bytesToHost } = m.device.stats();
    using _data = await data.lease("r");
    expect(m.device.stats().bytesToHost).toBe(bytesToHost);
  });

  test("a round that was taken for the last one, and misses pages after all, is found out", async () => {
    await using m = await machine();
    const pages = 6;
    const far = 128;
    const lengths = [2, 2, 5, 1, 2, 2];
    const data = await m.mm.mmap({ length: lengths.length * pages * far * 16384 });
    const out = await m.mm.mmap({ length: 4 });
    const kernel = await m.device.kernel(CHASE);
    const pipelines: string[] = [];
    const { compiled } = kernel as SvmKernel;
    const { quick, guarded } = compiled;
    Object.assign(compiled, {
      quick: () => {
        pipelines.push("quick");
        return quick?.();
      },
      guarded: () => {
        pipelines.push("guarded");
        return guarded?.();
      },
    });
    const rounds: number[] = [];
    for (const [turn, length] of lengths.entries()) {
      // Pages of its own: those that the kernel knows it needed before are of no use.
      const first = turn * pages * far * 4096;
      {
        using lease = await data.lease("rw");
        for (let i = 0; i < length; i++) {
          const at = first + i * far * 4096;
          lease.u32[at] = i + 1 < length ? data.svmAddress + at + far * 4096 : 0;
          lease.u32[at + 1] = 1 + i;
        }
      }
      const params = { head: data.svmAddress + first, out: out.svmAddress };
      rounds.push((await kernel.dispatch({ mm: m.mm, params, workgroups: 1 })).rounds);
      expect((await wordsOf(out))[0]).toBe((length * (length + 1)) / 2);
    }
    expect(rounds[1]).toBe(rounds[0]);
    expect(pipelines).toContain("quick");
    expect(pipelines).toContain("guarded");
  });

  test("bad addresses and stores to read-only memory are named, and the space stays usable", async () => {
    await using m = await machine();
    const data = await m.mm.mmap({ length: 1 << 16, name: "data" });
    const kernel = await m.device.kernel(INCREMENT);
    const run = (address: number) => kernel.dispatch({ mm: m.mm, params: { data: address, words: 64 }, workgroups: 1 });
    await expect(run(0)).rejects.toThrow(/EFAULT: main.*svm address 0.*outside every mapping/);
    await m.mm.mprotect(data.start, data.length, "r");
    await expect(run(data.svmAddress)).rejects.toThrow(/EPERM: main.*in data, which is mapped read-only/);
    await m.mm.mprotect(data.start, data.length, "rw");
    await run(data.svmAddress);
    expect(new Uint32Array((await data.read(0, 4)).buffer)[0]).toBe(1);
  });
});
