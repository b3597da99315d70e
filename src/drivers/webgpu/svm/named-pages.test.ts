import { expect, test } from "vitest";
import { AddressSpace, PhysicalMemory } from "../../../mm/index.ts";
import { openDawn } from "../../../platform/node/dawn.ts";
import { SoftwareMmu } from "../../../platform/software/cpu-mmu.ts";
import { WebGpuDriver } from "../driver.ts";

const GATHER = /* wgsl */ `
struct Params { places: u32, data: u32, count: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3u) {
  if (id.x < params.count) {
    pm_store_u32(params.places + id.x, pm_load_u32(params.data + pm_load_u32(params.places + id.x)));
  }
}`;

test("small memory that parameters point to is there in the first round, large memory is not", async () => {
  const opened = await openDawn();
  const driver = new WebGpuDriver();
  try {
    const device = await driver.open({ gpu: opened.adapter, label: "named" });
    await using mm = AddressSpace.create({ memory: new PhysicalMemory(new SoftwareMmu()) });
    const count = 256;
    const places = await mm.mmap({ length: count * 4 });
    const data = await mm.mmap({ length: 4 << 20 });
    await places.write(0, new Uint8Array(Uint32Array.from({ length: count }, (_, i) => i * 4096).buffer));
    const kernel = await device.kernel(GATHER);
    const params = { places: places.svmAddress, data: data.svmAddress, count };
    const stats = await kernel.dispatch({ mm, params, workgroups: count / 64 });
    expect(stats.pagesPrefetched).toBe(1);
    // Every page of the data, and the place to store to; without the places each invocation would have asked for page 0.
    expect(stats.deviceFaults).toBe(count + 1);
    expect(stats.rounds).toBe(2);
  } finally {
    await driver.unload();
    opened.close();
  }
});
