/** Two drivers that mirror one address space: one that works in place, one that copies. */
import { expect, test } from "vitest";
import { DmirrorDriver } from "../src/drivers/dmirror/index.ts";
import { openMachine, SUM } from "../src/testing/machine.ts";

test("I-HMM-1: what an in-place device writes after a copy was made reaches the next copy", async () => {
  await using m = await openMachine();
  const data = await m.mm.mmap({ length: 4096, name: "data" });
  const sums = await m.mm.mmap({ length: 4, name: "sums" });
  await using driver = new DmirrorDriver();
  const dmirror = await driver.open(m.mm);
  const kernel = await m.device.kernel(SUM);
  const sum = async () => {
    await sums.write(0, new Uint32Array([0]));
    await kernel.dispatch({ bind: { data, sums }, params: { scale: 1 }, workgroups: 16 });
    using lease = await sums.lease("r");
    return lease.u32[0];
  };
  for (let round = 1; round <= 3; round++) {
    await dmirror.write(data.start, new Uint8Array(new Uint32Array([round, round]).buffer));
    expect(await sum()).toBe(2 * round);
  }
  expect(await dmirror.read(data.start, 4)).toEqual(new Uint8Array([3, 0, 0, 0]));
});
