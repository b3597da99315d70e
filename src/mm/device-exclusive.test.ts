import { describe, expect, test } from "vitest";
import { PAGE_SIZE, vpnOf } from "../base/index.ts";
import { createMm, drawEntries, errorCode, gate, TestHooks, TestPager } from "../testing/mm.ts";
import { BASE, turn } from "../testing/spaces.ts";
import {
  type AddressSpace,
  type ExclusivePage,
  Mapping,
  MemoryObject,
  makeDeviceExclusive,
  PteKind,
  pteIsKind,
  validateMm,
} from "./index.ts";

const P = PAGE_SIZE;
const owner = {};

async function take(mm: AddressSpace, page = 0): Promise<ExclusivePage | "EBUSY"> {
  using lock = await mm.mmapLock.read();
  return await makeDeviceExclusive(mm, lock, BASE + page * P, owner);
}

/** Takes a page and unlocks it. */
async function takeUnlocked(mm: AddressSpace, page = 0): Promise<number> {
  const taken = await take(mm, page);
  if (taken === "EBUSY") {
    throw new Error("busy");
  }
  taken[Symbol.dispose]();
  taken[Symbol.dispose]();
  validateMm(mm);
  return taken.pfn;
}

const isExclusive = (mm: AddressSpace, page = 0) =>
  pteIsKind(mm.pageTable.get(vpnOf(BASE) + page), PteKind.DeviceExclusive);

describe("a page that a device has for itself", () => {
  test("stays in system memory; a touch of the CPU takes it back, announced", async () => {
    await using mm = createMm();
    const a = await mm.mmap({ addr: BASE, length: 2 * P });
    const hooks = TestHooks.on(mm);
    const pfn = await takeUnlocked(mm);
    expect([isExclusive(mm), isExclusive(mm, 1)]).toEqual([true, false]);
    const page = mm.memory.pageOf(pfn);
    page?.object.windows.bytes(page.page, page.page + 1).set([9]);
    const before = hooks.told.length;
    expect((await a.read(0, 1))[0]).toBe(9);
    expect(hooks.told.slice(before).map((range) => [range.event, range.owner])).toEqual([["exclusive", undefined]]);
    expect([isExclusive(mm), drawEntries(mm, BASE, 2)]).toEqual([false, "w."]);
    validateMm(mm);
    mm.notifiers = undefined;
  });

  test("is announced to all with its owner when it is taken", async () => {
    await using mm = createMm();
    await mm.mmap({ addr: BASE, length: P });
    const hooks = TestHooks.on(mm);
    await takeUnlocked(mm);
    expect(hooks.told.map((range) => [range.event, range.owner === owner])).toEqual([
      ["clear", false],
      ["exclusive", true],
    ]);
    mm.notifiers = undefined;
  });

  test("is locked until its driver has programmed it: the CPU waits", async () => {
    await using mm = createMm();
    const a = await mm.mmap({ addr: BASE, length: P });
    const taken = await take(mm);
    const reading = Promise.resolve(a.read(0, 1));
    let done = false;
    void reading.then(() => {
      done = true;
    });
    await turn();
    expect(done).toBe(false);
    if (taken !== "EBUSY") {
      taken[Symbol.dispose]();
    }
    await reading;
    expect(isExclusive(mm)).toBe(false);
  });

  test.each(["mprotect", "fork", "dontneed", "munmap", "exit"] as const)("is taken back by %s", async (what) => {
    await using mm = createMm();
    const a = await mm.mmap({ addr: BASE, length: 2 * P });
    await a.write(0, Uint8Array.of(4));
    await takeUnlocked(mm);
    if (what === "mprotect") {
      await mm.mprotect(BASE, P, "r");
      expect([(await a.read(0, 1))[0], drawEntries(mm, BASE, 1)]).toEqual([4, "r"]);
      await mm.mprotect(BASE, P, "none");
    } else if (what === "fork") {
      await using child = await mm.fork();
      await a.write(0, Uint8Array.of(5));
      expect((await new Mapping(child, a.start, P, "child").read(0, 1))[0]).toBe(4);
      validateMm(child);
    } else if (what === "dontneed") {
      await mm.madvise(BASE, P, "dontneed");
      expect((await a.read(0, 1))[0]).toBe(0);
    } else if (what === "munmap") {
      await mm.munmap(BASE, P);
    } else {
      await mm[Symbol.asyncDispose]();
    }
    expect(isExclusive(mm)).toBe(false);
    validateMm(mm);
  });

  test("moves with its mapping", async () => {
    await using mm = createMm();
    const a = await mm.mmap({ addr: BASE, length: P });
    await a.write(0, Uint8Array.of(4));
    await takeUnlocked(mm);
    const moved = await mm.mremap(BASE, P, P, { addr: BASE + 8 * P });
    expect(isExclusive(mm, 8)).toBe(true);
    validateMm(mm);
    expect((await moved.read(0, 1))[0]).toBe(4);
  });

  test("cannot be one that a lease holds: EBUSY; nor one that others touch all the time", async () => {
    await using mm = createMm();
    const a = await mm.mmap({ addr: BASE, length: P });
    const lease = await a.lease("r");
    expect(await take(mm)).toBe("EBUSY");
    lease.release();
    const hooks = TestHooks.on(mm);
    hooks.delay = async (range) => {
      if (range.event === "exclusive" && range.owner === owner) {
        mm.pageTable.set(vpnOf(BASE), 0);
      }
    };
    expect(await take(mm)).toBe("EBUSY");
    expect(isExclusive(mm)).toBe(false);
    mm.notifiers = undefined;
  });

  test("is not taken by a lease that waits for the device before the device has let go", async () => {
    await using mm = createMm();
    const a = await mm.mmap({ addr: BASE, length: P });
    await takeUnlocked(mm);
    const hooks = TestHooks.on(mm);
    const { wait, open } = gate();
    hooks.delay = () => wait;
    const writing = a.write(0, Uint8Array.of(1));
    await turn();
    expect(isExclusive(mm)).toBe(true);
    open();
    await writing;
    expect(isExclusive(mm)).toBe(false);
    mm.notifiers = undefined;
  });

  test("EFAULT: nothing mapped; EINVAL: shared, of a file, or read-only", async () => {
    await using mm = createMm();
    expect(await errorCode(() => take(mm))).toBe("EFAULT");
    await mm.mmap({ addr: BASE, length: P, shared: true });
    await mm.mmap({ addr: BASE + P, length: P, prot: "r" });
    const file = new MemoryObject(mm.memory, { pages: 1, pager: new TestPager(new Uint8Array(P)) });
    await mm.mmap({ addr: BASE + 2 * P, length: P, object: file, shared: true });
    await file.put();
    expect([
      await errorCode(() => take(mm)),
      await errorCode(() => take(mm, 1)),
      await errorCode(() => take(mm, 2)),
    ]).toEqual(["EINVAL", "EINVAL", "EINVAL"]);
  });
});
