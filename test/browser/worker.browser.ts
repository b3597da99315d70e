/** A worker that owns the device, and files that only workers can read without a detour. */
import { describe, expect, test } from "vitest";
import { listenToTrace, openWorker, type TraceEvent } from "../../src/browser.ts";

const PAGE_SIZE = 4096;
const BYTES = 3 * PAGE_SIZE + 10;

const INCREMENT = `
@group(0) @binding(0) var<storage, read_write> data: array<u32>;
@compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3u) {
  if (id.x < arrayLength(&data)) { data[id.x] += 1u; }
}`;

describe.skipIf(!globalThis.crossOriginIsolated)("a worker that owns the device", () => {
  test("shares its memory with the page: leases, kernels, plain reads and writes", async () => {
    await using pm = await openWorker();
    expect(pm.adapter?.backend).toBe("browser");
    const data = await pm.mm.mmap({ length: 64 * PAGE_SIZE, name: "data" });
    {
      using lease = await data.lease("rw");
      expect(lease.u32.buffer).toBeInstanceOf(SharedArrayBuffer);
      lease.u32.fill(41);
    }
    const kernel = await pm.device.kernel(INCREMENT, { name: "increment" });
    const stats = await kernel.dispatch({ bind: { data }, workgroups: 1024 });
    expect(stats.pagesUploaded).toBe(64);
    using lease = await data.lease("r");
    expect(lease.u32.findIndex((word) => word !== 42)).toBe(-1);
    await expect(pm.device.kernel("fn main() {}")).rejects.toMatchObject({ code: "EINVAL" });
  });

  test("whoever listens in the page hears its events, in the page's time, from the mappings that are there on", async () => {
    await using pm = await openWorker();
    const data = await pm.mm.mmap({ length: 4 * PAGE_SIZE, name: "data" });
    const kernel = await pm.device.kernel(INCREMENT, { name: "increment" });
    const events: TraceEvent[] = [];
    const before = performance.now();
    const stop = listenToTrace((event) => events.push(event));
    try {
      await kernel.dispatch({ bind: { data }, workgroups: 64 });
      await expect.poll(() => events.map(({ name }) => name)).toContain("gpu.dispatch");
    } finally {
      stop();
    }
    const after = performance.now();
    const map = events.find((event): event is TraceEvent<"mm.map"> => event.name === "mm.map");
    expect(map?.fields).toMatchObject({ name: "data", start: data.start, write: true });
    // Clocks of two threads differ by what their origins were rounded to.
    expect(events.every(({ at, duration }) => at > before - 1 && at + duration < after + 1)).toBe(true);
    const { length } = events;
    await kernel.dispatch({ bind: { data }, workgroups: 64 });
    expect(events).toHaveLength(length);
  });

  test("svm mode works there, and what is closed says so", async () => {
    const pm = await openWorker({ deviceMemory: 4 * 2 ** 20 });
    const sum = await pm.mm.mmap({ length: PAGE_SIZE });
    const kernel = await pm.device.kernel(`
      struct Params { sum: u32 }
      @group(0) @binding(0) var<uniform> params: Params;
      @compute @workgroup_size(1) fn main() { pm_store_u32(params.sum, 7u + pm_load_u32(params.sum)); }`);
    await kernel.dispatch({ mm: pm.mm, params: { sum: sum.svmAddress }, workgroups: 1 });
    expect((await sum.read(0, 1))[0]).toBe(7);
    await pm.close();
    await expect(pm.mm.mmap({ length: 1 })).rejects.toMatchObject({ code: "ESRCH" });
  });

  test("files of OPFS are read and written on the spot, and nobody else writes them meanwhile", async () => {
    const root = await navigator.storage.getDirectory();
    const handle = await root.getFileHandle("worker.bin", { create: true });
    const stream = await handle.createWritable();
    await stream.write(new Uint8Array(BYTES).fill(1));
    await stream.close();
    {
      await using pm = await openWorker();
      const object = await pm.openFile(handle, { write: true });
      const data = await pm.mm.mmap({ object, length: BYTES, shared: true });
      await expect(pm.openFile(handle, { write: true })).rejects.toMatchObject({ code: "EBUSY" });
      {
        using lease = await data.lease("rw", { offset: 0, length: 4 });
        expect([...lease.u8]).toEqual([1, 1, 1, 1]);
        lease.u8[0] = 5;
      }
      const kernel = await pm.device.kernel(INCREMENT);
      await kernel.dispatch({ bind: { data }, workgroups: 49 });
      await data.msync();
      await object[Symbol.asyncDispose]();
      await data.munmap();
    }
    const bytes = new Uint8Array(await (await handle.getFile()).arrayBuffer());
    expect(bytes.length).toBe(BYTES);
    expect([...bytes.subarray(0, 5), bytes[BYTES - 2]]).toEqual([6, 1, 1, 1, 2, 2]);
    await root.removeEntry("worker.bin");
  });

  test("a WebAssembly program's shared memory is mapped, and no other can be", async () => {
    await using pm = await openWorker();
    const memory = new WebAssembly.Memory({ initial: 1, maximum: 2, shared: true });
    new Uint32Array(memory.buffer)[100] = 41;
    const heap = await pm.mm.adopt(memory, { name: "heap", maximum: 131_072 });
    memory.grow(1);
    {
      using lease = await heap.lease("rw", { offset: 80_000, length: 4 });
      lease.u32[0] = 6;
    }
    const kernel = await pm.device.kernel(INCREMENT);
    await kernel.dispatch({ bind: { data: heap }, workgroups: 512 });
    using lease = await heap.lease("r");
    expect(lease.u32[100]).toBe(42);
    const words = new Uint32Array(memory.buffer);
    expect([words[100], words[20_000]]).toEqual([42, 7]);
    await expect(pm.mm.adopt(new WebAssembly.Memory({ initial: 1 }))).rejects.toMatchObject({ code: "EINVAL" });
  });

  test("a File and a URL error cross over", async () => {
    await using pm = await openWorker();
    const object = await pm.openFile(new File([new Uint8Array(PAGE_SIZE).fill(3)], "a.bin"));
    const data = await pm.mm.mmap({ object, length: PAGE_SIZE, prot: "r" });
    expect((await data.read(9, 1))[0]).toBe(3);
    await object[Symbol.asyncDispose]();
    await expect(pm.openUrl("ftp://example.org/")).rejects.toMatchObject({ code: "EINVAL" });
    await expect(pm.openFile("a.bin")).rejects.toMatchObject({ code: "EINVAL" });
  });

  test("ESRCH: a worker that is none of the library's", async () => {
    const worker = new Worker(URL.createObjectURL(new Blob(["throw new Error('other')"])));
    await expect(openWorker({ worker })).rejects.toThrowError(
      /ESRCH: the worker does not start.*pagemirror\/browser\/worker/,
    );
  });
});

test.skipIf(globalThis.crossOriginIsolated)(
  "ENOTSUP: a page that is not isolated is told which headers it needs",
  async () => {
    await expect(openWorker()).rejects.toThrowError(/ENOTSUP: .*Cross-Origin-Embedder-Policy: require-corp.*call open/);
  },
);
