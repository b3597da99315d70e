import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { MemoryObject, VmFlags, validateMm } from "../../mm/index.ts";
import { COPY, INCREMENT, type increment, type Machine, openMachine, SUM } from "../../testing/machine.ts";

let m: Machine;
beforeEach(async () => {
  m = await openMachine({ deviceMemory: 64 * 4096 });
});
afterEach(() => m[Symbol.asyncDispose]());

const dispatchIncrement = async (data: Parameters<typeof increment>[1], workgroups = 1) =>
  (await m.device.kernel(INCREMENT, { name: "inc" })).dispatch({ bind: { data }, workgroups });

describe("compiling", () => {
  test("EINVAL: a WGSL error has its line and column", async () => {
    await expect(m.device.kernel("@compute @workgroup_size(1)\nfn main() {\n  x = 1;\n}")).rejects.toMatchObject({
      code: "EINVAL",
      why: expect.stringMatching(/^3:3 .*x/),
    });
  });
});

describe("what is bound", () => {
  test("EINVAL: a variable without memory, and memory without a variable, name the kernel's variables", async () => {
    const data = await m.mm.mmap({ length: 4096 });
    const kernel = await m.device.kernel(COPY, { name: "copy" });
    await expect(kernel.dispatch({ bind: { src: data }, workgroups: 1 })).rejects.toMatchObject({
      code: "EINVAL",
      op: "copy",
      why: expect.stringMatching(/dst .*is not bound.*src, dst/),
    });
    await expect(kernel.dispatch({ bind: { from: data }, workgroups: 1 })).rejects.toMatchObject({
      code: "EINVAL",
      why: expect.stringMatching(/no variable "from".*src, dst/),
    });
    await expect(kernel.dispatch({ workgroups: 1 })).rejects.toMatchObject({ code: "EINVAL" });
  });

  test("EINVAL: a binding over the adapter's limit says how much it binds", async () => {
    const limit = m.device.gpu.limits.maxStorageBufferBindingSize;
    const data = await m.mm.mmap({ length: limit + 4 });
    await expect(dispatchIncrement(data)).rejects.toMatchObject({
      code: "EINVAL",
      why: expect.stringContaining(String(limit)),
    });
    await data.munmap();
  });

  test("EINVAL: a range begins at a multiple of the adapter's alignment and has whole words", async () => {
    const data = await m.mm.mmap({ length: 4096 });
    const kernel = await m.device.kernel(INCREMENT);
    const alignment = m.device.gpu.limits.minStorageBufferOffsetAlignment;
    await expect(kernel.dispatch({ bind: { data: data.range(4, 4) }, workgroups: 1 })).rejects.toMatchObject({
      code: "EINVAL",
      why: expect.stringContaining(`multiple of ${alignment}`),
    });
    await expect(kernel.dispatch({ bind: { data: data.range(alignment, 6) }, workgroups: 1 })).rejects.toMatchObject({
      code: "EINVAL",
      why: expect.stringContaining("multiple of 4"),
    });
  });

  test("EINVAL: less memory than the variable's type takes", async () => {
    const data = await m.mm.mmap({ length: 12 });
    const kernel = await m.device.kernel(
      "@group(0) @binding(0) var<storage, read_write> data: array<u32, 5>; @compute @workgroup_size(1) fn main() { data[4] = 1; }",
    );
    await expect(kernel.dispatch({ bind: { data }, workgroups: 1 })).rejects.toMatchObject({
      code: "EINVAL",
      why: expect.stringMatching(/at least 20 bytes.*gives 12/),
    });
  });

  test("EINVAL: mappings of two address spaces", async () => {
    const src = await m.mm.mmap({ length: 4096 });
    const dst = await m.space().mmap({ length: 4096 });
    const kernel = await m.device.kernel(COPY);
    await expect(kernel.dispatch({ bind: { src, dst }, workgroups: 1 })).rejects.toMatchObject({
      code: "EINVAL",
      why: expect.stringContaining("another address space"),
    });
  });

  test("EINVAL: memory that is read through one variable and written through another", async () => {
    const data = await m.mm.mmap({ length: 2 * 4096 });
    const kernel = await m.device.kernel(COPY);
    for (const bind of [
      { src: data, dst: data },
      { src: data.range(0, 256), dst: data.range(256, 256) },
    ]) {
      await expect(kernel.dispatch({ bind, workgroups: 1 })).rejects.toMatchObject({
        code: "EINVAL",
        why: expect.stringMatching(/src .*dst .*same memory/),
      });
    }
  });

  test("EINVAL: one page that two mappings share, read and written", async () => {
    const object = new MemoryObject(m.memory, { pages: 4 });
    const a = await m.mm.mmap({ object, length: 4 * 4096, shared: true, name: "a" });
    const b = await m.mm.mmap({ object, length: 2 * 4096, offset: 2 * 4096, shared: true, name: "b" });
    await object.put();
    const kernel = await m.device.kernel(COPY);
    await expect(kernel.dispatch({ bind: { src: a, dst: b }, workgroups: 1 })).rejects.toMatchObject({
      code: "EINVAL",
      why: expect.stringContaining("same memory"),
    });
    await kernel.dispatch({ bind: { src: a.range(0, 8192), dst: b }, workgroups: 1 });
  });

  test("ENOTSUP: a uniform variable that is not params", async () => {
    const module = "@group(0) @binding(0) var<uniform> other: vec4u; @compute @workgroup_size(1) fn main()";
    for (const body of ["{ let x = other.x; }", "{ pm_store_u32(other.x, 1u); }"]) {
      await expect(m.device.kernel(`${module} ${body}`)).rejects.toMatchObject({
        code: "ENOTSUP",
        why: expect.stringContaining("other is a uniform variable: name it params"),
      });
    }
  });

  test("EINVAL: params and workgroups that do not fit", async () => {
    const data = await m.mm.mmap({ length: 4096 });
    const sums = await m.mm.mmap({ length: 4 });
    const kernel = await m.device.kernel(SUM);
    const bind = { data, sums };
    await expect(kernel.dispatch({ bind, workgroups: 1 })).rejects.toMatchObject({ code: "EINVAL" });
    await expect(kernel.dispatch({ bind, params: { scale: 1, x: 1 }, workgroups: 1 })).rejects.toMatchObject({
      code: "EINVAL",
    });
    await expect(kernel.dispatch({ bind, params: { scale: 1 }, workgroups: 0 })).rejects.toMatchObject({
      code: "EINVAL",
    });
    await expect(kernel.dispatch({ bind, params: { scale: 1 }, workgroups: 2 ** 20 })).rejects.toMatchObject({
      code: "EINVAL",
    });
  });
});

describe("what is behind the addresses", () => {
  test("EACCES: a written variable over a read-only mapping, and nothing has changed", async () => {
    const data = await m.mm.mmap({ length: 4096, prot: "r", name: "table" });
    await expect(dispatchIncrement(data)).rejects.toMatchObject({
      code: "EACCES",
      why: expect.stringMatching(/writes data and table/),
    });
    validateMm(m.mm);
  });

  test("EFAULT: memory that was unmapped, in part too; other memory still works", async () => {
    const data = await m.mm.mmap({ length: 4 * 4096, name: "gone" });
    await dispatchIncrement(data);
    await m.mm.munmap(data.start + 4096, 4096);
    await expect(dispatchIncrement(data)).rejects.toMatchObject({
      code: "EFAULT",
      why: expect.stringContaining("gone that was unmapped"),
    });
    const copy = await m.device.kernel(COPY);
    const dst = await m.mm.mmap({ length: 4096 });
    await expect(copy.dispatch({ bind: { src: data, dst }, workgroups: 1 })).rejects.toMatchObject({ code: "EFAULT" });
    const kernel = await m.device.kernel(INCREMENT);
    await kernel.dispatch({ bind: { data: data.range(8192) }, workgroups: 1 });
    validateMm(m.mm);
  });

  test("EFAULT: memory that is not readable, and device registers", async () => {
    const none = await m.mm.mmap({ length: 4096, prot: "none" });
    await expect(dispatchIncrement(none)).rejects.toMatchObject({
      code: "EFAULT",
      why: expect.stringContaining("not readable"),
    });
    const io = await m.mm.mmap({ length: 4096, vmFlags: VmFlags.Io });
    await expect(dispatchIncrement(io)).rejects.toMatchObject({ code: "EFAULT" });
  });

  test("EFAULT: past the end of the object, for reading and writing", async () => {
    const object = new MemoryObject(m.memory, { pages: 2 });
    const data = await m.mm.mmap({ object, length: 3 * 4096, shared: true, name: "short" });
    await object.put();
    await expect(dispatchIncrement(data)).rejects.toMatchObject({
      code: "EFAULT",
      why: expect.stringContaining("past the end of short"),
    });
    const dst = await m.mm.mmap({ length: 4096 });
    const copy = await m.device.kernel(COPY);
    await expect(copy.dispatch({ bind: { src: data, dst }, workgroups: 1 })).rejects.toMatchObject({ code: "EFAULT" });
    await dispatchIncrement(await m.mm.mmap({ length: 4096 }));
  });

  test("ENOMEM: over deviceMemory, for one range and for the ranges of one dispatch together", async () => {
    const big = await m.mm.mmap({ length: 65 * 4096 });
    await expect(dispatchIncrement(big)).rejects.toMatchObject({
      code: "ENOMEM",
      why: expect.stringMatching(/budget of 262144: raise deviceMemory/),
    });
    const src = await m.mm.mmap({ length: 40 * 4096 });
    const dst = await m.mm.mmap({ length: 40 * 4096 });
    const copy = await m.device.kernel(COPY);
    await expect(copy.dispatch({ bind: { src, dst }, workgroups: 1 })).rejects.toMatchObject({ code: "ENOMEM" });
    await dispatchIncrement(src);
  });

  test("ENOMEM: no allocation of a dispatch that fails leaves anything behind", async () => {
    const expected = new Uint32Array(1024).map((_, i) => i);
    let failures = 0;
    for (let done = false; !done; ) {
      await using mine = await openMachine();
      const kernel = await mine.device.kernel(COPY);
      const src = await mine.mm.mmap({ length: 4096 });
      const dst = await mine.mm.mmap({ length: 4096 });
      await src.write(0, expected);
      mine.memory.failAfter(failures);
      const outcome = await kernel.dispatch({ bind: { src, dst }, workgroups: 16 }).catch((error: unknown) => error);
      mine.memory.failAfter();
      validateMm(mine.mm);
      if (outcome instanceof Error) {
        expect(outcome).toMatchObject({ code: "ENOMEM" });
        failures++;
        await kernel.dispatch({ bind: { src, dst }, workgroups: 16 });
      } else {
        done = true;
      }
      using l = await dst.lease("r");
      expect(l.u32).toEqual(expected);
    }
    expect(failures).toBeGreaterThan(3);
  });
});
