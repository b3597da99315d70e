import fc from "fast-check";
import { expect, test } from "vitest";
import { isPromise, type VirtAddr } from "../base/index.ts";
import {
  type AddressSpace,
  DevicePagemap,
  type MemoryObject,
  PageFlag,
  PTE_PRESENT,
  PTE_WRITE,
  PteKind,
  pteOfKind,
  ptePfn,
  VmFlags,
} from "../mm/index.ts";
import { mmuNotifierSynchronize } from "../mmu-notifier/index.ts";
import { BASE, begin, createSpace, invalidation, turn } from "../testing/spaces.ts";
import {
  DEFAULT_PFN_FLAGS,
  DEFAULT_PFN_VALUES,
  entryFromPfn,
  entryToPfn,
  HmmMirror,
  HmmRange,
  type HmmRangeOptions,
} from "./index.ts";

const P = 4096;
const VPN = BASE / P;
const V = DEFAULT_PFN_FLAGS.valid;
const W = DEFAULT_PFN_FLAGS.write;
const D = DEFAULT_PFN_FLAGS.devicePrivate;
const NONE = DEFAULT_PFN_VALUES.none;

interface Setup extends AsyncDisposable {
  readonly mm: AddressSpace;
  range(page: number, end: number, more?: Partial<HmmRangeOptions>): HmmRange;
  pte(page: number): number;
}

async function setUp(): Promise<Setup> {
  const mm = createSpace();
  const mirror = new HmmMirror({ name: "test", syncCpuDevicePagetables: () => 0 });
  await mirror.register(mm);
  const ranges: HmmRange[] = [];
  return {
    mm,
    pte: (page) => mm.pageTable.get(VPN + page),
    range(page, end, more) {
      const range = new HmmRange({ start: BASE + page * P, end: BASE + end * P, ...more });
      range.register(mirror);
      ranges.push(range);
      return range;
    },
    async [Symbol.asyncDispose]() {
      for (const range of ranges) {
        await range[Symbol.asyncDispose]();
      }
      await mirror.unregister();
      await mm.mmput();
      await mmuNotifierSynchronize();
    },
  };
}

const fixed = (page: number, pages: number) => ({ addr: BASE + page * P, length: pages * P, fixed: true }) as const;

async function fault(s: Setup, range: HmmRange, options?: Parameters<HmmRange["faultLocked"]>[1]) {
  using lock = await s.mm.mmapLock.read();
  return await range.faultLocked(lock, options);
}

async function snapshot(s: Setup, range: HmmRange) {
  using lock = await s.mm.mmapLock.read();
  return range.snapshotLocked(lock);
}

/** One letter a page: `.` none, r, w, d own device memory, E error, S special. */
function picture(range: HmmRange): string {
  const letter = (entry: number): string => {
    if (entry === NONE) {
      return ".";
    }
    if (entry === range.values.error || entry === range.values.special) {
      return entry === range.values.error ? "E" : "S";
    }
    return entry & D ? "d" : entry & W ? "w" : "r";
  };
  return [...range.pfns].map(letter).join("");
}

/** Marks pages of the mapping at page 0 as in transit; the function that comes back ends that. */
function makeBusy(s: Setup, page: number, end: number): () => void {
  const object = objectOf(s);
  object.reserve(page, end);
  object.updateFlags(page, end, PageFlag.Busy, 0);
  return () => {
    object.updateFlags(page, end, 0, PageFlag.Busy);
    object.wq.wakeAll();
  };
}

function objectOf(s: Setup): MemoryObject {
  const object = s.mm.vmas.find(BASE)?.object;
  if (object === undefined) {
    throw new Error("nothing is mapped");
  }
  return object;
}

test("usage B: one request for all pages; input entries are ignored; the count is of pages", async () => {
  await using s = await setUp();
  await s.mm.mmap(fixed(0, 4));
  const range = s.range(0, 4, { defaultFlags: V });
  range.pfns.fill(W | V);
  expect(await fault(s, range)).toBe(4);
  expect(picture(range)).toBe("rrrr");
  range.defaultFlags = V | W;
  expect(await fault(s, range)).toBe(4);
  expect(picture(range)).toBe("wwww");
  expect(range.pfns[2]).toBe(((ptePfn(s.pte(2)) << 5) | V | W) >>> 0);
  expect(range.valid).toBe(true);
});

test("usage A: a request for each page, and the CPU's real permission comes out whatever was asked", async () => {
  await using s = await setUp();
  const mapping = await s.mm.mmap(fixed(0, 5));
  await mapping.write(0, new Uint8Array([1]));
  const range = s.range(0, 5, { pfnFlagsMask: 0xffff_ffff });
  range.pfns.set([V, V, V | W, 0, 0]);
  expect(await fault(s, range)).toBe(5);
  expect(picture(range)).toBe("wrw..");
});

test("a request without VALID does nothing, also with WRITE", async () => {
  await using s = await setUp();
  await s.mm.mmap(fixed(0, 2));
  const range = s.range(0, 2, { defaultFlags: W });
  expect(await fault(s, range)).toBe(2);
  expect(picture(range)).toBe("..");
  expect(s.pte(0)).toBe(0);
});

test("snapshot faults nothing: absent pages, holes and pages in transit are none, and all count", async () => {
  await using s = await setUp();
  const mapping = await s.mm.mmap(fixed(0, 4));
  await mapping.write(P, new Uint8Array([1]));
  await mapping.read(2 * P, 1);
  await s.mm.mmap(fixed(6, 1));
  s.mm.pageTable.set(VPN + 3, pteOfKind(PteKind.Migrating, 9));
  const range = s.range(0, 7, { defaultFlags: V | W });
  expect(await snapshot(s, range)).toBe(7);
  expect(picture(range)).toMatch(/^\.w[r.]\.\.\.\.$/);
  expect(await fault(s, range, { snapshot: true })).toBe(7);
  expect(s.pte(0)).toBe(0);
});

test("a fault of everything that is there is synchronous", async () => {
  await using s = await setUp();
  await s.mm.mmap(fixed(0, 3));
  const range = s.range(0, 3, { defaultFlags: V | W });
  await fault(s, range);
  using lock = await s.mm.mmapLock.read();
  const result = range.faultLocked(lock);
  expect(isPromise(result)).toBe(false);
  expect(result).toBe(3);
});

test("EFAULT: nothing is mapped at or above the address, snapshot or not; entries before it are results", async () => {
  await using s = await setUp();
  await s.mm.mmap(fixed(0, 2));
  const range = s.range(0, 4, { defaultFlags: V });
  range.pfns.fill(99);
  await expect(fault(s, range)).rejects.toMatchObject({ code: "EFAULT" });
  expect(picture(range)).toBe("rr..");
  await expect(snapshot(s, range)).rejects.toMatchObject({ code: "EFAULT" });
  expect(range.valid).toBe(false);
});

test("EFAULT: a page requested in a hole; holes that are not requested are none", async () => {
  await using s = await setUp();
  await s.mm.mmap(fixed(0, 1));
  await s.mm.mmap(fixed(3, 1));
  const range = s.range(0, 4, { pfnFlagsMask: 0xffff_ffff });
  range.pfns.set([V, 0, 0, V]);
  expect(await fault(s, range)).toBe(4);
  expect(picture(range)).toBe("r..r");
  range.pfns.set([V, 0, V, V]);
  await expect(fault(s, range)).rejects.toMatchObject({ code: "EFAULT" });
  expect(picture(range)).toBe("r...");
});

test("EFAULT: VMAs of device registers and of raw entries, snapshot or not", async () => {
  await using s = await setUp();
  await s.mm.mmap(fixed(0, 2));
  const vma = s.mm.vmas.find(BASE);
  const range = s.range(0, 2, { defaultFlags: V });
  for (const flag of [VmFlags.Io, VmFlags.PfnMap, VmFlags.MixedMap]) {
    if (vma !== undefined) {
      vma.flags |= flag;
    }
    await expect(fault(s, range)).rejects.toMatchObject({ code: "EFAULT" });
    await expect(snapshot(s, range)).rejects.toMatchObject({ code: "EFAULT" });
    if (vma !== undefined) {
      vma.flags &= ~flag;
    }
  }
  expect(await fault(s, range)).toBe(2);
});

test("EPERM: a VMA without read permission; its entries and all after it are none", async () => {
  await using s = await setUp();
  await s.mm.mmap(fixed(0, 6));
  await s.mm.mprotect(BASE + 2 * P, 2 * P, "none");
  const range = s.range(0, 6, { defaultFlags: V });
  range.pfns.fill(99);
  await expect(fault(s, range)).rejects.toMatchObject({ code: "EPERM" });
  expect(picture(range)).toBe("rr....");
  await expect(snapshot(s, range)).rejects.toMatchObject({ code: "EPERM" });
});

test("EPERM: write requested on a VMA without write permission, instead of a loop without end", async () => {
  await using s = await setUp();
  await s.mm.mmap({ ...fixed(0, 2), prot: "r" });
  const range = s.range(0, 2, { defaultFlags: V | W });
  await expect(fault(s, range)).rejects.toMatchObject({ code: "EPERM" });
  range.defaultFlags = V;
  expect(await fault(s, range)).toBe(2);
  expect(picture(range)).toBe("rr");
});

test("EFAULT: a poisoned page becomes ERROR and a special one SPECIAL, snapshot or not; the tail is none", async () => {
  await using s = await setUp();
  await s.mm.mmap(fixed(0, 3));
  const range = s.range(0, 3, { defaultFlags: V });
  for (const [kind, letter] of [
    [PteKind.Poisoned, "E"],
    [PteKind.Special, "S"],
  ] as const) {
    await fault(s, range);
    s.mm.pageTable.set(VPN + 1, pteOfKind(kind, 0));
    await expect(fault(s, range)).rejects.toMatchObject({ code: "EFAULT" });
    expect(picture(range)).toBe(`r${letter}.`);
    await expect(snapshot(s, range)).rejects.toMatchObject({ code: "EFAULT" });
    expect(picture(range)).toBe(`r${letter}.`);
    s.mm.pageTable.set(VPN + 1, 0);
  }
});

test("EFAULT: a page whose fault fails becomes ERROR, found exactly; entries before it are results", async () => {
  await using s = await setUp();
  await s.mm.mmap(fixed(0, 8));
  const object = objectOf(s);
  object.reserve(0, 8);
  object.updateFlags(5, 6, PageFlag.Poisoned, 0);
  const range = s.range(0, 8, { defaultFlags: V });
  await expect(fault(s, range)).rejects.toMatchObject({ code: "EFAULT" });
  expect(picture(range)).toBe("rrrrrE..");
  object.updateFlags(5, 6, 0, PageFlag.Poisoned);
  expect(await fault(s, range)).toBe(8);
});

test("EAGAIN: with allowRetry a fault that has to wait drops the lock; without, it waits under it", async () => {
  await using s = await setUp();
  await s.mm.mmap(fixed(0, 2));
  const range = s.range(0, 2, { defaultFlags: V });
  const lock = await s.mm.mmapLock.read();
  const arrive = makeBusy(s, 0, 2);
  const retried = range.faultLocked(lock, { allowRetry: true });
  expect(lock.isHeld).toBe(false);
  arrive();
  expect(await retried).toBe("EAGAIN");
  expect(picture(range)).toBe("..");
  const arriveAgain = makeBusy(s, 0, 2);
  using second = await s.mm.mmapLock.read();
  const waited = range.faultLocked(second);
  await turn();
  arriveAgain();
  expect(await waited).toBe(2);
  second.assertHeld();
});

test("a range that is unregistered while its fault waits is reported", async () => {
  await using s = await setUp();
  await s.mm.mmap(fixed(0, 2));
  const range = s.range(0, 2, { defaultFlags: V });
  const arrive = makeBusy(s, 0, 2);
  const faulting = fault(s, range);
  await turn();
  await range.unregister();
  arrive();
  await expect(faulting).rejects.toThrow("I-HMM-8");
});

test("ENOMEM: the page that got no memory becomes ERROR", async () => {
  await using s = await setUp();
  await s.mm.mmap(fixed(0, 2));
  const range = s.range(0, 2, { defaultFlags: V });
  s.mm.memory.failAfter(0);
  await expect(fault(s, range)).rejects.toMatchObject({ code: "ENOMEM" });
  s.mm.memory.failAfter();
  expect(picture(range)).toBe("E.");
  expect(await fault(s, range)).toBe(2);
});

test("EBUSY: a blocked range; the lock is still held and the entries are none", async () => {
  await using s = await setUp();
  await s.mm.mmap(fixed(0, 2));
  const range = s.range(0, 2, { defaultFlags: V });
  await fault(s, range);
  const end = begin(invalidation(s.mm, 1, 2));
  using lock = await s.mm.mmapLock.read();
  expect(await range.faultLocked(lock)).toBe("EBUSY");
  lock.assertHeld();
  expect(picture(range)).toBe("..");
  await end();
  expect(await range.faultLocked(lock)).toBe(2);
});

test("EINTR: a fault that is aborted", async () => {
  await using s = await setUp();
  await s.mm.mmap(fixed(0, 2));
  const range = s.range(0, 2, { defaultFlags: V });
  await expect(fault(s, range, { signal: AbortSignal.abort() })).rejects.toMatchObject({ code: "EINTR" });
  expect(range.valid).toBe(false);
});

test("I-SYNC-2: a fault or snapshot without the lock of the space", async () => {
  await using s = await setUp();
  await using other = createSpace();
  const range = s.range(0, 2, { defaultFlags: V });
  const lock = await s.mm.mmapLock.read();
  lock.release();
  expect(() => range.faultLocked(lock)).toThrow("I-SYNC-2");
  expect(() => range.snapshotLocked(lock)).toThrow("I-SYNC-2");
  using foreign = await other.mmapLock.read();
  expect(() => range.faultLocked(foreign)).toThrow("I-SYNC-2");
});

test("own device memory is reported in place, faulted home only on request; that of others is no page", async () => {
  await using s = await setUp();
  const mapping = await s.mm.mmap(fixed(0, 1));
  await mapping.write(0, new Uint8Array([1]));
  const owner = {};
  const pagemap = new DevicePagemap(s.mm.memory, owner, { migrateToRam: async () => {}, pageFree: () => {} });
  const frame = pagemap.addFrames(1);
  const pfn = pagemap.pfnOf(frame);
  const home = s.pte(0);
  const away = pteOfKind(PteKind.DevicePrivate, pfn, PTE_WRITE);
  const own = s.range(0, 1, { defaultFlags: V | W, devicePrivateOwner: owner });
  const foreign = s.range(0, 1, { devicePrivateOwner: {} });

  s.mm.pageTable.set(VPN, away);
  expect(await fault(s, own)).toBe(1);
  expect(own.pfns[0]).toBe(((pfn << 5) | V | W | D) >>> 0);
  expect(await snapshot(s, foreign)).toBe(1);
  expect(picture(foreign)).toBe(".");

  own.defaultFlags = V | D;
  expect(await fault(s, own)).toBe(1);
  expect(s.pte(0) & PTE_PRESENT).toBe(PTE_PRESENT);
  expect(picture(own)).not.toBe("d");

  s.mm.pageTable.set(VPN, away);
  foreign.defaultFlags = V;
  expect(await fault(s, foreign)).toBe(1);
  expect(ptePfn(s.pte(0))).toBe(ptePfn(home));
  pagemap.removeFrames(frame, 512);
});

test("a driver's own bits: flags, values and shift", async () => {
  await using s = await setUp();
  const mapping = await s.mm.mmap(fixed(0, 3));
  await mapping.write(0, new Uint8Array([1]));
  const format = {
    flags: { valid: 8, write: 4, devicePrivate: 2 },
    values: { error: 0xffff_fffe, none: 1, special: 0xffff_fffe },
    pfnShift: 4,
  };
  const range = s.range(0, 3, { ...format, defaultFlags: 0 });
  await fault(s, range);
  const entry = ((ptePfn(s.pte(0)) << 4) | 8 | 4) >>> 0;
  expect([...range.pfns]).toEqual([entry, 1, 1]);
  expect(entryToPfn(range, entry)).toBe(ptePfn(s.pte(0)));
  expect(entryFromPfn(range, 5)).toBe((5 << 4) | 8);
  for (const noPage of [1, 0xffff_fffe, 5 << 4]) {
    expect(entryToPfn(range, noPage)).toBe(-1);
  }
});

test("EINVAL: tables that contradict themselves", () => {
  const bounds = { start: BASE, end: BASE + P };
  const bad: Partial<HmmRangeOptions>[] = [
    { values: { error: 1, none: 1, special: 2 } },
    { values: { error: 1, none: 2, special: 2 } },
    { flags: { valid: 32, write: 2, devicePrivate: 4 } },
    { flags: { valid: 0, write: 2, devicePrivate: 4 } },
    { pfnShift: 6 },
    { pfnShift: 1 },
  ];
  for (const more of bad) {
    expect(() => new HmmRange({ ...bounds, ...more })).toThrow(expect.objectContaining({ code: "EINVAL" }));
  }
});

test("across block borders and VMAs, a snapshot says what the page table says", () => {
  return fc.assert(
    fc.asyncProperty(
      fc.array(fc.record({ page: fc.nat(1100), kind: fc.constantFrom("r", "w", "migrating") }), { maxLength: 40 }),
      fc.nat(600),
      fc.integer({ min: 1, max: 500 }),
      fc.boolean(),
      async (pages, first, count, ownBits) => {
        await using s = await setUp();
        await s.mm.mmap(fixed(0, 700));
        await s.mm.mmap({ ...fixed(700, 401), prot: "rw", name: "second" });
        s.mm.pageTable.reserve(VPN, VPN + 1101);
        for (const { page, kind } of pages) {
          const bits = kind === "r" ? PTE_PRESENT : kind === "w" ? PTE_PRESENT | PTE_WRITE : PteKind.Migrating;
          s.mm.pageTable.set(VPN + page, ((page << 5) | bits) >>> 0);
        }
        const more = ownBits ? { flags: { valid: 2, write: 1, devicePrivate: 4 } } : {};
        const range = s.range(first, first + count, more);
        expect(await snapshot(s, range)).toBe(count);
        for (let i = 0; i < count; i++) {
          const pte = s.pte(first + i);
          const flags = range.flags.valid | (pte & PTE_WRITE ? range.flags.write : 0);
          expect(range.pfns[i]).toBe(pte & PTE_PRESENT ? ((ptePfn(pte) << 5) | flags) >>> 0 : NONE);
        }
        s.mm.pageTable.forEachRun(VPN, VPN + 1101, (block, from, to) => block.fill(0, from, to));
      },
    ),
    { numRuns: 40 },
  );
});

test("an invalidation that begins and ends while a fault waits costs nothing: the entries are read after it", async () => {
  await using s = await setUp();
  await s.mm.mmap(fixed(0, 2));
  const range = s.range(0, 2, { defaultFlags: V });
  const arrive = makeBusy(s, 0, 2);
  const faulting = fault(s, range);
  await turn();
  await begin(invalidation(s.mm, 0, 2))();
  arrive();
  expect(await faulting).toBe(2);
  expect(range.valid).toBe(true);
});

test("EBUSY: an invalidation that is under way when a fault's wait ends", async () => {
  await using s = await setUp();
  await s.mm.mmap(fixed(0, 2));
  const range = s.range(0, 2, { defaultFlags: V });
  const arrive = makeBusy(s, 0, 2);
  const faulting = fault(s, range);
  await turn();
  const end = begin(invalidation(s.mm, 0, 2));
  arrive();
  expect(await faulting).toBe("EBUSY");
  await end();
  expect(range.valid).toBe(false);
});

test("addresses above 2^40 are not cut to 32 bits", async () => {
  await using s = await setUp();
  const high = (2 ** 47 - 4 * P) as VirtAddr;
  await s.mm.mmap({ addr: high, length: 2 * P, fixed: true });
  const range = new HmmRange({ start: high, end: high + 2 * P, defaultFlags: V | W });
  const mirror = new HmmMirror({ name: "high", syncCpuDevicePagetables: () => 0 });
  await mirror.register(s.mm);
  range.register(mirror);
  expect(await fault(s, range)).toBe(2);
  expect(picture(range)).toBe("ww");
  await range.unregister();
  await mirror.unregister();
});
