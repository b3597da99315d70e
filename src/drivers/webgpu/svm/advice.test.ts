import { describe, expect, test } from "vitest";
import type { VirtAddr } from "../../../base/index.ts";
import type { Mapping } from "../../../mm/index.ts";
import { type Machine, wordsOf } from "../../../testing/machine.ts";
import { SVM_INCREMENT, SVM_PAGE, SVM_SUM, svmMachine } from "../../../testing/svm-kernels.ts";
import { Advice, type SvmAdvice } from "./advice.ts";
import { pageOfAddr } from "./page-entry.ts";
import type { SvmTable } from "./svm-table.ts";

/** Writes the first word of each device page but every eighth. */
const MOST = /* wgsl */ `
struct Params { data: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@compute @workgroup_size(16) fn main(@builtin(global_invocation_id) id: vec3u) {
  if (id.x % 8u != 7u) { pm_store_u32(params.data + id.x * 4096u, 1u); }
}`;

async function sumOver(m: Machine, data: Mapping) {
  const out = await m.mm.mmap({ length: 4 });
  const kernel = await m.device.kernel(SVM_SUM);
  const words = data.length / 4;
  const params = { data: data.svmAddress, words, out: out.svmAddress };
  return () => kernel.dispatch({ mm: m.mm, params, workgroups: words / 64 });
}

describe("preferred-location", () => {
  /** Bytes that a second pass over `hot` moves, after others have passed through the pool. */
  async function secondPass(advice: SvmAdvice): Promise<number> {
    await using m = await svmMachine(24);
    const hot = await m.mm.mmap({ length: 8 * SVM_PAGE, name: "hot" });
    await hot.write(0, new Uint8Array(hot.length).fill(1));
    const cold = await m.mm.mmap({ length: 48 * SVM_PAGE, name: "cold" });
    await cold.write(0, new Uint8Array(cold.length).fill(1));
    await m.device.advise(hot, advice);
    const overHot = await sumOver(m, hot);
    const overCold = await sumOver(m, cold);
    await overHot();
    expect((await overCold()).evictions).toBeGreaterThan(0);
    return (await overHot()).bytesToDevice;
  }

  test("keeps a range on the device while others pass through the pool", async () => {
    expect(await secondPass("preferred-location")).toBeLessThan(SVM_PAGE);
    expect(await secondPass("none")).toBeGreaterThan(4 * SVM_PAGE);
  });

  test("gives way when nothing else can", async () => {
    await using m = await svmMachine(8);
    const data = await m.mm.mmap({ length: 32 * SVM_PAGE });
    await m.device.advise(data, "preferred-location");
    const kernel = await m.device.kernel(SVM_INCREMENT);
    const words = data.length / 4;
    await kernel.dispatch({ mm: m.mm, params: { data: data.svmAddress, words }, workgroups: words / 64 });
    expect(new Set(await wordsOf(data))).toEqual(new Set([1]));
  });

  test("ends with its mapping", async () => {
    await using m = await svmMachine(24);
    const data = await m.mm.mmap({ length: 8 * SVM_PAGE });
    await m.device.advise(data, "preferred-location");
    await m.device.prefetch(data);
    const table = (await m.device.mirrorOf(m.mm)).frames as SvmTable;
    const first = pageOfAddr(data.start);
    const advice = () => Array.from({ length: 8 }, (_, i) => table.adviceOf(first + i));
    const { None: no, PreferredLocation: yes } = Advice;
    // A part of a device page is still mapped.
    await m.mm.munmap(data.start, 4096);
    expect(advice()).toEqual(Array(8).fill(yes));
    await m.device.prefetch(data.range(SVM_PAGE, SVM_PAGE));
    await m.mm.munmap((data.start + 4096) as VirtAddr, SVM_PAGE);
    expect(advice()).toEqual([no, ...Array(7).fill(yes)]);
    await m.mm.mmap({ addr: data.start, length: SVM_PAGE, fixed: true });
    expect(advice()[0]).toBe(no);
    await m.mm.munmap(data.start, data.length);
    expect(advice()).toEqual(Array(8).fill(no));
  });
});

describe("read-mostly", () => {
  /** Bytes that the CPU's look at a page that no kernel wrote, among written ones, brings home. */
  async function lookAtUnwritten(advice: SvmAdvice): Promise<number> {
    await using m = await svmMachine(64);
    const data = await m.mm.mmap({ length: 16 * SVM_PAGE, name: "data" });
    await data.write(0, new Uint8Array(data.length).fill(1));
    await m.device.advise(data, advice);
    const kernel = await m.device.kernel(MOST);
    await kernel.dispatch({ mm: m.mm, params: { data: data.svmAddress }, workgroups: 1 });
    const before = m.device.stats().bytesToHost;
    expect((await data.read(7 * SVM_PAGE, 4))[0]).toBe(1);
    return m.device.stats().bytesToHost - before;
  }

  test("pages beside written ones come as copies, so that the CPU has them too", async () => {
    expect(await lookAtUnwritten("read-mostly")).toBe(0);
    expect(await lookAtUnwritten("none")).toBe(4096);
  });
});

test("what is no advice, and memory that kernels cannot reach", async () => {
  await using m = await svmMachine(8);
  const data = await m.mm.mmap({ length: 4 });
  await expect(m.device.advise(data, "always" as SvmAdvice)).rejects.toThrow(/EINVAL.*read-mostly/);
  const far = await m.mm.mmap({ addr: 2 ** 30, length: 4096, fixed: true });
  await expect(m.device.advise(far, "none")).rejects.toMatchObject({ code: "EINVAL" });
});
