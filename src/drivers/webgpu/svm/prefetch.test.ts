import { expect, test } from "vitest";
import { PAGE_SIZE } from "../../../base/index.ts";
import { AddressSpace, PhysicalMemory } from "../../../mm/index.ts";
import { openDawn } from "../../../platform/node/dawn.ts";
import { SoftwareMmu } from "../../../platform/software/cpu-mmu.ts";
import { svmMachine } from "../../../testing/svm-kernels.ts";
import { WebGpuDriver } from "../driver.ts";

test("prefetched pages are resident, go stale by a write, and come home", async () => {
  const { adapter, waiting, close } = await openDawn();
  const driver = new WebGpuDriver();
  const device = await driver.open({ gpu: adapter, waiting });
  const mm = AddressSpace.create({ memory: new PhysicalMemory(new SoftwareMmu()) });
  const data = await mm.mmap({ length: 300_000 });
  await data.write(0, new Uint8Array(300_000).fill(7));
  expect(await device.prefetch(data)).toBe(19);
  expect(await device.prefetch(data)).toBe(0);
  await data.write(20_000, new Uint8Array([9]));
  expect(await device.prefetch(data)).toBe(1);
  expect(await device.prefetch(data, { write: true })).toBe(19);
  {
    using lease = await data.lease("r");
    expect(lease.u8[0]).toBe(7);
    expect(lease.u8[20_000]).toBe(9);
    expect(lease.u8[299_999]).toBe(7);
  }
  await mm[Symbol.asyncDispose]();
  await driver.unload();
  close();
});

/** Reads one word in each 4 KiB from a place on, 64 at a time. */
const WALK = /* wgsl */ `
struct Params { first: u32, pages: u32, sum: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3u) {
  if (id.x < params.pages) { pm_atomic_add_u32(params.sum, pm_load_u32(params.first + id.x * 1024u)); }
}`;

test("a cluster that begins anywhere moves at most 1.3 times its bytes on the whole, where nothing was known of it", async () => {
  await using m = await svmMachine(1024);
  const data = await m.mm.mmap({ length: 16 * 512 * PAGE_SIZE });
  await data.write(0, new Uint8Array(data.length).fill(1));
  const sum = await m.mm.mmap({ length: 4 });
  let needed = 0;
  let moved = 0;
  for (let cluster = 0; cluster < 16; cluster++) {
    // A kernel of its own each time: what another one missed is nothing to it.
    const kernel = await m.device.kernel(WALK);
    const pages = 41;
    const first = data.svmAddress + (cluster * 512 + ((cluster * 37) % 61)) * 1024;
    const stats = await kernel.dispatch({ mm: m.mm, params: { first, pages, sum: sum.svmAddress }, workgroups: 1 });
    needed += pages * PAGE_SIZE;
    moved += stats.bytesToDevice;
  }
  expect(moved / needed).toBeLessThan(1.3);
});
