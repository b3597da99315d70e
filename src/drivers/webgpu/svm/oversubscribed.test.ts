import { expect, test } from "vitest";
import { wordsOf } from "../../../testing/machine.ts";
import { SVM_PAGE, svmMachine } from "../../../testing/svm-kernels.ts";

/** Adds 1 to the first word of each device page. */
const TOUCH = /* wgsl */ `
struct Params { data: u32, pages: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3u) {
  let at = params.data + id.x * 4096u;
  if (id.x < params.pages) { pm_store_u32(at, pm_load_u32(at) + 1u); }
}`;

test("memory eight times the pool goes through it once each way, in few and large copies", async () => {
  await using m = await svmMachine(128);
  const pages = 1024;
  const data = await m.mm.mmap({ length: pages * SVM_PAGE });
  await data.write(0, new Uint8Array(data.length).fill(1));
  const kernel = await m.device.kernel(TOUCH);
  const run = () => kernel.dispatch({ mm: m.mm, params: { data: data.svmAddress, pages }, workgroups: pages / 64 });
  await run();
  for (let again = 0; again < 2; again++) {
    const before = { ...m.device.transfer.stats };
    const stats = await run();
    const { bytesToDevice, bytesToHost, copies } = m.device.transfer.stats;
    expect(stats.deviceFaults).toBeLessThanOrEqual(pages * 1.1);
    expect(bytesToDevice - before.bytesToDevice).toBeLessThanOrEqual(data.length * 1.1);
    expect(bytesToHost - before.bytesToHost).toBeLessThanOrEqual(data.length * 1.1);
    expect(copies - before.copies).toBeLessThan(pages / 4);
  }
  expect((await wordsOf(data))[0]).toBe(0x0101_0104);
});

/** Workgroups 0 and 1 read 9 neighbouring device pages each, workgroup 2 reads 12 pages elsewhere. */
const STREAM_THEN_JUMP = /* wgsl */ `
struct Params { data: u32, out: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@compute @workgroup_size(1) fn main(@builtin(workgroup_id) id: vec3u) {
  let first = select(id.x * 9u, 40u, id.x == 2u);
  var sum = 0u;
  for (var i = 0u; i < select(9u, 12u, id.x == 2u); i++) { sum += pm_load_u32(params.data + (first + i) * 4096u); }
  pm_store_u32(params.out + id.x, sum);
}`;

test("a wrong guess of what comes next takes no room from what is asked for", async () => {
  await using m = await svmMachine(16);
  const data = await m.mm.mmap({ length: 100 * SVM_PAGE });
  await data.write(0, new Uint32Array(data.length / 4).fill(1));
  const out = await m.mm.mmap({ length: 12 });
  const kernel = await m.device.kernel(STREAM_THEN_JUMP);
  await kernel.dispatch({ mm: m.mm, params: { data: data.svmAddress, out: out.svmAddress }, workgroups: 3 });
  expect([...(await wordsOf(out))].slice(0, 3)).toEqual([9, 9, 12]);
});
