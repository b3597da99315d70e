/** Pages in every state that a prefetch or a fault may meet them in. */
import { describe, expect, test } from "vitest";
import { PAGE_SIZE } from "../../../base/index.ts";
import { type Mapping, validateMm } from "../../../mm/index.ts";
import { INCREMENT, increment, Machine, wordsOf } from "../../../testing/machine.ts";
import { SVM_INCREMENT, SVM_PAGE, svmMachine } from "../../../testing/svm-kernels.ts";
import type { WebGpuKernel } from "../kernel.ts";

async function filled(m: Machine, pages: number, value: number): Promise<Mapping> {
  const data = await m.mm.mmap({ length: pages * SVM_PAGE, name: "data" });
  await data.write(0, new Uint32Array(data.length / 4).fill(value));
  return data;
}

function add(kernel: WebGpuKernel, data: Mapping) {
  const words = data.length / 4;
  return kernel.dispatch({ mm: data.mm, params: { data: data.svmAddress, words }, workgroups: words / 64 });
}

describe("prefetch", () => {
  test("brings what is not there, once, and makes it the device's own when it is to be written", async () => {
    await using m = await svmMachine();
    const data = await filled(m, 4, 3);
    const kernel = await m.device.kernel(SVM_INCREMENT);
    expect(await m.device.prefetch(data.range(SVM_PAGE, 5 * PAGE_SIZE))).toBe(2);
    expect(await m.device.prefetch(data)).toBe(2);
    expect(await m.device.prefetch(data)).toBe(0);
    expect(await m.device.prefetch(data, { write: true })).toBe(4);
    expect(await m.device.prefetch(data, { write: true })).toBe(0);
    const stats = await add(kernel, data);
    expect([stats.rounds, stats.deviceFaults, stats.bytesToDevice]).toEqual([1, 0, 0]);
    expect(new Set(await wordsOf(data))).toEqual(new Set([4]));
  });

  test("takes pages from extents and from other devices", async () => {
    await using m = await svmMachine();
    const other = await m.open();
    const data = await filled(m, 4, 0);
    await increment(await m.device.kernel(INCREMENT), data);
    expect(await m.device.prefetch(data, { write: true })).toBe(4);
    expect(await other.prefetch(data)).toBe(4);
    expect(await m.device.prefetch(data)).toBe(0);
    expect(await other.prefetch(data, { write: true })).toBe(4);
    await add(await m.device.kernel(SVM_INCREMENT), data);
    expect(new Set(await wordsOf(data))).toEqual(new Set([2]));
    validateMm(m.mm);
  });

  test("brings as much as the pool holds, and skips holes and what may not be written", async () => {
    await using m = await svmMachine(4);
    const data = await filled(m, 8, 1);
    expect(await m.device.prefetch(data)).toBe(4);
    await data.mm.munmap(data.start, 6 * SVM_PAGE);
    await data.mm.mprotect(data.start + 6 * SVM_PAGE, SVM_PAGE, "r");
    expect(await m.device.prefetch(data, { write: true })).toBe(1);
  });

  test("says why it cannot", async () => {
    const m = new Machine();
    await m.open({ deviceMemory: 9 * SVM_PAGE });
    const data = await filled(m, 2, 1);
    {
      using _lease = await data.lease("rw");
      await expect(m.device.prefetch(data, { timeoutMs: 10 })).rejects.toThrow(/EBUSY.*lease on data/);
    }
    const far = await m.mm.mmap({ addr: 2 ** 30, length: PAGE_SIZE, fixed: true });
    await expect(m.device.prefetch(far)).rejects.toMatchObject({ code: "EINVAL" });
    await expect(m.device.prefetch(data, { signal: AbortSignal.abort() })).rejects.toMatchObject({ code: "EINTR" });
    const { gpu, device } = await m.adopt();
    await device.prefetch(data, { write: true });
    gpu.destroy();
    await gpu.lost;
    await expect(device.prefetch(data)).rejects.toMatchObject({ code: "ENODEV" });
    await expect(m.device.prefetch(data)).rejects.toMatchObject({ code: "EHWPOISON" });
    await m.mm[Symbol.asyncDispose]();
    await expect(m.device.prefetch(data)).rejects.toMatchObject({ code: "ESRCH" });
    await m.driver.unload();
    await expect(m.device.prefetch(data)).rejects.toMatchObject({ code: "ENODEV" });
    await m[Symbol.asyncDispose]();
  });
});

describe("addresses that got other pages", () => {
  test("memory that was unmapped and mapped anew while the device had it", async () => {
    await using m = await svmMachine(8);
    const kernel = await m.device.kernel(SVM_INCREMENT);
    const first = await filled(m, 4, 10);
    await add(kernel, first);
    await m.mm.munmap(first.start, first.length);
    const second = await m.mm.mmap({ addr: first.start, length: first.length, fixed: true });
    await add(kernel, second);
    expect(new Set(await wordsOf(second))).toEqual(new Set([1]));
    const third = await m.mm.mmap({ addr: first.start, length: first.length, fixed: true });
    await third.write(0, new Uint32Array([7]));
    await add(kernel, third);
    expect([...(await wordsOf(third)).subarray(0, 2)]).toEqual([8, 1]);
    validateMm(m.mm);
  });

  test("device-private pages that mremap moved, and what came in their place", async () => {
    await using m = await svmMachine(16);
    const kernel = await m.device.kernel(SVM_INCREMENT);
    const data = await filled(m, 3, 5);
    await add(kernel, data);
    const neighbour = await m.mm.mmap({ addr: data.end, length: SVM_PAGE, fixed: true });
    const from = data.start;
    const moved = await m.mm.mremap(data.start, data.length, 4 * SVM_PAGE);
    expect(moved.start).not.toBe(from);
    const instead = await m.mm.mmap({ addr: from, length: 3 * SVM_PAGE, fixed: true });
    await add(kernel, instead);
    await add(kernel, neighbour);
    await add(kernel, moved);
    const words = await wordsOf(moved);
    expect(new Set(words.subarray(0, (3 * SVM_PAGE) / 4))).toEqual(new Set([7]));
    expect(new Set(words.subarray((3 * SVM_PAGE) / 4))).toEqual(new Set([1]));
    expect(new Set(await wordsOf(instead))).toEqual(new Set([1]));
    validateMm(m.mm);
  });
});

describe("two devices on one space", () => {
  test("both keep copies of what both read, and one at a time owns what it writes", async () => {
    await using m = await svmMachine(16);
    const other = await m.open({ deviceMemory: 17 * SVM_PAGE });
    const data = await filled(m, 4, 0);
    await m.device.prefetch(data);
    await other.prefetch(data);
    expect([await m.device.prefetch(data), await other.prefetch(data)]).toEqual([0, 0]);
    const kernels = [await m.device.kernel(SVM_INCREMENT), await other.kernel(SVM_INCREMENT)];
    for (let round = 0; round < 6; round++) {
      await add(kernels[round % 2], data);
    }
    await Promise.all(kernels.map((kernel) => add(kernel, data)));
    // Load and store of one invocation are in one run, and the page belongs to one device while that lasts.
    expect(new Set(await wordsOf(data))).toEqual(new Set([8]));
    validateMm(m.mm);
  });
});
