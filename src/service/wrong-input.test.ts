/** What a program gives wrongly is one clear error, on either MMU; and nothing else is spoiled by it. */
import { describe, expect, test } from "vitest";
import { KernelError, PAGE_SIZE } from "../base/index.ts";
import { open, probeUserfaultfd } from "../node.ts";
import { INCREMENT } from "../testing/machine.ts";
import type { SharedMirror, SharedOptions } from "./index.ts";

const report = probeUserfaultfd();
if (!report.works) {
  console.warn(`wrong input is tested on software only: ${report.why}`);
}

/** What JavaScript lets through where TypeScript would not. */
// biome-ignore lint/suspicious/noExplicitAny: wrong on purpose
type Anything = any;

/** What a call fails with: `code op`, when it is the caller's fault. */
async function failure(call: () => unknown): Promise<string> {
  try {
    await call();
  } catch (error) {
    expect(String(error)).not.toContain("\n");
    return error instanceof KernelError ? `${error.code} ${error.op}` : String(error);
  }
  return "nothing";
}

const both = (["software", "userfaultfd"] as const).filter((mmu) => mmu === "software" || report.works);
const memory = (pages = 1) => new WebAssembly.Memory({ initial: pages, maximum: 8, shared: true });
const MAXIMUM = { maximum: 8 * 65_536 };

describe.each(["software", "userfaultfd"] as const)("wrong input on %s", (mmu) => {
  const skip = mmu === "userfaultfd" && !report.works;

  test.skipIf(skip)("of open", async () => {
    const wrong: Anything[] = [{ mmu: "no such" }, { mmu: null }, { mmu, stuckMs: "5" }];
    const arounds: Anything[] = [0, -1, 3, 1.5, 1024, Number.NaN, "64"];
    for (const options of [...wrong, ...arounds.map((faultAround) => ({ mmu, device: false, faultAround }))]) {
      expect([options, await failure(() => open(options as SharedOptions & { mmu: "auto" }))]).toEqual([
        options,
        "EINVAL open",
      ]);
    }
  });

  test.skipIf(skip)("of memory", async () => {
    await using pm = await open({ mmu, device: false });
    await using other = await open({ mmu, device: false });
    const { mm }: { mm: Anything } = pm;
    const data: Anything = await mm.mmap({ length: PAGE_SIZE, name: "data" });
    const file = await other.openFile("package.json");
    const opening = pm.openFile("package.json");
    const named = memory();
    new Uint8Array(named.buffer)[9] = 4;
    const calls: [string, () => unknown][] = [
      ["EINVAL mmap", () => mm.mmap({ length: PAGE_SIZE, object: file })],
      ["EINVAL mmap", () => mm.mmap({ length: PAGE_SIZE, object: opening })],
      ["EINVAL mmap", () => mm.mmap({ length: PAGE_SIZE, object: "package.json" })],
      ["EINVAL mmap", () => mm.mmap()],
      ["EINVAL mmap", () => mm.mmap({ length: PAGE_SIZE, name: 5 })],
      ["EINVAL mmap", () => mm.mmap({ length: PAGE_SIZE, prot: 10n })],
      ["EINVAL madvise", () => mm.madvise(data.start, PAGE_SIZE, 10n)],
      ["EINVAL munmap", () => mm.munmap(data.start)],
      ["EINVAL munmap", () => mm.munmap()],
      ["EINVAL mapping", () => mm.mapping(null, PAGE_SIZE)],
      ["EINVAL mapping", () => mm.mapping(data.start, "4096")],
      ["EINVAL read", () => data.read(PAGE_SIZE - 2, 4)],
      ["EINVAL read", () => data.read(null, 4)],
      ["EINVAL read", () => data.read(0n, 4)],
      ["EINVAL read", () => data.read(0, 4n)],
      ["EINVAL lease", () => data.lease(10n)],
      ["EINVAL lease", () => data.lease("r", null)],
      ["EINVAL open", () => pm.openUrl("http://127.0.0.1:9/", null as Anything)],
      ["EINVAL open", () => pm.openUrl("http://127.0.0.1:9/", { signal: 5 } as Anything)],
      ["EINVAL open", () => pm.openUrl("http://127.0.0.1:9/", { timeoutMs: Number.NaN })],
      ["EINVAL read", () => data.read("5", 1)],
      ["EINVAL write", () => data.write(-1, Uint8Array.of(1))],
      ["EINVAL write", () => data.write(0, [1, 2])],
      ["EINVAL write", () => data.write(0, null)],
      ["EINVAL populate", () => data.populate(0, 2 * PAGE_SIZE)],
      ["EINVAL range", () => data.range(0, Number.NaN)],
      ["EINVAL lease", () => data.lease("r", { offset: "a" })],
      ["EINVAL adopt", () => mm.adopt()],
      ["EINVAL adopt", () => mm.adopt({})],
      ["EINVAL adopt", () => mm.adopt(new Uint8Array(65_536))],
      ["EINVAL adopt", () => mm.adopt(new SharedArrayBuffer(65_536))],
      ["EINVAL adopt", () => mm.adopt({ buffer: new SharedArrayBuffer(65_536) })],
      ["EINVAL adopt", () => mm.adopt(data)],
      ["EINVAL adopt", () => mm.adopt(memory(), null)],
      ["EINVAL mmap", () => mm.adopt(named, { name: 5 })],
      ["EINVAL adopt", () => mm.adopt(memory(), { maximum: "524288" })],
      ["EINVAL adopt", () => mm.adopt(memory(), { maximum: Number.NaN })],
      ["EINVAL adopt", () => mm.adopt(memory(0))],
    ];
    for (const [expected, call] of calls) {
      expect([String(call), await failure(call)]).toEqual([String(call), expected]);
    }
    expect(new Uint8Array(named.buffer)[9]).toBe(4);
    // Nothing of it is in the way of what is right.
    const empty = memory(0);
    const growing = await mm.adopt(empty, MAXIMUM);
    empty.grow(1);
    await growing.write(0, Uint8Array.of(3));
    await growing.munmap();
    expect(new Uint8Array(empty.buffer)[0]).toBe(3);
    const adopted = await mm.adopt(memory(), MAXIMUM);
    await adopted.write(8, Uint8Array.of(7));
    expect([...(await adopted.read(8, 1))]).toEqual([7]);
    await file.put();
    await (await opening).put();
  });

  test.skipIf(skip)("a file that is being opened when all is closed is closed too", async () => {
    const pm = await open({ mmu, device: false });
    const opening = failure(() => pm.openFile("package.json"));
    await pm.close();
    // What comes first; nothing is left open, as the ledger tells.
    expect(["nothing", "ESRCH open", "ESRCH openFile"]).toContain(await opening);
  });

  test.skipIf(skip)("of kernels", async () => {
    await using pm: SharedMirror = await open({ mmu });
    await using other = await open({ mmu, device: false });
    const data: Anything = await pm.mm.mmap({ length: PAGE_SIZE, name: "data" });
    // At the same address as what the other one maps.
    const theirs: Anything = await other.mm.mmap({ length: PAGE_SIZE, name: "theirs" });
    expect(theirs.start).toBe(data.start);
    const kernel: Anything = await pm.device.kernel(INCREMENT);
    const { device }: { device: Anything } = pm;
    const walk: Anything = await pm.device.kernel("@compute @workgroup_size(1) fn main() { pm_store_u32(1u, 1u); }", {
      name: "walk",
    });
    const dispatch = (bind: unknown, more: object = {}) => kernel.dispatch({ bind, workgroups: 1, ...more });
    const waits: [string, (options: Anything) => unknown][] = [
      ["kernel", (options) => dispatch({ data }, options)],
      ["walk", (options) => walk.dispatch({ mm: pm.mm, workgroups: 1, ...options })],
      ["prefetch", (options) => device.prefetch(data, options)],
      ["kernel", (options) => device.kernel(INCREMENT, options)],
    ];
    for (const [op, call] of waits) {
      for (const timeoutMs of [Number.NaN, -1, "5", null, 10n, {}]) {
        expect([op, timeoutMs, await failure(() => call({ timeoutMs }))]).toEqual([op, timeoutMs, `EINVAL ${op}`]);
      }
      for (const signal of [null, 5, {}, new AbortController()]) {
        expect([op, signal, await failure(() => call({ signal }))]).toEqual([op, signal, `EINVAL ${op}`]);
      }
    }
    const calls: [string, () => unknown][] = [
      ["EINVAL kernel", () => device.kernel()],
      ["EINVAL kernel", () => device.kernel(INCREMENT, { name: 5 })],
      ["EINVAL kernel", () => device.kernel(INCREMENT, null)],
      ["EINTR kernel", () => device.kernel(INCREMENT, { signal: AbortSignal.abort() })],
      ["EINVAL kernel", () => kernel.dispatch()],
      ["EINVAL kernel", () => dispatch(null)],
      ["EINVAL walk", () => walk.dispatch({ mm: pm.mm, params: { list: null }, workgroups: 1 })],
      ["EINVAL dispatch", () => walk.dispatch({ mm: {}, workgroups: 1 })],
      ["EINVAL prefetch", () => device.prefetch(data, null)],
      ["EINVAL dispatch", () => dispatch({ data: theirs })],
      ["EINVAL dispatch", () => dispatch({ data: null })],
      ["EINVAL dispatch", () => dispatch({ data: data.u32 })],
      ["EINVAL dispatch", () => dispatch({ data }, { mm: other.mm })],
      ["EINVAL prefetch", () => device.prefetch(theirs)],
      ["EINVAL advise", () => device.advise(data.u8, "read-mostly")],
    ];
    for (const [expected, call] of calls) {
      expect([String(call), await failure(call)]).toEqual([String(call), expected]);
    }
    // No timer takes so long a time; with a signal that stays silent.
    await dispatch({ data }, { timeoutMs: 2 ** 53, signal: new AbortController().signal });
    expect(new Uint32Array((await data.read(0, 4)).buffer)[0]).toBe(1);
  });
});

test.each(both)("memory is adopted once, until it is given back: on %s", async (mmu) => {
  await using pm = await open({ mmu, device: false });
  await using other = await open({ mmu, device: false });
  // Gone again: the memory that both are in begins with pages that are nobody's.
  const first = await pm.mm.mmap({ length: PAGE_SIZE });
  const data = await pm.mm.mmap({ length: 65_536, name: "data" });
  await first.munmap();
  const heap = memory();
  const adopted = await pm.mm.adopt(heap, MAXIMUM);
  for (const [pmOf, what] of [
    [pm, heap],
    [other, heap],
    [pm, data],
    [other, data],
    [pm, { buffer: new SharedArrayBuffer(65_536) }],
  ] as const) {
    expect(await failure(() => pmOf.mm.adopt(what, MAXIMUM))).toBe("EINVAL adopt");
  }
  const words = new Uint32Array(heap.buffer);
  words[5] = 6;
  expect([words[5], data.u32[0]]).toEqual([6, 0]);
  await adopted.munmap();
  const again = await other.mm.adopt(heap, MAXIMUM);
  expect([...(await again.read(20, 1))]).toEqual([6]);
});

test.each(both)("adopted memory goes whole, whatever its program may do with it: on %s", async (mmu) => {
  const heap = memory();
  const words = new Uint32Array(heap.buffer);
  const pm = await open({ mmu, device: false });
  const { start, length } = await pm.mm.adopt(heap, MAXIMUM);
  words[5] = 6;
  for (const [op, call] of [
    ["munmap", () => pm.mm.munmap(start, PAGE_SIZE)],
    ["munmap", () => pm.mm.munmap(start + PAGE_SIZE, length)],
    ["mremap", () => pm.mm.mremap(start, length, 2 * length)],
    ["mmap", () => pm.mm.mmap({ addr: start + PAGE_SIZE, length: PAGE_SIZE, fixed: true })],
  ] as const) {
    expect(await failure(call)).toBe(`EINVAL ${op}`);
  }
  await pm.mm.mprotect(start, PAGE_SIZE, "r");
  await pm.mm.mprotect(start + PAGE_SIZE, PAGE_SIZE, "none");
  await pm.close();
  expect(words[5]).toBe(6);
});

test.each(both)("two spaces adopt two memories at one address, and both are given back: on %s", async (mmu) => {
  const heaps = [memory(), memory()];
  const pm = await open({ mmu, device: false });
  const child = await pm.mm.fork();
  const [first, second] = [await pm.mm.adopt(heaps[0], MAXIMUM), await child.adopt(heaps[1], MAXIMUM)];
  expect(second.start).toBe(first.start);
  await first.write(0, Uint8Array.of(1));
  await second.write(0, Uint8Array.of(2));
  await pm.close();
  expect(heaps.map(({ buffer }) => new Uint8Array(buffer)[0])).toEqual([1, 2]);
});

test.each(both)("past what an adopted memory has grown to: on %s", async (mmu) => {
  await using pm = await open({ mmu, device: false });
  const heap = memory();
  const adopted = await pm.mm.adopt(heap, MAXIMUM);
  await adopted.write(65_532, Uint8Array.of(1, 2, 3, 4));
  expect([...(await adopted.read(65_534, 4))]).toEqual([3, 4, 0, 0]);
  expect([...(await adopted.read(100_000, 2))]).toEqual([0, 0]);
  expect((await adopted.read()).length).toBe(adopted.length);
  const sizes: number[] = [];
  for (const offset of [65_532, 65_536, 100_000]) {
    using lease = await adopted.lease("rw", { offset, length: 8 });
    sizes.push(lease.byteLength, lease.u8.length, lease.u32.length);
  }
  expect(sizes).toEqual([4, 4, 1, 0, 0, 0, 0, 0, 0]);
  for (const offset of [65_534, 65_536, 100_000]) {
    // The software MMU has nothing there yet.
    const expected = mmu === "software" ? "EFAULT write" : "nothing";
    expect(await failure(() => adopted.write(offset, Uint8Array.of(5, 6, 7, 8)))).toBe(expected);
  }
  heap.grow(1);
  await adopted.write(100_000, Uint8Array.of(9));
  expect(new Uint8Array(heap.buffer)[100_000]).toBe(9);
});

test.each(both)("a service that was closed says so for each call: on %s", async (mmu) => {
  const pm = await open({ mmu, device: false });
  const data = await pm.mm.mmap({ length: PAGE_SIZE });
  const lease = await data.lease("r");
  await pm.close();
  lease.release();
  expect(await failure(() => data.read())).toBe("ESRCH read");
  expect(await failure(() => pm.mm.stats())).toBe("ESRCH stats");
  expect(await failure(() => pm.device.kernel(INCREMENT))).toBe("ESRCH kernel");
  expect(await failure(() => pm.device.stats())).toBe("ESRCH deviceStats");
  expect(await failure(() => pm.openFile("package.json"))).toBe("ESRCH openFile");
  expect(await failure(() => pm.openUrl("http://127.0.0.1:9/"))).toBe("ESRCH openUrl");
  expect(await failure(() => pm.counts())).toBe("ESRCH counts");
});

test.skipIf(!report.works)("what cannot be sent to the service is named", async () => {
  await using pm = await open({ mmu: "userfaultfd", device: false });
  const options = { length: PAGE_SIZE, name: () => "x" };
  expect(await failure(() => pm.mm.mmap(options as Anything))).toBe("EINVAL mmap");
});

test("in this thread the same is wrong", async () => {
  await using pm = await open();
  const data: Anything = await pm.mm.mmap({ length: PAGE_SIZE, name: "data" });
  const { mm, device }: { mm: Anything; device: Anything } = pm;
  const opening = pm.openFile("package.json");
  const kernel: Anything = await device.kernel(INCREMENT);
  const walk: Anything = await device.kernel("@compute @workgroup_size(1) fn main() { pm_store_u32(1u, 1u); }", {
    name: "walk",
  });
  const calls: [string, () => unknown][] = [
    ["EINVAL mmap", () => mm.mmap({ length: PAGE_SIZE, object: opening })],
    ["EINVAL write", () => data.write(0, [1, 2])],
    ["EINVAL adopt", () => mm.adopt()],
    ["EINVAL kernel", () => device.kernel(7)],
    ["EINVAL kernel", () => kernel.dispatch({ bind: { data: new Uint32Array(4) }, workgroups: 1 })],
    ["EINVAL prefetch", () => device.prefetch({})],
    ["EINVAL prefetch", () => device.prefetch(data, { timeoutMs: Number.NaN })],
    ["EINVAL kernel", () => kernel.dispatch({ bind: { data }, workgroups: 1, timeoutMs: Number.NaN })],
    ["EINVAL kernel", () => kernel.dispatch({ bind: { data }, workgroups: 1, signal: 5 })],
    ["EINVAL walk", () => walk.dispatch({ mm: {}, workgroups: 1 })],
  ];
  for (const [expected, call] of calls) {
    expect([String(call), await failure(call)]).toEqual([String(call), expected]);
  }
  await (await opening).put();
});
