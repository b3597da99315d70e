import { describe, expect, test } from "vitest";
import { isPromise } from "../../base/index.ts";
import { HmmMirror } from "../../hmm/index.ts";
import { MemoryObject, type Pager, validateMm } from "../../mm/index.ts";
import { COPY, INCREMENT, increment, type Machine, openMachine, SLOW, SUM, wordsOf } from "../../testing/machine.ts";
import { turn } from "../../testing/spaces.ts";

/** Until a dispatch has found something in its way. */
async function untilRestarted(m: Machine): Promise<void> {
  while (m.device.stats().restarts === 0) {
    await turn();
  }
}

describe("leases", () => {
  test("EBUSY: one that is held is named when the time is over, and nothing is left isolated", async () => {
    await using m = await openMachine();
    const data = await m.mm.mmap({ length: 2 * 4096, name: "mine" });
    const kernel = await m.device.kernel(INCREMENT);
    using lease = await data.lease("r", { offset: 4096 });
    await expect(kernel.dispatch({ bind: { data }, workgroups: 1, timeoutMs: 20 })).rejects.toMatchObject({
      code: "EBUSY",
      why: expect.stringMatching(/lease on mine, which data is bound to.*20 ms/),
    });
    (await data.lease("rw", { offset: 0, length: 4096 })).release();
    expect(lease.u8.length).toBe(4096);
    validateMm(m.mm);
  });

  test("a dispatch goes on as soon as the lease in its way ends", async () => {
    await using m = await openMachine();
    const data = await m.mm.mmap({ length: 4096 });
    const kernel = await m.device.kernel(INCREMENT);
    const lease = await data.lease("rw");
    const running = kernel.dispatch({ bind: { data }, workgroups: 16, timeoutMs: 20_000 });
    await untilRestarted(m);
    lease.u32[0] = 41;
    lease.release();
    expect((await running).restarts).toBeGreaterThan(0);
    expect((await wordsOf(data))[0]).toBe(42);
  });

  test("a lease for reading is in nobody's way who only reads", async () => {
    await using m = await openMachine();
    const src = await m.mm.mmap({ length: 4096 });
    const dst = await m.mm.mmap({ length: 4096 });
    const kernel = await m.device.kernel(COPY);
    using _lease = await src.lease("r");
    expect((await kernel.dispatch({ bind: { src, dst }, workgroups: 1 })).restarts).toBe(0);
    using _writing = await src.lease("rw");
    await expect(kernel.dispatch({ bind: { src, dst }, workgroups: 1, timeoutMs: 20 })).rejects.toMatchObject({
      code: "EBUSY",
    });
  });

  test("a dispatch that waits for a lease keeps no other dispatch from running", async () => {
    await using m = await openMachine();
    const data = await m.mm.mmap({ length: 4096 });
    const other = await m.mm.mmap({ length: 4096 });
    const kernel = await m.device.kernel(INCREMENT);
    const lease = await data.lease("rw");
    const stuck = kernel.dispatch({ bind: { data }, workgroups: 16, timeoutMs: 20_000 });
    await untilRestarted(m);
    await increment(kernel, other);
    lease.release();
    await stuck;
  });
});

describe("invalidations", () => {
  test("EBUSY: one that never ends", async () => {
    await using m = await openMachine();
    const src = await m.mm.mmap({ length: 4096 });
    const dst = await m.mm.mmap({ length: 4096 });
    const kernel = await m.device.kernel(COPY);
    await kernel.dispatch({ bind: { src, dst }, workgroups: 1 });
    const range = { mm: m.mm, start: src.start, end: src.end, blockable: true, event: "clear" } as const;
    await m.mm.notifiers?.invalidateRangeStart(range);
    await expect(kernel.dispatch({ bind: { src, dst }, workgroups: 1, timeoutMs: 20 })).rejects.toMatchObject({
      code: "EBUSY",
      why: expect.stringContaining("changed all the time"),
    });
    await m.mm.notifiers?.invalidateRangeEnd(range);
    await kernel.dispatch({ bind: { src, dst }, workgroups: 1 });
  });

  test("one that may not wait is answered EAGAIN while the device works, and works when it is idle", async () => {
    await using m = await openMachine();
    const data = await m.mm.mmap({ length: 4096 });
    const kernel = await m.device.kernel(SLOW);
    const range = { mm: m.mm, start: data.start, end: data.end, blockable: false, event: "clear" } as const;
    const running = kernel.dispatch({ bind: { data }, params: { turns: 30_000_000 }, workgroups: 1 });
    while (m.device.stats().dispatches === 0) {
      await turn();
    }
    const asked = m.mm.notifiers?.invalidateRangeStart(range);
    expect(asked).toBe("EAGAIN");
    await running;
    await m.device.fences.idle();
    expect(m.mm.notifiers?.invalidateRangeStart(range)).toBe(0);
    m.mm.notifiers?.invalidateRangeEnd(range);
  });

  test("the CPU's write to what a kernel reads waits until the kernel is through", async () => {
    await using m = await openMachine();
    const src = await m.mm.mmap({ length: 4096 });
    const dst = await m.mm.mmap({ length: 4096 });
    await src.write(0, new Uint32Array(1024).fill(1));
    const kernel = await m.device.kernel(/* wgsl */ `
      struct Params { turns: u32 }
      @group(0) @binding(0) var<storage, read> src: array<u32>;
      @group(0) @binding(1) var<storage, read_write> dst: array<u32>;
      @group(0) @binding(2) var<uniform> params: Params;
      @compute @workgroup_size(1) fn main() {
        var x = dst[1];
        for (var i = 0u; i < params.turns; i++) { x = x * 1664525u + 1013904223u; }
        dst[1] = x;
        dst[0] = src[1023];
      }`);
    const running = kernel.dispatch({ bind: { src, dst }, params: { turns: 10_000_000 }, workgroups: 1 });
    while (m.device.stats().dispatches === 0) {
      await turn();
    }
    const lease = src.lease("rw");
    expect(isPromise(lease)).toBe(true);
    (await lease).u32.fill(2);
    (await lease).release();
    await running;
    expect((await wordsOf(dst))[0]).toBe(1);
  });

  test("a page that came home is not kept on the device when an invalidation began before and ends after", async () => {
    await using m = await openMachine();
    const slow = m.space();
    const object = new MemoryObject(m.memory, { pages: 2 });
    const data = await m.mm.mmap({ object, length: 2 * 4096, shared: true });
    const theirs = await slow.mmap({ object, length: 2 * 4096, shared: true });
    await object.put();
    // A mirror that takes its time for the second page only.
    let release = (): void => {};
    const held = new Promise<void>((resolve) => {
      release = resolve;
    });
    const mirror = new HmmMirror({
      name: "slow",
      syncCpuDevicePagetables: (_, update) =>
        update.start <= theirs.start + 4096 && update.end > theirs.start + 4096 ? held.then(() => 0) : 0,
    });
    await mirror.register(slow);
    const kernel = await m.device.kernel(INCREMENT);
    const first = data.range(0, 4096);
    await kernel.dispatch({ bind: { data: first }, workgroups: 16 });
    (await data.lease("r", { length: 4096 })).release();
    // The CPU wants to write both pages; the device is told, the slow mirror keeps the change from being made.
    const writing = Promise.resolve(data.lease("rw"));
    await turn();
    await kernel.dispatch({ bind: { data: first }, workgroups: 16 });
    (await data.lease("r", { length: 4096 })).release();
    release();
    {
      using l = await writing;
      l.u32[0] = 100;
    }
    await kernel.dispatch({ bind: { data: first }, workgroups: 16 });
    using l = await data.lease("r", { length: 4096 });
    expect(l.u32[0]).toBe(101);
    await mirror.unregister();
  });
});

/** A pager whose reads wait until the test lets them. */
class GatedPager implements Pager {
  readonly name = "gated";
  readonly writable = true;
  readonly length: number;
  reading = 0;
  open = (): void => {};
  readonly #gate = new Promise<void>((resolve) => {
    this.open = resolve;
  });

  constructor(length: number) {
    this.length = length;
  }

  read(_offset: number, dst: Uint8Array): Promise<void> {
    this.reading++;
    return this.#gate.then(() => void dst.fill(1));
  }

  write(): void {}
  sync(): void {}
  close(): void {}
}

describe("AbortSignal", () => {
  const aborted = { code: "EINTR" };

  test("before the dispatch", async () => {
    await using m = await openMachine();
    const data = await m.mm.mmap({ length: 4096 });
    const kernel = await m.device.kernel(INCREMENT);
    const signal = AbortSignal.abort();
    await expect(kernel.dispatch({ bind: { data }, workgroups: 1, signal })).rejects.toMatchObject(aborted);
    expect(m.device.stats().deviceMemory.used).toBe(0);
    const empty = await m.device.kernel("@compute @workgroup_size(1) fn main() {}");
    await expect(empty.dispatch({ workgroups: 1, signal })).rejects.toMatchObject(aborted);
  });

  test("while another dispatch has the turn, and while the mmap lock is held", async () => {
    await using m = await openMachine();
    const data = await m.mm.mmap({ length: 4096 });
    const kernel = await m.device.kernel(INCREMENT);
    await increment(kernel, data);
    for (const lock of [() => m.device.turn.write(), () => m.mm.mmapLock.write()]) {
      const held = await lock();
      const stop = new AbortController();
      const running = kernel.dispatch({ bind: { data }, workgroups: 1, signal: stop.signal });
      await turn();
      stop.abort();
      await expect(running).rejects.toMatchObject(aborted);
      held.release();
    }
    await increment(kernel, data);
    expect((await wordsOf(data))[0]).toBe(2);
  });

  test("while a lease is in the way", async () => {
    await using m = await openMachine();
    const data = await m.mm.mmap({ length: 4096 });
    const kernel = await m.device.kernel(INCREMENT);
    using _lease = await data.lease("rw");
    const stop = new AbortController();
    const running = kernel.dispatch({ bind: { data }, workgroups: 1, signal: stop.signal, timeoutMs: 20_000 });
    await untilRestarted(m);
    stop.abort();
    await expect(running).rejects.toMatchObject(aborted);
  });

  test("while pages are read from their file: they are the host's again, and the device has none of them", async () => {
    for (const wgsl of [INCREMENT, SUM]) {
      await using m = await openMachine();
      const pager = new GatedPager(8 * 4096);
      const object = new MemoryObject(m.memory, { pages: 8, pager });
      const data = await m.mm.mmap({ object, length: pager.length, shared: true });
      const sums = await m.mm.mmap({ length: 4 });
      await object.put();
      const kernel = await m.device.kernel(wgsl);
      const stop = new AbortController();
      const more = wgsl === SUM ? { bind: { data, sums }, params: { scale: 1 } } : { bind: { data } };
      const running = kernel.dispatch({ ...more, workgroups: 128, signal: stop.signal });
      while (pager.reading === 0) {
        await turn();
      }
      stop.abort();
      pager.open();
      await expect(running).rejects.toMatchObject(aborted);
      validateMm(m.mm);
      const stats = await kernel.dispatch({ ...more, workgroups: 128 });
      expect(stats.pagesUploaded).toBeGreaterThanOrEqual(8);
      const words = await wordsOf(wgsl === SUM ? sums : data);
      expect(words[0]).toBe(wgsl === SUM ? Number((0x01010101n * 8192n) & 0xffffffffn) : 0x01010102);
    }
  });

  test("between the last upload and the submit: pages that never went up are not taken for valid", async () => {
    await using m = await openMachine();
    const data = await m.mm.mmap({ length: 4096 });
    const sums = await m.mm.mmap({ length: 4 });
    const kernel = await m.device.kernel(SUM);
    const options = { bind: { data, sums }, params: { scale: 1 }, workgroups: 16 };
    // A signal that fires when it is looked at for the n-th time reaches every stage.
    let stages = 0;
    for (let n = 0; ; n++) {
      // Other bytes each time: those of an earlier upload would be noticed.
      await data.write(0, new Uint32Array(1024).fill(n + 2));
      await sums.write(0, new Uint32Array([0]));
      const stop = new AbortController();
      let looks = 0;
      const signal = new Proxy(stop.signal, {
        get(target, key) {
          if (key === "aborted" && looks++ === n) {
            stop.abort();
          }
          const value: unknown = Reflect.get(target, key, target);
          return typeof value === "function" ? value.bind(target) : value;
        },
      });
      const outcome = await kernel.dispatch({ ...options, signal }).catch((error: unknown) => error);
      validateMm(m.mm);
      if (!(outcome instanceof Error)) {
        break;
      }
      expect(outcome).toMatchObject(aborted);
      stages++;
      await sums.write(0, new Uint32Array([0]));
      await kernel.dispatch(options);
      expect((await wordsOf(sums))[0]).toBe(1024 * (n + 2));
    }
    expect(stages).toBeGreaterThan(5);
  });

  test("after the submit: the kernel's work is done all the same", async () => {
    await using m = await openMachine();
    const data = await m.mm.mmap({ length: 4096 });
    const kernel = await m.device.kernel(SLOW);
    const stop = new AbortController();
    const running = kernel.dispatch({
      bind: { data },
      params: { turns: 10_000_000 },
      workgroups: 1,
      signal: stop.signal,
    });
    while (m.device.stats().dispatches === 0) {
      await turn();
    }
    stop.abort();
    await expect(running).rejects.toMatchObject(aborted);
    expect((await wordsOf(data))[0]).toBeGreaterThan(0);
  });
});
