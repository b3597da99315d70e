/** What the page of this run may do, so that the other suites are known to have run where their names say. */
import { expect, inject, test } from "vitest";
import { KernelError, open, PageMirror } from "../../src/browser.ts";

test("windows are shared memory exactly where the page is cross-origin isolated", async () => {
  expect(globalThis.crossOriginIsolated).toBe(inject("isolated"));
  await using pm = await open();
  for (const length of [4096, 64 * 2 ** 20]) {
    const data = await pm.mm.mmap({ length });
    using lease = await data.lease("rw");
    expect(Object.prototype.toString.call(lease.buffer)).toBe(
      globalThis.crossOriginIsolated ? "[object SharedArrayBuffer]" : "[object ArrayBuffer]",
    );
    lease.u32[5] = 7;
    expect(() => structuredClone(lease.buffer, { transfer: [lease.buffer as ArrayBuffer] })).toThrow();
    expect(lease.u32[5]).toBe(7);
  }
});

test("the README's first program runs in a page", async () => {
  await using pm = await open();
  expect(pm.adapter).toMatchObject({ kind: "software", backend: "browser" });
  const data = await pm.mm.mmap({ length: 64 * 2 ** 20, name: "data" });
  const sums = await pm.mm.mmap({ length: 64 * 2 ** 10, name: "sums" });
  const kernel = await pm.device.kernel(`
    @group(0) @binding(0) var<storage, read> data: array<u32>;
    @group(0) @binding(1) var<storage, read_write> sums: array<u32>;
    @compute @workgroup_size(64) fn sum_pages(@builtin(global_invocation_id) id: vec3u) {
      sums[id.x] = 0;
      for (var i = 0u; i < 1024; i++) { sums[id.x] += data[id.x * 1024 + i]; }
    }`);
  {
    using all = await data.lease("rw");
    all.u32.fill(1);
  }
  const first = await kernel.dispatch({ bind: { data, sums }, workgroups: 256 });
  await data.write(7 * 4096, Uint32Array.of(100));
  const second = await kernel.dispatch({ bind: { data, sums }, workgroups: 256 });
  expect([first.bytesToDevice, second.bytesToDevice]).toEqual([64 * 2 ** 20, 4096]);
  using result = await sums.lease("r");
  expect([...result.u32.subarray(6, 9)]).toEqual([1024, 1123, 1024]);
});

test("a device of the page's is used; ENODEV: an adapter that has given its device says so", async () => {
  const adapter = await navigator.gpu.requestAdapter();
  if (adapter === null) {
    expect.fail("no adapter");
  }
  const device = await adapter.requestDevice();
  const again = await open({ gpu: adapter }).catch((failure: unknown) => failure);
  if (again instanceof PageMirror) {
    // Firefox's adapters give as many devices as are asked for.
    expect(navigator.userAgent).toContain("Firefox/");
    await again.close();
  } else {
    expect(again).toBeInstanceOf(KernelError);
    expect(again).toMatchObject({ code: "ENODEV", op: "open" });
  }
  {
    await using pm = await open({ gpu: device });
    expect(pm.adapter).toMatchObject({ kind: "software", why: "the page chose it" });
    expect(pm.adapter.limits.maxStorageBufferBindingSize).toBe(128 * 2 ** 20);
  }
  device.destroy();
});

test("EINVAL: a mistake in a kernel has its place, what is wrong, and the line, whichever compiler finds it", async () => {
  await using pm = await open();
  const main = (line: string) => `
    @group(0) @binding(0) var<storage, read_write> data: array<u32>;
    @compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3u) {
      ${line}
    }`;
  for (const line of ["data[id.x] = nothing;", "data[id.x] = nothing + pm_load_u32(id.x);"]) {
    await expect(pm.device.kernel(main(line))).rejects.toMatchObject({
      code: "EINVAL",
      why: expect.stringMatching(/^4:\d+ [a-z].*nothing.*, in: data\[id\.x\] = nothing/),
    });
  }
});
