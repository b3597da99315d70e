/** What `open()` offers in the calling thread, a service offers too, on either MMU. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { PAGE_SIZE } from "../base/index.ts";
import type { WebGpuDevice, WebGpuKernel } from "../drivers/webgpu/index.ts";
import type { AddressSpace, Lease, Mapping, MappingRange, MemoryObject } from "../mm/index.ts";
import { open, type PageMirror, probeUserfaultfd } from "../node.ts";
import { INCREMENT } from "../testing/machine.ts";
import type {
  SharedDevice,
  SharedFile,
  SharedKernel,
  SharedLease,
  SharedMapping,
  SharedMemory,
  SharedMirror,
  SharedRange,
} from "./index.ts";

const report = probeUserfaultfd();
if (!report.works) {
  console.warn(`one API on both MMUs is tested on software only: ${report.why}`);
}

/** What the thread that owns the memory has, and nobody else can use: locks, page tables, references, the GPU itself. */
type OfTheOwner = {
  mirror: "memory" | "driver";
  space:
    | "memory"
    | "mmapLock"
    | "vmas"
    | "pageTable"
    | "notifiers"
    | "traceId"
    | "users"
    | "count"
    | "mmget"
    | "tryGetUsers"
    | "mmput"
    | "mmgrab"
    | "mmdrop"
    | "assertAlive";
  device:
    | "gpu"
    | "fences"
    | "transfer"
    | "budget"
    | "groups"
    | "turn"
    | "counts"
    | "svm"
    | "isClosed"
    | "assertOpen"
    | "mirrorOf"
    | "onClose"
    | "untilFinished"
    | "getUniform"
    | "putUniform"
    | "touch"
    | "close";
};

type Missing<Here, There, Except = never> = Exclude<keyof Here, keyof There | Except>;

/** Compiles only while every list is empty. */
const missing: {
  readonly mirror: readonly Missing<PageMirror, SharedMirror, OfTheOwner["mirror"]>[];
  readonly space: readonly Missing<AddressSpace, SharedMemory, OfTheOwner["space"]>[];
  readonly mapping: readonly Missing<Mapping, SharedMapping>[];
  readonly range: readonly Missing<MappingRange, SharedRange>[];
  readonly lease: readonly Missing<Lease, SharedLease>[];
  readonly device: readonly Missing<WebGpuDevice, SharedDevice, OfTheOwner["device"]>[];
  readonly kernel: readonly Missing<WebGpuKernel, SharedKernel>[];
  readonly object: readonly Missing<Pick<MemoryObject, "pages" | "put">, SharedFile>[];
} = {
  mirror: [],
  space: [],
  mapping: [],
  range: [],
  lease: [],
  device: [],
  kernel: [],
  object: [],
};

test("nothing of the API is missing in a client", () => {
  // The types are what is compared: with a method that a client lacks, this file does not compile.
  const none: Readonly<Record<string, readonly never[]>> = missing;
  expect(Object.values(none).flat()).toEqual([]);
});

describe.each(["software", "userfaultfd"] as const)("a program that uses all of it, on %s", (mmu) => {
  const skip = mmu === "userfaultfd" && !report.works;
  const folder = mkdtempSync(path.join(tmpdir(), "pagemirror-api-"));
  const file = path.join(folder, "file.bin");
  const bytes = Uint8Array.from({ length: 2 * PAGE_SIZE + 5 }, (_, i) => i * 7);
  const server = createServer((request, response) => {
    const [, from = "0", to = String(bytes.length - 1)] = /bytes=(\d+)-(\d*)/.exec(request.headers.range ?? "") ?? [];
    const end = Math.min(Number(to === "" ? bytes.length - 1 : to), bytes.length - 1);
    response.writeHead(206, {
      etag: '"one"',
      "content-range": `bytes ${from}-${end}/${bytes.length}`,
      "content-length": end + 1 - Number(from),
    });
    response.end(bytes.subarray(Number(from), end + 1));
  });

  beforeAll(async () => {
    writeFileSync(file, bytes);
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  });
  afterAll(() => {
    server.close();
    server.closeAllConnections();
    rmSync(folder, { recursive: true });
  });

  test.skipIf(skip)("mappings are resized and forked, and a child has the bytes of its moment", async () => {
    await using pm = await open({ mmu, device: false });
    const data = await pm.mm.mmap({ length: 2 * PAGE_SIZE, name: "data" });
    await data.write(4, Uint8Array.of(1, 2, 3));
    const longer = await pm.mm.mremap(data.start, data.length, 600 * PAGE_SIZE);
    expect(longer.length).toBe(600 * PAGE_SIZE);
    expect(await longer.read(4, 3)).toEqual(Uint8Array.of(1, 2, 3));
    {
      using lease = await longer.lease("rw", { offset: 599 * PAGE_SIZE, length: 8 });
      lease.u32.set([70, 71]);
      expect([lease.mode, lease.byteLength, lease.range.end - longer.start]).toEqual(["rw", 8, 599 * PAGE_SIZE + 8]);
    }
    const child = await pm.mm.fork();
    await longer.write(4, Uint8Array.of(9, 9, 9));
    const copy = await child.mapping(longer.start, longer.length);
    expect(copy.name).toBe("data");
    {
      using lease = await copy.lease("r");
      expect([...lease.u8.subarray(4, 7), lease.u32[(599 * PAGE_SIZE) / 4]]).toEqual([1, 2, 3, 70]);
    }
    expect(await longer.read(4, 3)).toEqual(Uint8Array.of(9, 9, 9));
    await child[Symbol.asyncDispose]();
    await expect(copy.read(0, 1)).rejects.toMatchObject({ code: "ESRCH" });
    await pm.mm.mprotect(longer.start, PAGE_SIZE, "none");
    await expect(longer.read(0, 1)).rejects.toMatchObject({ code: "EFAULT" });
    await longer.mprotect("rw");
    expect((await pm.mm.stats()).mappings).toBe(1);
    expect(await pm.mm.smaps()).toContain("data");
    await pm.mm.munmap(longer.start, longer.length);
    await expect(pm.mm.mapping(longer.start, 1)).rejects.toMatchObject({ code: "EFAULT" });
  });

  test.skipIf(skip)("files and URLs are mapped, and a shared file is written back", async () => {
    await using pm = await open({ mmu, device: false });
    const object = await pm.openFile(file, { write: true });
    expect([object.pages, object.length]).toEqual([3, bytes.length]);
    const mapped = await pm.mm.mmap({ object, length: bytes.length, shared: true });
    expect(await mapped.read()).toEqual(bytes);
    {
      using lease = await mapped.lease("rw", { offset: PAGE_SIZE, length: 4 });
      lease.u8.fill(0xee);
    }
    await mapped.msync();
    await object.put();
    expect([...readFileSync(file).subarray(PAGE_SIZE, PAGE_SIZE + 5)]).toEqual([
      0xee,
      0xee,
      0xee,
      0xee,
      ((PAGE_SIZE + 4) * 7) % 256,
    ]);
    const { port } = server.address() as AddressInfo;
    await using remote = await pm.openUrl(`http://127.0.0.1:${port}/`);
    const far = await pm.mm.mmap({ object: remote, length: remote.length, shared: true, prot: "r" });
    {
      using lease = await far.lease("r");
      expect(lease.u8.slice()).toEqual(bytes);
    }
    await expect(pm.openUrl("ftp://nowhere")).rejects.toMatchObject({ code: "EINVAL" });
    const aborted = pm.openUrl(`http://127.0.0.1:${port}/`, { signal: AbortSignal.abort() });
    await expect(aborted).rejects.toMatchObject({ code: "EINTR" });
  });

  test.skipIf(skip)("kernels, hints, figures, and a dispatch that its caller ends", async () => {
    await using pm = await open({ mmu });
    const data = await pm.mm.mmap({ length: 16 * PAGE_SIZE, name: "data" });
    const kernel = await pm.device.kernel(INCREMENT, { name: "increment" });
    expect([kernel.mode, kernel.name, kernel.device]).toEqual(["bind", "increment", pm.device]);
    await kernel.dispatch({ bind: { data: data.range(PAGE_SIZE, PAGE_SIZE) }, workgroups: 16 });
    {
      using lease = await data.lease("r");
      expect([lease.u32[0], lease.u32[1024], lease.u32[2047], lease.u32[2048]]).toEqual([0, 1, 1, 0]);
    }
    expect(await pm.device.prefetch(data)).toBe(4);
    await pm.device.advise(data, "read-mostly");
    const stats = await pm.device.stats();
    expect([stats.dispatches, await pm.device.pageCounts()]).toEqual([1, stats.pages]);
    using held = await data.lease("rw");
    const controller = new AbortController();
    const waiting = kernel.dispatch({
      bind: { data },
      workgroups: 256,
      timeoutMs: 60_000,
      signal: controller.signal,
    });
    controller.abort();
    await expect(waiting).rejects.toMatchObject({ code: "EINTR" });
    held.release();
  });
});
