import { expect, test } from "vitest";
import { openTestGpu, useTestGpu } from "../../testing/gpu.ts";
import { checkWorkgroups, compileKernel } from "./compile.ts";
import { createGpuBuffer } from "./gpu-buffer.ts";
import { TransferEngine } from "./transfer.ts";
import { BufferUsage } from "./usage.ts";

const gpu = useTestGpu("compile");

test("a kernel in a group other than 0 compiles and runs", async () => {
  const kernel = await compileKernel(
    gpu(),
    `@group(2) @binding(3) var<storage, read_write> data: array<u32>;
     @compute @workgroup_size(4) fn main(@builtin(global_invocation_id) id: vec3u) { data[id.x] = id.x * 3u; }`,
  );
  const data = await createGpuBuffer(gpu(), {
    label: "data",
    bytes: 16,
    usage: BufferUsage.Storage | BufferUsage.CopySrc,
  });
  const engine = new TransferEngine(gpu());
  const batch = engine.begin();
  const pass = batch.encoder.beginComputePass();
  pass.setPipeline(kernel.pipeline);
  kernel.groupLayouts.forEach((layout, group) => {
    const entries = kernel.reflection.bindings
      .filter((binding) => binding.group === group)
      .map(({ binding }) => ({ binding, resource: { buffer: data.buffer } }));
    if (entries.length > 0) {
      pass.setBindGroup(group, gpu().device.createBindGroup({ layout, entries }));
    }
  });
  pass.dispatchWorkgroups(1);
  pass.end();
  await batch.submit();
  const words = new Uint32Array(4);
  await engine.readback([
    { buffer: data.buffer, offset: 0, bytes: 16, take: (src) => new Uint8Array(words.buffer).set(src) },
  ]);
  expect([...words]).toEqual([0, 3, 6, 9]);
  engine.destroy();
  data.destroy();
});

test("EINVAL: a WGSL error has line, column, message and the source line", async () => {
  await expect(
    compileKernel(gpu(), "@compute @workgroup_size(1)\nfn main() {\n  let a = ;\n}", { name: "broken.wgsl" }),
  ).rejects.toMatchObject({
    code: "EINVAL",
    op: "broken.wgsl",
    why: "3:11 missing initializer for 'let' declaration, in: let a = ;",
  });
  await expect(compileKernel(gpu(), "\r\n\r\nfn main() { let a: u32 = 1.5; }")).rejects.toMatchObject({
    code: "EINVAL",
    why: expect.stringMatching(/^3:\d+ .*in: fn main/),
  });
});

test("EINVAL: empty source has no entry point", async () => {
  await expect(compileKernel(gpu(), "")).rejects.toMatchObject({
    code: "EINVAL",
    why: expect.stringContaining("no @compute entry point"),
  });
});

test("EINVAL: a workgroup larger than the adapter's is refused with the GPU's reason", async () => {
  await expect(compileKernel(gpu(), "@compute @workgroup_size(1024, 64) fn main() {}")).rejects.toMatchObject({
    code: "EINVAL",
    why: expect.stringMatching(/^the GPU refuses the kernel: .*1024/),
  });
});

test("EINVAL: more storage buffers than the adapter has says how many", async () => {
  const count = gpu().limits.maxStorageBuffersPerShaderStage + 1;
  const list = Array.from({ length: count }, (_, i) => i);
  const wgsl = `${list.map((i) => `@group(0) @binding(${i}) var<storage, read_write> b${i}: array<u32>;`).join("\n")}
    @compute @workgroup_size(1) fn main() { ${list.map((i) => `b${i}[0] = 1u;`).join(" ")} }`;
  await expect(compileKernel(gpu(), wgsl)).rejects.toMatchObject({
    code: "EINVAL",
    why: expect.stringContaining(`uses ${count} storage buffers, this adapter allows ${count - 1}`),
  });
});

test("EINVAL: workgroup counts of zero, over the limit, or no integers", () => {
  const { limits } = gpu();
  const max = limits.maxComputeWorkgroupsPerDimension;
  expect(checkWorkgroups(limits, 7)).toEqual([7, 1, 1]);
  expect(checkWorkgroups(limits, [1, max])).toEqual([1, max, 1]);
  expect(checkWorkgroups(limits, [1, 1, 2])).toEqual([1, 1, 2]);
  for (const bad of [0, -1, 1.5, Number.NaN, max + 1, [1, 0], [1, 1, max + 1], [], [1, 1, 1, 1]]) {
    expect(() => checkWorkgroups(limits, bad as never)).toThrowError(/dispatch: EINVAL: .*1 to \d+/);
  }
  expect(() => checkWorkgroups(limits, [1, 1, max + 1])).toThrowError(
    new RegExp(`${max + 1} workgroups in z: use an integer from 1 to ${max}`),
  );
});

test("ENODEV and EINTR: compiling on a lost device, and with a fired signal", async () => {
  const lost = await openTestGpu("lost");
  const compiling = compileKernel(lost.gpu, "@compute @workgroup_size(1) fn main() {}");
  lost.end();
  await expect(compiling).rejects.toMatchObject({ code: "ENODEV" });
  await expect(compileKernel(lost.gpu, "")).rejects.toMatchObject({
    code: "ENODEV",
    why: 'the GPU device "lost" is lost (it was destroyed): open another one',
  });
  await expect(
    compileKernel(gpu(), "@compute @workgroup_size(1) fn main() {}", { signal: AbortSignal.abort() }),
  ).rejects.toMatchObject({ code: "EINTR" });
});

test("two kernels compiled at once do not get each other's errors", async () => {
  const results = await Promise.allSettled([
    compileKernel(gpu(), "@compute @workgroup_size(1) fn good() {}"),
    compileKernel(gpu(), "@compute @workgroup_size(1) fn bad() { let }"),
    compileKernel(gpu(), "@compute @workgroup_size(9999) fn big() {}"),
    compileKernel(gpu(), "@compute @workgroup_size(2) fn fine() {}"),
  ]);
  expect(results.map((result) => result.status)).toEqual(["fulfilled", "rejected", "rejected", "fulfilled"]);
});
