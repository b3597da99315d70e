import { describe, expect, test } from "vitest";
import { isPromise, PAGE_SIZE } from "../base/index.ts";
import { createMm, drawEntries, FakeDevice, filledBytes, gate, TestHooks, TestPager } from "../testing/mm.ts";
import { turn } from "../testing/spaces.ts";
import { type AddressSpace, type FaultFlags, handleMmFault, MemoryObject, poisonPages, VmFlags } from "./index.ts";

const P = PAGE_SIZE;

/** Faults one page as a device driver does. */
async function fault(mm: AddressSpace, addr: number, flags: FaultFlags) {
  const lock = await mm.mmapLock.read();
  try {
    const vma = mm.vmas.find(addr);
    return vma && (await handleMmFault(mm, lock, vma, addr, addr + P, flags));
  } finally {
    lock.release();
  }
}

describe("handleMmFault", () => {
  test("maps what is there, without bytes in a window, and tells notifiers before a write", async () => {
    await using mm = createMm();
    const m = await mm.mmap({ length: 2 * P });
    const hooks = TestHooks.on(mm);
    expect(await fault(mm, m.start, { write: false })).toBe("mapped");
    expect(await fault(mm, m.start + P, { write: true })).toBe("mapped");
    expect(drawEntries(mm, m.start, 2)).toBe("rw");
    expect(hooks.told.map(({ start }) => start)).toEqual([m.start + P]);
    expect(mm.vmas.find(m.start)?.object.flagsOf(0)).toBe(0);
  });

  test("sigsegv, hwpoison, oom and sigbus name what is wrong", async () => {
    await using mm = createMm();
    const m = await mm.mmap({ length: P, prot: "r" });
    expect(await fault(mm, m.start, { write: true })).toBe("sigsegv");
    await mm.mprotect(m.start, P, "none");
    expect(await fault(mm, m.start, { write: false })).toBe("sigsegv");
    const special = await mm.mmap({ length: P, vmFlags: VmFlags.Io });
    expect(await fault(mm, special.start, { write: false })).toBe("sigsegv");
    const lost = await mm.mmap({ length: P });
    (await lost.lease("rw")).release();
    const object = mm.vmas.find(lost.start)?.object;
    if (object !== undefined) {
      poisonPages(object, 0, 1);
    }
    expect(await fault(mm, lost.start, { write: false })).toBe("hwpoison");
    const fresh = await mm.mmap({ length: P, addr: 2 ** 43 });
    mm.memory.failAfter(0);
    expect(await fault(mm, fresh.start, { write: false })).toBe("oom");
    mm.memory.failAfter();
    expect(await fault(mm, fresh.start, { write: false })).toBe("mapped");
    const short = new MemoryObject(mm.memory, { pages: 1 });
    const long = await mm.mmap({ length: 2 * P, object: short, shared: true });
    await short.put();
    expect(await fault(mm, long.start + P, { write: false, allowRetry: true })).toBe("sigsegv");
  });

  test("a guard that was released is refused", async () => {
    await using mm = createMm();
    const m = await mm.mmap({ length: P });
    const lock = await mm.mmapLock.read();
    const vma = mm.vmas.find(m.start);
    lock.release();
    expect(() => vma && handleMmFault(mm, lock, vma, m.start, m.end, { write: false })).toThrow("I-SYNC-2");
  });

  test("with allowRetry it lets the lock go while it waits for a device, and says so", async () => {
    await using mm = createMm();
    const device = new FakeDevice(mm.memory);
    const m = await mm.mmap({ length: P });
    await m.write(0, Uint8Array.of(5));
    await device.takeMapping(m);
    const { wait, open } = gate();
    device.beforeReadback = () => wait;
    const lock = await mm.mmapLock.read();
    const vma = mm.vmas.find(m.start);
    const outcome = vma && handleMmFault(mm, lock, vma, m.start, m.end, { write: false, allowRetry: true });
    expect(isPromise(outcome)).toBe(true);
    expect(mm.mmapLock.isHeld).toBe(false);
    const unmapped = mm.munmap(m.start, P);
    open();
    expect(await outcome).toBe("retry");
    await unmapped;
    device.remove();
  });

  test("an error that it met without the lock comes back from the next try, not as a retry for ever", async () => {
    await using mm = createMm();
    const pager = new TestPager(filledBytes(1, () => 1));
    pager.delay = turn;
    pager.failReads = true;
    const object = new MemoryObject(mm.memory, { pages: 1, pager });
    const m = await mm.mmap({ length: P, object });
    await object.put();
    await using child = await mm.fork();
    const flags = { write: true, allowRetry: true };
    expect(await fault(mm, m.start, flags)).toBe("retry");
    expect(await fault(mm, m.start, flags)).toBe("sigbus");
    pager.failReads = false;
    expect(await fault(mm, m.start, flags)).toBe("retry");
    expect(await fault(mm, m.start, flags)).toBe("mapped");
    expect(child.users).toBe(1);
  });
});
