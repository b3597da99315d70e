import { expect, test } from "vitest";
import { AddressSpace, PhysicalMemory } from "../../../mm/index.ts";
import { openDawn } from "../../../platform/node/dawn.ts";
import { SoftwareMmu } from "../../../platform/software/cpu-mmu.ts";
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
