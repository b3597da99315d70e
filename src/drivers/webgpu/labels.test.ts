/** Tools that show GPU work name its objects by their labels. */
import { expect, test, vi } from "vitest";
import { openMachine, SUM } from "../../testing/machine.ts";

const MAKERS = [
  "createBuffer",
  "createBindGroup",
  "createBindGroupLayout",
  "createPipelineLayout",
  "createShaderModule",
  "createComputePipelineAsync",
  "createCommandEncoder",
] as const;

const SVM_SUM = /* wgsl */ `
struct Params { data: u32, out: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3u) {
  pm_store_u32(params.out + id.x, pm_load_u32(params.data + id.x * 1024u));
}`;

test("each GPU object that kernels of both modes need has a label", async () => {
  await using m = await openMachine();
  const { device } = m.device.gpu;
  const spies = MAKERS.map((maker) => vi.spyOn(device, maker));
  const data = await m.mm.mmap({ length: 64 * 4096 });
  const sums = await m.mm.mmap({ length: 4096 });
  const bound = await m.device.kernel(SUM, { name: "bound sum" });
  await bound.dispatch({ bind: { data, sums }, params: { scale: 1 }, workgroups: 1024 });
  const pointed = await m.device.kernel(SVM_SUM, { name: "pointed sum" });
  await pointed.dispatch({ mm: m.mm, params: { data: data.svmAddress, out: sums.svmAddress }, workgroups: 1 });
  await sums.read(0, 4);
  for (const [i, spy] of spies.entries()) {
    const labels = spy.mock.calls.map(([descriptor]) => descriptor?.label);
    expect(labels.length, MAKERS[i]).toBeGreaterThan(0);
    expect(labels, MAKERS[i]).not.toContain(undefined);
    expect(labels, MAKERS[i]).not.toContain("");
  }
  const groups = vi.mocked(device.createBindGroup).mock.calls.map(([descriptor]) => descriptor.label);
  expect(groups).toContainEqual(expect.stringContaining("bound sum"));
  expect(groups).toContainEqual(expect.stringContaining("pointed sum"));
});
