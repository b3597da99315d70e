import { describe, expect, test } from "vitest";
import { isPromise, KernelError, PAGE_SIZE } from "../base/index.ts";
import {
  createMm,
  drawEntries,
  errorCode,
  FakeDevice,
  filledBytes,
  firstBytes,
  gate,
  TestHooks,
} from "../testing/mm.ts";
import { BASE, turn } from "../testing/spaces.ts";
import { type AddressSpace, type Lease, Mapping, PageFlag, validateMm } from "./index.ts";

const P = PAGE_SIZE;

async function onDevice(mm: AddressSpace, pages: number, options = {}): Promise<{ m: Mapping; device: FakeDevice }> {
  const device = new FakeDevice(mm.memory);
  const m = await mm.mmap({ length: pages * P, addr: BASE, ...options });
  await m.write(
    0,
    filledBytes(pages, (p) => p + 1),
  );
  await device.takeMapping(m);
  expect(drawEntries(mm, BASE, pages)).toBe("d".repeat(pages));
  return { m, device };
}

describe("pages in device memory", () => {
  test("come back for a lease, whole and in order, and only those that are needed", async () => {
    await using mm = createMm();
    const { m, device } = await onDevice(mm, 4);
    using lease = await m.lease("r", { offset: P, length: 2 * P });
    expect([lease.u8[0], lease.u8[P - 1], lease.u8[P]]).toEqual([2, 2, 3]);
    expect(drawEntries(mm, BASE, 4)).toBe("drrd");
    validateMm(mm);
    expect(await firstBytes(m)).toEqual([1, 2, 3, 4]);
    expect(device.readbacks, "the two that were left came in one go").toBe(2);
    device.remove();
  });

  test("are not taken from under a lease", async () => {
    await using mm = createMm();
    const { m, device } = await onDevice(mm, 2);
    const lease = await m.lease("r");
    const object = mm.vmas.find(BASE)?.object;
    expect(object && (await device.take(object, 0, 2))).toBe(false);
    lease.release();
    await device.takeMapping(m);
    await m.munmap();
    device.remove();
  });

  test("are freed, each frame once, by munmap, madvise, a fixed mapping, a shrink and the exit", async () => {
    const mm = createMm();
    const { m, device } = await onDevice(mm, 8);
    await mm.munmap(BASE, P);
    expect(device.bytes.size).toBe(7);
    await mm.madvise(BASE + P, P, "dontneed");
    expect(device.bytes.size).toBe(6);
    await mm.mmap({ length: P, addr: BASE + 2 * P, fixed: true });
    expect(device.bytes.size).toBe(5);
    await mm.mremap(BASE + 6 * P, 2 * P, P);
    expect(device.bytes.size).toBe(4);
    const moved = await mm.mremap(BASE + 3 * P, P, P, { addr: BASE + 20 * P });
    expect(drawEntries(mm, moved.start, 1)).toBe("d");
    expect((await moved.read())[0]).toBe(4);
    expect(m.length).toBe(8 * P);
    await mm.mmput();
    expect(device.bytes.size).toBe(0);
    device.remove();
  });

  test("of a parent come back for the child, and are copied before the parent's next write", async () => {
    await using mm = createMm();
    const { m, device } = await onDevice(mm, 3);
    await using child = await mm.fork();
    const c = new Mapping(child, m.start, m.length, "child");
    expect((await c.read(0, 1))[0]).toBe(1);
    await m.write(P, Uint8Array.of(50));
    expect(await firstBytes(c)).toEqual([1, 2, 3]);
    expect(await firstBytes(m)).toEqual([1, 50, 3]);
    device.remove();
  });

  test("of a parent that exits stay until its child is done with them", async () => {
    const mm = createMm();
    const { m, device } = await onDevice(mm, 2);
    const child = await mm.fork();
    await mm.mmput();
    expect(device.bytes.size).toBe(2);
    expect((await new Mapping(child, m.start, P, "child").read())[0]).toBe(1);
    await child.mmput();
    device.remove();
  });

  test("of a shared mapping leave and come back for every space that maps them, and all are told", async () => {
    await using mm = createMm();
    const { m, device } = await onDevice(mm, 1, { shared: true });
    await using child = await mm.fork();
    const hooks = [TestHooks.on(mm), TestHooks.on(child)];
    const c = new Mapping(child, m.start, P, "child");
    expect((await c.read())[0]).toBe(1);
    expect(hooks.map(({ told }) => told.map(({ event, owner }) => [event, owner === device]))).toEqual([
      [["migrate", true]],
      [["migrate", true]],
    ]);
    expect(drawEntries(mm, BASE, 1)).toBe("r");
    device.remove();
  });

  test("are brought back once for any number of concurrent leases", async () => {
    await using mm = createMm();
    const { m, device } = await onDevice(mm, 2);
    const { wait, open } = gate();
    device.beforeReadback = () => wait;
    const leases = [m.lease("r"), m.lease("rw"), m.lease("r", { length: P })];
    await turn();
    expect(drawEntries(mm, BASE, 2)).toBe("mm");
    open();
    for (const lease of await Promise.all<Lease>(leases)) {
      expect(lease.u8[0]).toBe(1);
      lease.release();
    }
    expect(device.readbacks).toBe(1);
    device.remove();
  });

  test("stay where they are when they cannot be read back, and the next try may succeed", async () => {
    await using mm = createMm();
    const { m, device } = await onDevice(mm, 2);
    device.beforeReadback = () => {
      throw new KernelError("EIO", "read-back", "the queue is full");
    };
    expect(await errorCode(() => m.lease("r"))).toBe("EIO");
    expect(drawEntries(mm, BASE, 2)).toBe("dd");
    validateMm(mm);
    device.beforeReadback = undefined;
    expect(await firstBytes(m)).toEqual([1, 2]);
    device.remove();
  });

  test("are lost with their device: EHWPOISON, never zeros, until they are mapped anew", async () => {
    await using mm = createMm();
    const { m, device } = await onDevice(mm, 3);
    await mm.munmap(BASE, P);
    device.beforeReadback = () => {
      throw new KernelError("ENODEV", "read-back", "the device was lost");
    };
    const rest = new Mapping(mm, m.range(P).start, 2 * P, "rest");
    expect(await errorCode(() => rest.lease("r"))).toBe("EHWPOISON");
    expect(drawEntries(mm, BASE, 3)).toBe(".pp");
    validateMm(mm);
    await mm.madvise(BASE + P, 2 * P, "dontneed");
    expect(await firstBytes(rest)).toEqual([0, 0]);
    device.bytes.clear();
    device.remove();
  });

  test("of two devices come back from both, though one moves its pages by itself meanwhile", async () => {
    await using mm = createMm();
    const { m, device } = await onDevice(mm, 2);
    const second = new FakeDevice(mm.memory);
    const object = mm.vmas.find(BASE)?.object;
    (await m.lease("r", { offset: P })).release();
    expect(object && (await second.take(object, 1, 2))).toBe(true);
    const { wait, open } = gate();
    device.beforeReadback = () => wait;
    const both = m.lease("r");
    await turn();
    await m.write(P, Uint8Array.of(70));
    open();
    const lease = await both;
    expect([lease.u8[0], lease.u8[P]]).toEqual([1, 70]);
    lease.release();
    device.remove();
    second.remove();
  });

  test("keep within what mprotect allows, wherever they are on their way", async () => {
    await using mm = createMm();
    const { m, device } = await onDevice(mm, 2);
    const { wait, open } = gate();
    device.beforeReadback = async () => {
      await wait;
      throw new KernelError("EIO", "read-back", "the queue is full");
    };
    await using child = await mm.fork();
    const look = errorCode(() => new Mapping(child, m.start, 2 * P, "child").lease("r"));
    await turn();
    await mm.mprotect(BASE, P, "r");
    await mm.mprotect(BASE + P, P, "none");
    open();
    expect(await look).toBe("EIO");
    validateMm(mm);
    device.beforeReadback = undefined;
    expect((await m.read(0, 1))[0]).toBe(1);
    await mm.mprotect(BASE, 2 * P, "rw");
    expect(await firstBytes(m)).toEqual([1, 2]);
    device.remove();
  });

  test("on their way while the mapping grows into a longer window arrive in the new one", async () => {
    await using mm = createMm();
    const { m, device } = await onDevice(mm, 2);
    await using child = await mm.fork();
    const { wait, open } = gate();
    device.beforeReadback = () => wait;
    const look = new Mapping(child, m.start, 2 * P, "child").read();
    await turn();
    const grown = mm.mremap(BASE, 2 * P, 4 * P);
    await turn();
    open();
    expect((await look)[P]).toBe(2);
    expect(await firstBytes(await grown)).toEqual([1, 2, 0, 0]);
    device.remove();
  });

  test("a child that exits while its parent's write fills its copy leaves nothing behind", async () => {
    await using mm = createMm();
    const { m, device } = await onDevice(mm, 2);
    const child = await mm.fork();
    const { wait, open } = gate();
    device.beforeReadback = () => wait;
    const object = child.vmas.find(BASE)?.object;
    const write = m.write(0, Uint8Array.of(9));
    await turn();
    const exit = child.mmput();
    expect(isPromise(exit)).toBe(true);
    await exit;
    open();
    await write;
    expect(object?.refs).toBe(0);
    expect((object?.flagsOf(0) ?? 0) & PageFlag.Busy).toBe(0);
    expect(await firstBytes(m)).toEqual([9, 2]);
    device.remove();
  });

  test("a space that maps shared pages while others are being told is told too", async () => {
    await using mm = createMm();
    const m = await mm.mmap({ length: P, shared: true });
    const object = mm.vmas.find(m.start)?.object;
    const first = TestHooks.on(mm);
    const { wait, open } = gate();
    first.delay = () => wait;
    const lease = m.lease("rw");
    await turn();
    await using late = createMm(mm.memory);
    const hooks = TestHooks.on(late);
    await late.mmap({ length: P, object, shared: true });
    open();
    (await lease).release();
    expect(hooks.told.length).toBe(1);
  });

  test("a space that exits while it is being told is told the end before it goes", async () => {
    await using mm = createMm();
    const m = await mm.mmap({ length: P, shared: true });
    const child = await mm.fork();
    const hooks = TestHooks.on(child);
    const { wait, open } = gate();
    hooks.delay = () => wait;
    const lease = m.lease("rw");
    await turn();
    await child.mmput();
    expect(hooks.destroyed).toBe(false);
    open();
    (await lease).release();
    expect(hooks.destroyed).toBe(true);
  });
});
