import { expect, test } from "vitest";
import { listenToTrace } from "../../base/index.ts";
import { validateMm } from "../../mm/index.ts";
import { INCREMENT, openMachine } from "../../testing/machine.ts";

const P = 4096;
const PAGES = 1024;

/** A mapping of 4 MiB all of whose pages a kernel has written. */
async function written(m: Awaited<ReturnType<typeof openMachine>>) {
  const data = await m.mm.mmap({ length: PAGES * P });
  await data.write(0, new Uint8Array(PAGES * P).fill(1));
  const kernel = await m.device.kernel(INCREMENT);
  await kernel.dispatch({ bind: { data }, workgroups: (PAGES * P) / 4 / 64 });
  return data;
}

const first = 0x01010101 + 1;

test("who leases page after page of what a kernel wrote waits for a few large pieces", async () => {
  await using m = await openMachine();
  const data = await written(m);
  let readbacks = 0;
  const stop = listenToTrace(({ name }) => {
    readbacks += name === "gpu.readback" ? 1 : 0;
  });
  for (let page = 0; page < PAGES; page++) {
    using lease = await data.lease("r", { offset: page * P, length: P });
    expect(lease.u32[0]).toBe(first);
  }
  stop();
  // A 2 MiB block comes in 1, 1, 2, 4, 8, … 256 pages.
  expect(readbacks).toBe(2 * 10);
  expect(m.device.stats().bytesToHost).toBe(PAGES * P);
  validateMm(m.mm);
});

test("who picks single pages gets single pages", async () => {
  await using m = await openMachine();
  const data = await written(m);
  for (let page = 3; page < PAGES; page += 16) {
    using lease = await data.lease("rw", { offset: page * P, length: P });
    expect(lease.u32[0]).toBe(first);
  }
  expect(m.device.stats().bytesToHost).toBe((PAGES / 16) * P);
  validateMm(m.mm);
});

test("pages of another mapping of the object stay where they are", async () => {
  await using m = await openMachine();
  const data = await written(m);
  // Half of the block is not this mapping's any more.
  await m.mm.mprotect(data.start, 8 * P, "r");
  for (let page = 0; page < 8; page++) {
    using lease = await data.lease("r", { offset: page * P, length: P });
    expect(lease.u32[0]).toBe(first);
  }
  expect(m.device.stats().bytesToHost).toBe(8 * P);
});
