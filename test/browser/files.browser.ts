/** Files of a page: what users drop, blobs, and the origin private file system. */
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { KernelError, msync, open, PAGE_SIZE } from "../../src/browser.ts";

const BYTES = 5 * PAGE_SIZE + 100;
const pattern = () => Uint8Array.from({ length: BYTES }, (_, i) => (i * 7 + (i >> 8)) & 0xff);

const INCREMENT = `
@group(0) @binding(0) var<storage, read_write> data: array<u32>;
@compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3u) {
  if (id.x < arrayLength(&data)) { data[id.x] += 1u; }
}`;

async function codeOf(work: Promise<unknown>): Promise<string> {
  return await work.then(
    () => "done",
    (error: unknown) => (error instanceof KernelError ? error.message : String(error)),
  );
}

describe("a file that somebody dropped", () => {
  test("is read on demand by CPU and GPU, and zeros follow its end", async () => {
    await using pm = await open();
    const file = new File([pattern()], "dropped.bin");
    const object = await pm.openFile(file);
    const data = await pm.mm.mmap({ object, length: 6 * PAGE_SIZE, prot: "rw" });
    await object.put();
    expect(await data.read(PAGE_SIZE, 50)).toEqual(pattern().slice(PAGE_SIZE, PAGE_SIZE + 50));
    const kernel = await pm.device.kernel(INCREMENT);
    await kernel.dispatch({ bind: { data }, workgroups: 96 });
    const words = new Uint32Array((await data.read()).buffer);
    const before = new Uint32Array(6 * 1024);
    new Uint8Array(before.buffer).set(pattern());
    expect(words.findIndex((word, i) => word !== (before[i] ?? 0) + 1)).toBe(-1);
  });

  test("EINVAL: it is empty, or is to be written", async () => {
    await using pm = await open();
    expect(await codeOf(pm.openFile(new Blob([])))).toMatch(/^open: EINVAL: blob is empty/);
    expect(await codeOf(pm.openFile(new File(["x"], "a.txt"), { write: true }))).toMatch(
      /^open: EINVAL: a.txt is a snapshot.*FileSystemFileHandle/,
    );
  });
});

describe("the origin private file system", () => {
  let handle: FileSystemFileHandle;

  beforeEach(async () => {
    const root = await navigator.storage.getDirectory();
    handle = await root.getFileHandle("pages.bin", { create: true });
    const stream = await handle.createWritable();
    await stream.write(pattern());
    await stream.close();
  });
  afterEach(async () => {
    await (await navigator.storage.getDirectory()).removeEntry("pages.bin");
  });

  const onDisk = async () => new Uint8Array(await (await handle.getFile()).arrayBuffer());

  test("a shared mapping is written back by msync, what a kernel wrote too, and keeps its length", async () => {
    await using pm = await open();
    const object = await pm.openFile(handle, { write: true });
    const data = await pm.mm.mmap({ object, length: BYTES, shared: true });
    await object.put();
    await data.write(PAGE_SIZE + 4, Uint8Array.of(1, 2, 3));
    expect(await onDisk()).toEqual(pattern());
    await msync(pm.mm, data.start, data.length);
    const expected = pattern();
    expected.set([1, 2, 3], PAGE_SIZE + 4);
    expect(await onDisk()).toEqual(expected);
    const kernel = await pm.device.kernel(INCREMENT);
    await kernel.dispatch({ bind: { data: data.range(0, PAGE_SIZE) }, workgroups: 16 });
    await msync(pm.mm, data.start, data.length);
    const words = new Uint32Array(expected.buffer, 0, 1024);
    words.forEach((word, i) => {
      words[i] = word + 1;
    });
    expect(await onDisk()).toEqual(expected);
  });

  test("what was written and dropped from memory is read again from the file", async () => {
    await using pm = await open();
    const object = await pm.openFile(handle, { write: true });
    const data = await pm.mm.mmap({ object, length: BYTES, shared: true });
    await data.write(0, Uint8Array.of(9));
    await data.munmap();
    const again = await pm.mm.mmap({ object, length: BYTES, shared: true, prot: "r" });
    await object.put();
    expect((await again.read(0, 2))[0]).toBe(9);
  });

  test("closing writes back", async () => {
    {
      await using pm = await open();
      const object = await pm.openFile(handle, { write: true });
      const data = await pm.mm.mmap({ object, length: BYTES, shared: true });
      await object.put();
      await data.write(BYTES - 1, Uint8Array.of(77));
    }
    expect((await onDisk()).at(-1)).toBe(77);
  });

  test("EIO: a file that changed while it was mapped for reading is an error, no mixture", async () => {
    await using pm = await open();
    const object = await pm.openFile(handle);
    const data = await pm.mm.mmap({ object, length: BYTES, shared: true, prot: "r" });
    await object.put();
    await data.read(0, 1);
    const stream = await handle.createWritable();
    await stream.write("short");
    await stream.close();
    expect(await codeOf(data.read(4 * PAGE_SIZE, 4))).toMatch(/^read: EIO: pages.bin has changed or is gone/);
  });

  test("ENOENT: a file that was removed", async () => {
    await using pm = await open();
    const root = await navigator.storage.getDirectory();
    const gone = await root.getFileHandle("gone.bin", { create: true });
    await root.removeEntry("gone.bin");
    expect(await codeOf(pm.openFile(gone))).toMatch(/^open: ENOENT: gone.bin does not exist any more/);
  });
});
