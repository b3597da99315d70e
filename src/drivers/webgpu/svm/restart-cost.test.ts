/** What it costs that an invocation that missed pages runs again from its beginning, and how that is kept small. */
import { afterEach, expect, test, vi } from "vitest";
import { wordsOf } from "../../../testing/machine.ts";
import { SVM_GREEDY, SVM_PAGE, svmMachine } from "../../../testing/svm-kernels.ts";
import { SvmKernel } from "./svm-kernel.ts";

afterEach(() => {
  vi.restoreAllMocks();
});

/** Follows a list of nodes, each in another block of 2 MiB: its next one, and a value. */
const CHAIN = `
struct Params { first: u32, out: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@compute @workgroup_size(1) fn main() {
  var sum = 0u;
  for (var at = params.first; at != 0u; at = pm_load_u32(at)) {
    sum = sum * 3u + pm_load_u32(at + 1u);
    let turn = pm_atomic_add_u32(params.out, 1u);
    pm_store_u32(params.out + 1u + turn, sum);
  }
}`;
const NODES = 30;
const GAP = 129 * SVM_PAGE;

/** Follows the list with a clock by which each look at it takes so many milliseconds. Whether resume points were made. */
async function chase(ms: number): Promise<{ readonly rounds: number; readonly isResumed: boolean }> {
  await using m = await svmMachine(2 * NODES);
  const nodes = await m.mm.mmap({ length: NODES * GAP, name: "nodes" });
  const out = await m.mm.mmap({ length: SVM_PAGE, name: "out" });
  const sums: number[] = [];
  for (let i = 0; i < NODES; i++) {
    const next = i + 1 < NODES ? nodes.svmAddress + ((i + 1) * GAP) / 4 : 0;
    await nodes.write(i * GAP, Uint32Array.of(next, i * 1001));
    sums.push((Math.imul(sums.at(-1) ?? 0, 3) + i * 1001) >>> 0);
  }
  const kernel = await m.device.kernel(CHAIN);
  if (!(kernel instanceof SvmKernel)) {
    throw new Error("the kernel follows pointers");
  }
  const resuming = vi.spyOn(kernel.compiled, "resuming");
  let now = Date.now();
  vi.spyOn(Date, "now").mockImplementation(() => {
    now += ms;
    return now;
  });
  const { rounds } = await kernel.dispatch({
    mm: m.mm,
    params: { first: nodes.svmAddress, out: out.svmAddress },
    workgroups: 1,
  });
  expect([...(await wordsOf(out)).slice(0, NODES + 1)]).toEqual([NODES, ...sums]);
  return { rounds, isResumed: resuming.mock.calls.length > 0 };
}

test("an invocation that misses many pages tells of twice as many in each run that gets nothing done", async () => {
  await using m = await svmMachine();
  const pages = 700;
  const data = await m.mm.mmap({ length: pages * SVM_PAGE, name: "data" });
  const out = await m.mm.mmap({ length: SVM_PAGE, name: "out" });
  for (let page = 0; page < pages; page += 50) {
    await data.write(page * SVM_PAGE, Uint32Array.of(page));
  }
  const kernel = await m.device.kernel(SVM_GREEDY);
  const { rounds } = await kernel.dispatch({
    mm: m.mm,
    params: { data: data.svmAddress, pages, out: out.svmAddress },
    workgroups: 1,
  });
  expect((await wordsOf(out))[0]).toBe((14 * 13 * 50) / 2);
  expect(rounds).toBeLessThanOrEqual(6);
});

test("when running again from the beginning has taken long, an invocation that fits the pool goes on from resume points", async () => {
  const { isResumed, rounds } = await chase(100);
  expect(isResumed).toBe(true);
  expect(rounds).toBeGreaterThan(8);
});

test("while running again takes next to no time, no resume points are made", async () => {
  const { isResumed, rounds } = await chase(0);
  expect(isResumed).toBe(false);
  expect(rounds).toBeGreaterThan(8);
});
