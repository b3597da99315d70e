import { describe, expect, test } from "vitest";
import { listenToTrace, PAGE_SIZE, type TraceEvent } from "../base/index.ts";
import { POISON_WORD } from "../platform/userfaultfd/fault-log.ts";
import { probeUserfaultfd } from "../platform/userfaultfd/probe.ts";
import { INCREMENT, SUM } from "../testing/machine.ts";
import { PlainThread, WORDS } from "../testing/plain-thread.ts";

import { openShared, type SharedMapping } from "./index.ts";
import { openSoftwareParts } from "./parts.ts";

const report = probeUserfaultfd();
if (!report.works) {
  console.warn(`the service thread's tests are skipped: ${report.why}`);
}

const viewOf = ({ buffer, byteOffset, length }: SharedMapping) => ({ buffer, byteOffset, byteLength: length });

describe.each(["software", "userfaultfd"] as const)("one API, on %s", (mmu) => {
  test.skipIf(mmu === "userfaultfd" && !report.works)("a program runs unchanged", async () => {
    await using pm = await openShared({ mmu });
    expect(pm.mmu.name).toBe(mmu);
    const data = await pm.mm.mmap({ length: 64 * PAGE_SIZE, name: "data" });
    const sums = await pm.mm.mmap({ length: PAGE_SIZE, name: "sums" });
    const increment = await pm.device.kernel(INCREMENT);
    const sum = await pm.device.kernel(SUM);
    {
      using lease = await data.lease("rw");
      lease.u32.fill(2);
    }
    await increment.dispatch({ bind: { data }, workgroups: 64 * 16 });
    await sum.dispatch({ bind: { data, sums }, params: { scale: 1 }, workgroups: 64 * 16 });
    {
      using lease = await data.lease("r", { offset: PAGE_SIZE, length: 8 });
      expect([...lease.u32]).toEqual([3, 3]);
    }
    expect(new Uint32Array((await sums.read(0, 4)).buffer)[0]).toBe(3 * 64 * 1024);
    await data.write(0, Uint32Array.of(9));
    expect((await data.read(0, 4))[0]).toBe(9);
    await expect(increment.dispatch({ bind: {}, workgroups: 1 })).rejects.toMatchObject({ code: "EINVAL" });
    expect(pm.faultErrorCount).toBe(0);
    await data.munmap();
    await expect(data.read()).rejects.toMatchObject({ code: "EFAULT" });
  });
});

test("the loss of the device is an error that no call has to report", async () => {
  const codes: string[] = [];
  const parts = await openSoftwareParts({}, ({ code }) => codes.push(code));
  parts.device().gpu.lost.mark("a test pulled it out");
  expect(codes).toEqual(["ENODEV"]);
  await parts.close();
  expect(codes).toHaveLength(1);
});

describe.skipIf(!report.works)("the service thread", () => {
  test("sends its events while somebody listens here, from the mappings that are there on", async () => {
    await using pm = await openShared({ mmu: "userfaultfd", device: false });
    const data = await pm.mm.mmap({ length: 4 * PAGE_SIZE, name: "data" });
    const events: TraceEvent[] = [];
    const stop = listenToTrace((event) => events.push(event));
    try {
      await data.write(0, Uint8Array.of(1));
      await expect.poll(() => events.map(({ name }) => name)).toContain("mm.fault");
    } finally {
      stop();
    }
    const [map] = events;
    expect(map).toMatchObject({ name: "mm.map", fields: { name: "data", start: data.start } });
    const { length } = events;
    await data.write(PAGE_SIZE, Uint8Array.of(1));
    await pm.mm.stats();
    expect(events).toHaveLength(length);
  });

  test("plain arrays of this thread and of others, and kernels, share one memory", async () => {
    await using pm = await openShared({ mmu: "userfaultfd" });
    await using thread = new PlainThread();
    const data = await pm.mm.mmap({ length: 512 * PAGE_SIZE, name: "data" });
    const { u32 } = data;
    expect(u32[5000]).toBe(0);
    u32[5000] = 41;
    const increment = await pm.device.kernel(INCREMENT);
    await increment.dispatch({ bind: { data }, workgroups: 512 * 16 });
    expect([u32[5000], u32[511 * 1024]]).toEqual([42, 1]);
    expect(await thread.run(`${WORDS} u32[7] = 100; return u32[5000]`, viewOf(data))).toBe(42);
    await increment.dispatch({ bind: { data }, workgroups: 512 * 16 });
    expect([u32[7], u32[5000]]).toEqual([101, 43]);
    expect((await pm.counts()).errors).toBe(0);
  });

  test("without a device there is memory all the same", async () => {
    await using pm = await openShared({ mmu: "userfaultfd", device: false });
    const data = await pm.mm.mmap({ length: PAGE_SIZE });
    data.u32[1] = 5;
    expect((await data.read(4, 1))[0]).toBe(5);
    await expect(pm.device.kernel("")).rejects.toMatchObject({ code: "ENODEV" });
  });

  test("access after munmap and after close sees zeros", async () => {
    const pm = await openShared({ mmu: "userfaultfd", device: false });
    const [a, b] = [await pm.mm.mmap({ length: PAGE_SIZE }), await pm.mm.mmap({ length: 8 * PAGE_SIZE })];
    const [left, right] = [a.u32, b.u32];
    left[0] = 1;
    right[0] = 1;
    await a.munmap();
    expect(left[0]).toBe(0);
    await pm.close();
    expect([right[0], right[5 * 1024]]).toEqual([0, 0]);
  });

  test("when the service dies, who waits goes on, sees poison, and the error was there before", async () => {
    const pm = await openShared({ mmu: "userfaultfd", device: false });
    await using thread = new PlainThread();
    const data = await pm.mm.mmap({ length: 64 * PAGE_SIZE });
    data.u32[0] = 1;
    const args = { ...viewOf(data), log: pm.faultLog.buffer };
    await thread.run(`${WORDS} return u32[0]`, args);
    await pm.provoke("die");
    const seen = await thread.run(
      `${WORDS} const log = new Int32Array(args.log); const word = Atomics.load(u32, 60 * 1024); return [word, Atomics.load(log, 0)];`,
      args,
    );
    expect(seen).toEqual([POISON_WORD, 1]);
    expect(pm.faultErrors()).toMatchObject([{ code: "ESRCH" }]);
    await expect(pm.mm.mmap({ length: PAGE_SIZE })).rejects.toMatchObject({ code: "ESRCH" });
    await pm.close().catch(() => undefined);
  });
});
