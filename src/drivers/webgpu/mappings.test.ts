import { describe, expect, test } from "vitest";
import { Mapping, MemoryObject, validateMm } from "../../mm/index.ts";
import { COPY, INCREMENT, increment, type Machine, openMachine, wordsOf } from "../../testing/machine.ts";

/** A mapping whose words are all `value`, device-private or not. */
async function filled(m: Machine, pages: number, value: number): Promise<Mapping> {
  const data = await m.mm.mmap({ length: pages * 4096 });
  using l = await data.lease("rw");
  l.u32.fill(value);
  return data;
}

const all = async (data: Mapping) => [...new Set(await wordsOf(data))];

describe("device-private pages and the system calls", () => {
  test("munmap of some: their frames are free, the others stay", async () => {
    await using m = await openMachine();
    const data = await filled(m, 4, 7);
    const kernel = await m.device.kernel(INCREMENT);
    await increment(kernel, data);
    await m.mm.munmap(data.start + 4096, 4096);
    validateMm(m.mm);
    expect(await all(await wholeOf(m, data.start, 4096))).toEqual([8]);
    expect(await all(await wholeOf(m, data.start + 8192, 8192))).toEqual([8]);
  });

  test("munmap and mmap at the same place: the new memory is zeros to the device", async () => {
    await using m = await openMachine();
    const data = await filled(m, 4, 7);
    const kernel = await m.device.kernel(INCREMENT);
    await increment(kernel, data);
    await data.munmap();
    const again = await m.mm.mmap({ addr: data.start, length: data.length, fixed: true });
    await increment(kernel, again);
    expect(await all(again)).toEqual([1]);
    validateMm(m.mm);
  });

  test("a shared page that is still the device's goes home before its place is used for other memory", async () => {
    await using m = await openMachine();
    const object = new MemoryObject(m.memory, { pages: 2 });
    const data = await m.mm.mmap({ object, length: 8192, shared: true });
    const kernel = await m.device.kernel(INCREMENT);
    const copy = await m.device.kernel(COPY);
    await increment(kernel, data);
    await m.mm.munmap(data.start, 8192);
    const written = await m.mm.mmap({ addr: data.start, length: 4096, fixed: true });
    await increment(kernel, written);
    await increment(kernel, written);
    const read = await m.mm.mmap({ addr: data.start + 4096, length: 4096, fixed: true });
    await read.write(0, new Uint32Array(1024).fill(77));
    await copy.dispatch({ bind: { src: read, dst: await m.mm.mmap({ length: 4096 }) }, workgroups: 16 });
    expect(await all(await m.mm.mmap({ object, length: 8192, shared: true }))).toEqual([1]);
    expect(await all(written)).toEqual([2]);
    expect(await all(read)).toEqual([77]);
    await object.put();
  });

  test("mremap: the pages keep their bytes at the new place, and the old one can be mapped anew", async () => {
    await using m = await openMachine();
    const data = await filled(m, 4, 7);
    const kernel = await m.device.kernel(INCREMENT);
    await increment(kernel, data);
    const blocker = await m.mm.mmap({ addr: data.end, length: 4096, fixed: true });
    const moved = await m.mm.mremap(data.start, data.length, 8 * 4096, { mayMove: true });
    expect(moved.start).not.toBe(data.start);
    await increment(kernel, moved);
    validateMm(m.mm);
    const words = await wordsOf(moved);
    expect(words.subarray(0, 4096).every((w) => w === 9)).toBe(true);
    expect(words.subarray(4096).every((w) => w === 1)).toBe(true);
    const anew = await m.mm.mmap({ addr: data.start, length: data.length, fixed: true });
    await increment(kernel, anew);
    expect(await all(anew)).toEqual([1]);
    await blocker.munmap();
  });

  test("madvise: dropped pages are zeros for both", async () => {
    await using m = await openMachine();
    const data = await filled(m, 4, 7);
    const kernel = await m.device.kernel(INCREMENT);
    await increment(kernel, data);
    await m.mm.madvise(data.start + 4096, 8192, "dontneed");
    validateMm(m.mm);
    await increment(kernel, data);
    const words = await wordsOf(data);
    expect([0, 1, 2, 3].map((page) => words[page * 1024])).toEqual([9, 1, 1, 9]);
  });

  test("madvise of a shared mapping only unmaps: the device's page is still the object's", async () => {
    await using m = await openMachine();
    const object = new MemoryObject(m.memory, { pages: 1 });
    const data = await m.mm.mmap({ object, length: 4096, shared: true });
    await object.put();
    const kernel = await m.device.kernel(INCREMENT);
    await increment(kernel, data);
    await m.mm.madvise(data.start, 4096, "dontneed");
    await increment(kernel, data);
    expect(await all(data)).toEqual([2]);
  });

  test("mprotect: read-only keeps the bytes and forbids writing, writable again allows it", async () => {
    await using m = await openMachine();
    const data = await filled(m, 2, 7);
    const kernel = await m.device.kernel(INCREMENT);
    await increment(kernel, data);
    await m.mm.mprotect(data.start, 4096, "r");
    await expect(increment(kernel, data)).rejects.toMatchObject({ code: "EACCES" });
    validateMm(m.mm);
    const copy = await m.device.kernel(COPY);
    const dst = await m.mm.mmap({ length: 8192 });
    await copy.dispatch({ bind: { src: data, dst }, workgroups: 32 });
    expect(await all(dst)).toEqual([8]);
    await m.mm.mprotect(data.start, 4096, "none");
    await expect(increment(kernel, data)).rejects.toMatchObject({ code: "EFAULT" });
    await m.mm.mprotect(data.start, 4096, "rw");
    await increment(kernel, data);
    expect(await all(data)).toEqual([9]);
  });

  test("fork: parent and child have the bytes of the fork, whoever writes next and wherever", async () => {
    await using m = await openMachine();
    const data = await filled(m, 4, 7);
    const kernel = await m.device.kernel(INCREMENT);
    await increment(kernel, data);
    const child = await m.mm.fork();
    const childs = new Mapping(child, data.start, data.length, "child");
    await increment(kernel, data);
    await increment(kernel, childs);
    await increment(kernel, childs);
    validateMm(m.mm);
    validateMm(child);
    expect(await all(data)).toEqual([9]);
    expect(await all(childs)).toEqual([10]);
    const grandchild = await child.fork();
    await increment(kernel, childs);
    expect(await all(new Mapping(grandchild, data.start, data.length, "grandchild"))).toEqual([10]);
    await grandchild[Symbol.asyncDispose]();
    await child[Symbol.asyncDispose]();
    await increment(kernel, data);
    expect(await all(data)).toEqual([10]);
  });
});

async function wholeOf(m: Machine, start: number, length: number): Promise<Mapping> {
  return new Mapping(m.mm, start as Mapping["start"], length, "part");
}
