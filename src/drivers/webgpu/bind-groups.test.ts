import { expect, test, vi } from "vitest";
import { COPY, groupsFor, openMachine, wordsOf } from "../../testing/machine.ts";
import { SVM_PAGE } from "../../testing/svm-kernels.ts";

const SVM_ADD_BOUND = /* wgsl */ `
struct Params { data: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> sums: array<u32>;
@compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3u) {
  sums[id.x] += pm_load_u32(params.data + id.x);
}`;

test("a bind group is made once for each buffer and offset that a kernel is dispatched to in turn", async () => {
  await using m = await openMachine();
  const make = vi.spyOn(m.device.gpu.device, "createBindGroup");
  const [one, two] = [await m.mm.mmap({ length: 4 * 4096 }), await m.mm.mmap({ length: 4 * 4096 })];
  await one.write(0, new Uint32Array(one.length / 4).fill(7));
  const kernel = await m.device.kernel(COPY);
  const copy = async (src: number, dst: number) => {
    const bind = { src: one.range(src, 4096), dst: two.range(dst, 4096) };
    await kernel.dispatch({ bind, workgroups: groupsFor(4096) });
  };
  // So that both mappings have their buffers.
  await kernel.dispatch({ bind: { src: one, dst: two }, workgroups: 1 });
  make.mockClear();
  for (let turn = 0; turn < 3; turn++) {
    await copy(0, 4096);
    await copy(0, 8192);
    await copy(4096, 8192);
  }
  expect(make).toHaveBeenCalledTimes(3);
  expect(await wordsOf(two)).toEqual(
    new Uint32Array(two.length / 4).map((_, i) => (i < 64 || (i >= 1024 && i < 3072) ? 7 : 0)),
  );
});

test("a kernel that follows pointers and has bound ranges finds its bind groups again, too", async () => {
  await using m = await openMachine();
  const data = await m.mm.mmap({ length: SVM_PAGE });
  await data.write(0, new Uint32Array(data.length / 4).fill(3));
  const sums = await m.mm.mmap({ length: SVM_PAGE });
  const kernel = await m.device.kernel(SVM_ADD_BOUND);
  const add = () =>
    kernel.dispatch({ mm: m.mm, bind: { sums }, params: { data: data.svmAddress }, workgroups: groupsFor(SVM_PAGE) });
  await add();
  await add();
  const make = vi.spyOn(m.device.gpu.device, "createBindGroup");
  await add();
  expect(make).not.toHaveBeenCalled();
  expect(new Set(await wordsOf(sums))).toEqual(new Set([9]));
});
