import { describe, expect, test } from "vitest";
import { BugError, ledgerCounts, PAGE_SIZE } from "../base/index.ts";
import { takeBugs } from "../testing/bugs.ts";
import { createMemory, createMm, errorCode, filledBytes, gate, TestHooks, TestPager } from "../testing/mm.ts";
import { turn } from "../testing/spaces.ts";
import { DevicePagemap, MemoryObject, msync, PTE_PRESENT, VmFlags, validateMm } from "./index.ts";

const P = PAGE_SIZE;

describe("users and count of an address space", () => {
  test("the last user runs the exit path once; the structure stays while it is counted", async () => {
    const mm = createMm();
    const hooks = TestHooks.on(mm);
    await mm.mmap({ length: P });
    expect([mm.users, mm.count]).toEqual([1, 1]);
    mm.mmget();
    expect(mm.tryGetUsers()).toBe(true);
    mm.mmgrab();
    await mm.mmput();
    await mm.mmput();
    expect([mm.users, mm.vmas.size, hooks.releases]).toEqual([1, 1, 0]);
    await mm.mmput();
    expect([mm.users, mm.vmas.size, hooks.releases, mm.count]).toEqual([0, 0, 1, 1]);
    expect(hooks.destroyed).toBe(false);
    validateMm(mm);
    mm.mmdrop();
    expect(hooks.destroyed).toBe(true);
  });

  test("I-REF-1: nobody becomes a user again, and one drop too many is reported", async () => {
    const mm = createMm();
    mm.mmgrab();
    await mm.mmput();
    expect(mm.tryGetUsers()).toBe(false);
    expect(() => mm.mmget()).toThrow(BugError);
    mm.mmput();
    mm.mmdrop();
    mm.mmdrop();
    expect(takeBugs()).toEqual(["I-REF-1", "I-REF-1"]);
  });

  test("dispose drops the creator's user once, and waits for the exit", async () => {
    const mm = createMm();
    mm.mmget();
    await mm[Symbol.asyncDispose]();
    await mm[Symbol.asyncDispose]();
    expect(mm.users).toBe(1);
    await mm.mmput();
  });

  test("every call after the exit is ESRCH", async () => {
    const mm = createMm();
    const m = await mm.mmap({ length: P });
    await mm.mmput();
    const calls = [
      () => mm.mmap({ length: P }),
      () => mm.munmap(m.start, P),
      () => mm.mprotect(m.start, P, "r"),
      () => mm.madvise(m.start, P, "dontneed"),
      () => mm.mremap(m.start, P, 2 * P),
      () => mm.fork(),
      () => msync(mm, m.start, P),
      () => m.lease("r"),
      () => m.read(),
      () => m.write(0, Uint8Array.of(1)),
    ];
    for (const call of calls) {
      expect(await errorCode(call)).toBe("ESRCH");
    }
  });

  test("the exit waits for a fault that waits for its file; a lease that outlives it keeps its array", async () => {
    const mm = createMm();
    const pager = new TestPager(filledBytes(1, () => 7));
    const { wait, open } = gate();
    pager.delay = () => wait;
    const object = new MemoryObject(mm.memory, { pages: 1, pager });
    const other = await mm.mmap({ length: P });
    const held = await other.lease("rw");
    const m = await mm.mmap({ length: P, object });
    await object.put();
    const lease = errorCode(() => m.lease("r"));
    await turn();
    const exit = mm.mmput();
    await turn();
    expect(mm.vmas.size).toBe(2);
    open();
    expect(await lease).toBe("ESRCH");
    await exit;
    held.u8[0] = 7;
    expect(held.u8[0]).toBe(7);
    held.release();
  });

  test("a release callback that fails does not keep the mappings", async () => {
    const mm = createMm();
    await mm.mmap({ length: P });
    TestHooks.on(mm).release = () => {
      throw new Error("the driver is broken");
    };
    await expect(mm.mmput()).rejects.toThrow("the driver is broken");
    expect(mm.vmas.size).toBe(0);
  });
});

describe("objects, frames and checks", () => {
  test("I-REF-2: an object is not used after its end, nor put once more", async () => {
    const object = new MemoryObject(createMemory(), { pages: 1 });
    await object.put();
    expect(() => object.get()).toThrow("I-REF-2");
    expect(() => object.put()).toThrow("I-REF-2");
  });

  test("an object whose pager cannot be closed still lets its source go", async () => {
    const memory = createMemory();
    const pager = new TestPager(filledBytes(1, () => 1));
    pager.close = () => {
      throw new Error("close failed");
    };
    const object = new MemoryObject(memory, { pages: 1, pager });
    await expect(async () => object.put()).rejects.toThrow("close failed");
    expect(ledgerCounts()["memory object"] ?? 0).toBe(0);
  });

  test("I-MM-8, I-MIG-2: frames are freed once", () => {
    const memory = createMemory();
    const pagemap = new DevicePagemap(memory, {}, { migrateToRam: async () => {}, pageFree: () => {} });
    const first = pagemap.addFrames(600);
    expect(memory.blocksInUse).toBe(2);
    const pfn = pagemap.pfnOf(first + 520);
    expect(pagemap.frameOf(pfn)).toBe(first + 520);
    expect(memory.pageOf(pfn)).toBeUndefined();
    pagemap.removeFrames(first, 1024);
    expect(memory.blocksInUse).toBe(0);
    expect(() => pagemap.removeFrames(first, 512)).toThrow("I-MIG-2");
    expect(() => pagemap.pfnOf(first)).toThrow("I-MIG-2");
    expect(() => memory.freeBlock(pfn - (pfn % 512))).toThrow("I-MM-8");
  });

  test("validateMm finds an entry without a mapping, one that grants too much, and one of another page", async () => {
    await using mm = createMm();
    const m = await mm.mmap({ length: 2 * P });
    (await m.lease("rw")).release();
    const vpn = m.start / P;
    const good = mm.pageTable.get(vpn);
    mm.pageTable.set(vpn, mm.pageTable.get(vpn + 1));
    expect(() => validateMm(mm)).toThrow("I-MM-5");
    mm.pageTable.set(vpn, good);
    mm.pageTable.set(vpn + 2, PTE_PRESENT);
    expect(() => validateMm(mm)).toThrow("I-MM-3");
    mm.pageTable.set(vpn + 2, 0);
    const vma = mm.vmas.find(m.start);
    if (vma !== undefined) {
      vma.flags &= ~VmFlags.Write;
      expect(() => validateMm(mm)).toThrow("I-MM-4");
      vma.flags |= VmFlags.Write;
    }
    validateMm(mm);
  });
});
