import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { MemoryObject, type Pager, validateMm } from "../../mm/index.ts";
import { openFileObject } from "../../platform/node/file-pager.ts";
import { groupsFor, INCREMENT, increment, openMachine, SUM, wordsOf } from "../../testing/machine.ts";

let folder: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "pm-"));
});
afterAll(() => rm(folder, { recursive: true }));

/** Memory behind a pager that a test makes fail. */
class FailingPager implements Pager {
  readonly name = "failing";
  readonly length: number;
  readonly writable = true;
  failAt = Number.POSITIVE_INFINITY;
  reads = 0;

  constructor(length: number) {
    this.length = length;
  }

  async read(offset: number, dst: Uint8Array): Promise<void> {
    this.reads++;
    await new Promise((resolve) => setTimeout(resolve));
    if (offset + dst.length > this.failAt) {
      const { KernelError } = await import("../../base/index.ts");
      throw new KernelError("EIO", "read", "the disk is broken");
    }
    dst.fill(3);
  }

  write(): void {}
  sync(): void {}
  close(): void {}
}

test("a file that is bound but never leased is changed by the kernel and written back by msync", async () => {
  await using m = await openMachine();
  const path = join(folder, "f");
  await writeFile(path, new Uint32Array(2000).fill(5));
  const object = await openFileObject(m.memory, path, { write: true });
  const data = await m.mm.mmap({ object, length: 8000, shared: true });
  await object.put();
  await increment(await m.device.kernel(INCREMENT), data);
  await data.msync();
  const bytes = await readFile(path);
  expect(bytes.length).toBe(8000);
  expect(new Uint32Array(bytes.buffer, bytes.byteOffset, 2000).every((v) => v === 6)).toBe(true);
  validateMm(m.mm);
});

test("a kernel sees zeros after a file's last byte, up to the next multiple of 16, and the file keeps its length", async () => {
  await using m = await openMachine();
  const kernel = await m.device.kernel(/* wgsl */ `
    @group(0) @binding(0) var<storage, read_write> data: array<u32>;
    @group(0) @binding(1) var<storage, read_write> out: array<u32>;
    @compute @workgroup_size(1) fn main() {
      let n = arrayLength(&data);
      out[0] = n;
      out[1] = 0;
      for (var i = 0u; i < n; i++) { out[1] += data[i]; data[i] = 0xffffffff; }
    }`);
  for (const length of [1, 3, 15, 16, 17, 4093, 4096, 4097, 8190]) {
    const path = join(folder, `tail${length}`);
    await writeFile(path, new Uint8Array(length).fill(1));
    const object = await openFileObject(m.memory, path, { write: true });
    const data = await m.mm.mmap({ object, length, shared: true });
    const out = await m.mm.mmap({ length: 8 });
    await object.put();
    await kernel.dispatch({ bind: { data, out }, workgroups: 1 });
    const words = Math.ceil(length / 16) * 4;
    let sum = 0;
    for (let i = 0; i < length; i++) {
      sum = (sum + 2 ** (8 * (i % 4))) % 2 ** 32;
    }
    expect([...(await wordsOf(out))]).toEqual([words, sum]);
    await data.munmap();
    expect((await readFile(path)).equals(new Uint8Array(length).fill(255))).toBe(true);
  }
});

test("EIO of a file leaves nothing isolated, and nothing that was uploaded before is taken for zeros", async () => {
  await using m = await openMachine();
  const pager = new FailingPager(4096 * 4096);
  const object = new MemoryObject(m.memory, { pages: 4096, pager });
  const data = await m.mm.mmap({ object, length: pager.length, shared: true });
  const kernel = await m.device.kernel(INCREMENT);
  pager.failAt = 15 * 1024 * 1024;
  const dispatch = () => kernel.dispatch({ bind: { data }, workgroups: [1024, 1] });
  await expect(dispatch()).rejects.toMatchObject({ code: "EIO" });
  validateMm(m.mm);
  // What is mapped there next is zeros, over bytes that the failed upload has brought.
  const zeros = await m.mm.mmap({ addr: data.start, fixed: true, length: pager.length });
  await kernel.dispatch({ bind: { data: zeros }, workgroups: [65535] });
  expect((await wordsOf(zeros)).subarray(0, 65535 * 64).every((w) => w === 1)).toBe(true);
  await object.put();
});

test("EIO while pages are read for a kernel that only reads them", async () => {
  await using m = await openMachine();
  const pager = new FailingPager(16 * 4096);
  const object = new MemoryObject(m.memory, { pages: 16, pager });
  const data = await m.mm.mmap({ object, length: pager.length, shared: true, prot: "r" });
  const sums = await m.mm.mmap({ length: 4 });
  await object.put();
  const kernel = await m.device.kernel(SUM);
  const run = () => kernel.dispatch({ bind: { data, sums }, params: { scale: 1 }, workgroups: groupsFor(data.length) });
  pager.failAt = 0;
  await expect(run()).rejects.toMatchObject({ code: "EIO" });
  pager.failAt = Number.POSITIVE_INFINITY;
  await run();
  expect((await wordsOf(sums))[0]).toBe(Number((0x03030303n * 16n * 1024n) & 0xffffffffn));
});
