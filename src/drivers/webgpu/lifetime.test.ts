import { describe, expect, test } from "vitest";
import { KernelError, ledgerCounts } from "../../base/index.ts";
import { AddressSpace, MemoryObject, PhysicalMemory, validateMm } from "../../mm/index.ts";
import { groupsFor, INCREMENT, increment, Machine, openMachine, SLOW, wordsOf } from "../../testing/machine.ts";
import { turn } from "../../testing/spaces.ts";

const LENGTH = 4 * 4096;

async function untilSubmitted(m: Machine, dispatches = 1): Promise<void> {
  while (m.device.stats().dispatches < dispatches) {
    await turn();
  }
}

describe("the end of an address space", () => {
  test("its device memory is given back without being read back", async () => {
    await using m = await openMachine();
    const mm = m.space();
    await increment(await m.device.kernel(INCREMENT), await mm.mmap({ length: LENGTH }));
    expect(m.device.stats().deviceMemory.used).toBe(LENGTH);
    await mm[Symbol.asyncDispose]();
    while (m.device.stats().deviceMemory.used > 0) {
      await turn();
    }
    expect(m.device.stats().bytesToHost).toBe(0);
  });

  test("while a kernel runs: exit waits for it, and the dispatch succeeds", async () => {
    await using m = await openMachine();
    const data = await m.mm.mmap({ length: LENGTH });
    const kernel = await m.device.kernel(SLOW);
    const running = kernel.dispatch({ bind: { data }, params: { turns: 10_000_000 }, workgroups: 1 });
    await untilSubmitted(m);
    await m.mm[Symbol.asyncDispose]();
    expect(m.device.fences.isDone(1)).toBe(true);
    await running;
    await expect(kernel.dispatch({ bind: { data }, params: { turns: 1 }, workgroups: 1 })).rejects.toMatchObject({
      code: "ESRCH",
    });
  });

  test("while a dispatch waits for a lease: the dispatch still runs, then the space exits", async () => {
    await using m = await openMachine();
    const data = await m.mm.mmap({ length: LENGTH });
    const kernel = await m.device.kernel(INCREMENT);
    const lease = await data.lease("rw");
    const running = kernel.dispatch({ bind: { data }, workgroups: 1, timeoutMs: 20_000 });
    await turn();
    await m.mm[Symbol.asyncDispose]();
    expect(m.mm.users).toBe(1);
    lease.release();
    await running;
    expect(m.mm.users).toBe(0);
  });

  test("ESRCH: a dispatch in a space that has exited", async () => {
    await using m = await openMachine();
    const mm = m.space();
    const data = await mm.mmap({ length: LENGTH });
    const kernel = await m.device.kernel(INCREMENT);
    await mm[Symbol.asyncDispose]();
    await expect(increment(kernel, data)).rejects.toMatchObject({ code: "ESRCH" });
  });

  test("EIO of the exit is reported by the dispatch that was the last user", async () => {
    await using m = await openMachine();
    const pager = {
      name: "full",
      length: 4096,
      writable: true,
      read: (_: number, dst: Uint8Array) => void dst.fill(0),
      write: () => {
        throw new KernelError("ENOSPC", "write", "the disk is full");
      },
      sync: () => undefined,
      close: () => undefined,
    };
    const object = new MemoryObject(m.memory, { pages: 1, pager });
    const mm = AddressSpace.create({ memory: m.memory });
    const data = await mm.mmap({ object, length: 4096, shared: true });
    await object.put();
    const kernel = await m.device.kernel(INCREMENT);
    const lease = await data.lease("rw");
    const running = kernel.dispatch({ bind: { data }, workgroups: 1, timeoutMs: 20_000 });
    await turn();
    await mm[Symbol.asyncDispose]();
    lease.release();
    await expect(running).rejects.toMatchObject({ code: "ENOSPC" });
  });
});

describe("unload", () => {
  test("with the space alive: pages come home, and the memory works on without the device", async () => {
    await using m = await openMachine();
    const data = await m.mm.mmap({ length: LENGTH });
    const kernel = await m.device.kernel(INCREMENT);
    await increment(kernel, data);
    await m.driver.unload();
    expect((await wordsOf(data)).every((w) => w === 1)).toBe(true);
    (await data.lease("rw")).release();
    validateMm(m.mm);
    await expect(increment(kernel, data)).rejects.toMatchObject({
      code: "ENODEV",
      why: expect.stringContaining("closed"),
    });
    await expect(m.device.kernel(INCREMENT)).rejects.toMatchObject({ code: "ENODEV" });
  });

  test("is idempotent, and ends in the barrier: nothing of the driver is left", async () => {
    await using m = await openMachine();
    const data = await m.mm.mmap({ length: LENGTH });
    await increment(await m.device.kernel(INCREMENT), data);
    const [first, second] = [m.driver.unload(), m.driver.unload()];
    expect(first).toBe(second);
    await first;
    const left = ledgerCounts();
    for (const kind of ["mirror", "hmm", "notifier", "gpu buffer", "gpu device", "range"] as const) {
      expect(left[kind] ?? 0, kind).toBe(0);
    }
    await m.driver.unload();
    await expect(m.open()).rejects.toMatchObject({ code: "ENODEV", why: expect.stringContaining("unloaded") });
  });

  test("while dispatches run and wait: those on the GPU succeed, those that wait get ENODEV", async () => {
    await using m = await openMachine();
    const data = await m.mm.mmap({ length: LENGTH });
    const held = await m.mm.mmap({ length: LENGTH });
    const slow = await m.device.kernel(SLOW);
    const kernel = await m.device.kernel(INCREMENT);
    const running = slow.dispatch({ bind: { data }, params: { turns: 10_000_000 }, workgroups: 1 });
    await untilSubmitted(m);
    const lease = await held.lease("rw");
    const waiting = kernel.dispatch({ bind: { data: held }, workgroups: 1, timeoutMs: 20_000 });
    await turn();
    const unloaded = m.driver.unload();
    await running;
    await unloaded;
    lease.release();
    await expect(waiting).rejects.toMatchObject({ code: "ENODEV" });
    expect((await wordsOf(data))[0]).toBeGreaterThan(0);
  });

  test("after and while spaces exit", async () => {
    await using m = await openMachine();
    const kernel = await m.device.kernel(INCREMENT);
    const spaces = await Promise.all(
      Array.from({ length: 4 }, async () => {
        const mm = m.space();
        await increment(kernel, await mm.mmap({ length: LENGTH }));
        return mm;
      }),
    );
    const exits = spaces.map((mm) => mm[Symbol.asyncDispose]());
    await m.driver.unload();
    await Promise.all(exits);
  });

  test("ENOMEM: pages for which the host has no room are lost, and everything is ended all the same", async () => {
    const m = await openMachine();
    const data = await m.mm.mmap({ length: LENGTH });
    await increment(await m.device.kernel(INCREMENT), data);
    m.memory.failAfter(0);
    await expect(m.driver.unload()).rejects.toMatchObject({ code: "ENOMEM" });
    m.memory.failAfter();
    await expect(wordsOf(data)).rejects.toMatchObject({ code: "EHWPOISON" });
    validateMm(m.mm);
    // The end was reached, and tells again how.
    await expect(m[Symbol.asyncDispose]()).rejects.toMatchObject({ code: "ENOMEM" });
  });
});

describe("a GPUDevice of the caller's", () => {
  test("is adopted, with its own limits, and survives the driver", async () => {
    await using m = new Machine();
    const { gpu, device } = await m.adopt();
    const data = await m.mm.mmap({ length: LENGTH });
    await increment(await device.kernel(INCREMENT), data);
    await m.driver.unload();
    expect((await wordsOf(data))[0]).toBe(1);
    const buffer = gpu.createBuffer({ size: 16, usage: 8 });
    gpu.pushErrorScope("validation");
    gpu.queue.writeBuffer(buffer, 0, new Uint32Array(4));
    expect(await gpu.popErrorScope()).toBe(null);
    gpu.destroy();
  });

  test("EINVAL: deviceMemory that is no number of bytes", async () => {
    await using m = new Machine();
    for (const deviceMemory of [0, -1, 1.5, Number.NaN]) {
      await expect(m.adopt({ deviceMemory })).rejects.toMatchObject({ code: "EINVAL" });
    }
  });
});

describe("a lost device", () => {
  test("what it held alone is reported, never zero; the rest of the memory works", async () => {
    await using m = new Machine();
    const { gpu, device } = await m.adopt();
    const data = await m.mm.mmap({ length: 8192, name: "mine" });
    const kernel = await device.kernel(INCREMENT);
    await kernel.dispatch({ bind: { data: data.range(0, 4096) }, workgroups: 1 });
    gpu.destroy();
    await gpu.lost;
    await expect((async () => await data.lease("r"))()).rejects.toMatchObject({ code: "EHWPOISON" });
    (await data.lease("rw", { offset: 4096 })).release();
    await expect(increment(kernel, data)).rejects.toMatchObject({ code: "ENODEV" });
    await expect(device.kernel(INCREMENT)).rejects.toMatchObject({ code: "ENODEV" });
    validateMm(m.mm);
    await m.mm.munmap(data.start, 4096);
    const anew = await m.mm.mmap({ addr: data.start, length: 4096, fixed: true });
    expect((await wordsOf(anew))[0]).toBe(0);
  });

  test("ENODEV: lost while a kernel runs, and what it wrote is lost with it", async () => {
    await using m = new Machine();
    const { gpu, device } = await m.adopt();
    const data = await m.mm.mmap({ length: 4096 });
    const kernel = await device.kernel(SLOW);
    const running = kernel.dispatch({ bind: { data }, params: { turns: 10_000_000 }, workgroups: 1 });
    await untilSubmitted(m);
    gpu.destroy();
    await expect(running).rejects.toMatchObject({ code: "ENODEV" });
    await expect(wordsOf(data)).rejects.toMatchObject({ code: "EHWPOISON" });
    validateMm(m.mm);
  });

  test("at any moment of a dispatch: memory is whole or reported lost, and nothing is left in transit", async () => {
    for (let delay = 0; delay < 24; delay++) {
      await using m = new Machine();
      const { gpu, device } = await m.adopt();
      const data = await m.mm.mmap({ length: LENGTH });
      await data.write(0, new Uint32Array(LENGTH / 4).fill(5));
      const kernel = await device.kernel(INCREMENT);
      const running = kernel.dispatch({ bind: { data }, workgroups: groupsFor(LENGTH) }).then(
        () => "done",
        (error: unknown) => error,
      );
      for (let i = 0; i < delay; i++) {
        await Promise.resolve();
      }
      gpu.destroy();
      const outcome = await running;
      if (outcome !== "done") {
        expect(outcome).toMatchObject({ code: "ENODEV" });
      }
      const words = await wordsOf(data).catch((error: unknown) => error);
      if (words instanceof Uint32Array) {
        expect([...new Set(words)]).toEqual([outcome === "done" ? 6 : 5]);
      } else {
        expect(words).toMatchObject({ code: "EHWPOISON" });
      }
      validateMm(m.mm);
    }
  });

  test("spaces exit and the driver is unloaded as if it were there", async () => {
    const m = new Machine();
    const { gpu, device } = await m.adopt();
    const data = await m.mm.mmap({ length: LENGTH });
    await increment(await device.kernel(INCREMENT), data);
    gpu.destroy();
    await gpu.lost;
    await m.mm[Symbol.asyncDispose]();
    await m[Symbol.asyncDispose]();
    expect(m.memory).toBeInstanceOf(PhysicalMemory);
    expect(m.memory.blocksInUse).toBe(0);
  });
});
