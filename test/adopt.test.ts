/** A WebAssembly program's heap as a mapping: pointers inside its data are valid on the GPU. */
import { describe, expect, test } from "vitest";
import { listProgram } from "../examples/wasm-list.ts";
import { PAGE_SIZE } from "../src/base/index.ts";
import { open, openShared, probeUserfaultfd } from "../src/node.ts";

const report = probeUserfaultfd();
if (!report.works) {
  console.warn(`adopting memory on userfaultfd is skipped: ${report.why}`);
}

/** A list of { next, value } whose pointers count bytes from a heap that begins at word `heap`. */
const LIST = /* wgsl */ `
struct Params { heap: u32, first: u32, sum: u32 }
@group(0) @binding(0) var<uniform> params: Params;`;

const SUM_LIST = /* wgsl */ `${LIST}
@compute @workgroup_size(1) fn main() {
  var sum = 0u;
  var node = params.first;
  while (node != 0u) {
    sum += pm_load_u32(params.heap + node / 4u + 1u);
    node = pm_load_u32(params.heap + node / 4u);
  }
  pm_store_u32(params.sum, sum);
}`;

/** Invocation i doubles the value of node i. */
const DOUBLE_LIST = /* wgsl */ `${LIST}
@compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3u) {
  var node = params.first;
  for (var i = 0u; i < id.x && node != 0u; i++) { node = pm_load_u32(params.heap + node / 4u); }
  if (node != 0u) {
    let at = params.heap + node / 4u + 1u;
    pm_store_u32(at, pm_load_u32(at) * 2u);
  }
}`;

describe.each(["software", "userfaultfd"] as const)("an adopted WebAssembly heap, on %s", (mmu) => {
  test.skipIf(mmu === "userfaultfd" && !report.works)(
    "a kernel walks the program's list, the program reads the results, and the heap may grow",
    async () => {
      const pm = await openShared({ mmu });
      const memory = new WebAssembly.Memory({ initial: 1, maximum: 64 });
      const program = listProgram(memory, 64);
      const first = program.build(50, 100);
      const heap = await pm.mm.adopt(memory, { maximum: 64 * 65_536, name: "heap" });
      const sumList = await pm.device.kernel(SUM_LIST);
      const doubleList = await pm.device.kernel(DOUBLE_LIST);
      const sum = await pm.mm.mmap({ length: PAGE_SIZE, name: "sum" });
      const walk = async (node: number) => {
        const params = { heap: heap.svmAddress, first: node, sum: sum.svmAddress };
        await sumList.dispatch({ mm: pm.mm, params, workgroups: 1 });
        await doubleList.dispatch({ mm: pm.mm, params, workgroups: 1 });
        return new Uint32Array((await sum.read(0, 4)).buffer)[0];
      };
      expect(await walk(first)).toBe((50 * 51) / 2);
      let second = 0;
      {
        // On the software MMU a program needs a lease; it is good for what the heap has, so that it grows first.
        memory.grow(10);
        using _lease = await heap.lease("rw");
        expect(program.sum(first)).toBe(50 * 51);
        second = program.build(40, 5000);
        expect(memory.buffer.byteLength).toBeGreaterThan(3 * 65_536);
      }
      expect(await walk(second)).toBe((40 * 41) / 2);
      await heap.munmap();
      expect([program.sum(first), program.sum(second)]).toEqual([50 * 51, 40 * 41]);
      const third = program.build(10, 70_000);
      expect(program.sum(third)).toBe(55);
      await pm.close();
      expect(program.sum(second)).toBe(40 * 41);
    },
  );
});

test("on software what a kernel wrote behind a heap's end is zeros when it is sent again, and fails nothing", async () => {
  await using pm = await open({ deviceMemory: 2 ** 20 });
  const memory = new WebAssembly.Memory({ initial: 1, maximum: 4 });
  const heap = await pm.mm.adopt(memory, { maximum: 4 * 65_536 });
  const sum = await pm.mm.mmap({ length: PAGE_SIZE });
  const other = await pm.mm.mmap({ length: 2 ** 22 });
  const kernel = (statement: string) =>
    pm.device.kernel(/* wgsl */ `
struct Params { data: u32, sum: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3u) {
  let page = params.data + id.x * ${PAGE_SIZE / 4}u;
  ${statement}
}`);
  const write = await kernel("pm_store_u32(page, 3u);");
  const add = await kernel("pm_atomic_add_u32(params.sum, pm_load_u32(page));");
  const params = { data: heap.svmAddress, sum: sum.svmAddress };
  await write.dispatch({ mm: pm.mm, params, workgroups: 1 });
  // Takes the frames of the heap, which goes home.
  for (let part = 0; part < 4; part++) {
    const data = other.svmAddress + part * (other.length / 16);
    await write.dispatch({ mm: pm.mm, params: { data, sum: 0 }, workgroups: 4 });
  }
  await pm.device.prefetch(other.range(0, 900 * 1024));
  await add.dispatch({ mm: pm.mm, params, workgroups: 1 });
  expect(new Uint32Array((await sum.read(0, 4)).buffer)[0]).toBe((3 * 65_536) / PAGE_SIZE);
});
