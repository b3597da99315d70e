import { describe, expect, test } from "vitest";
import { PAGE_SIZE } from "../base/index.ts";
import { type AddressSpace, Mapping, migrateToRam, PageFlag, validateMm } from "../mm/index.ts";
import type { MmapRead } from "../sync/index.ts";
import { takeBugs } from "../testing/bugs.ts";
import {
  createMm,
  drawEntries,
  errorCode,
  FakeDevice,
  filledBytes,
  firstBytes,
  gate,
  TestHooks,
  TestPager,
} from "../testing/mm.ts";
import { BASE, turn } from "../testing/spaces.ts";
import {
  MIGRATE_PFN_MIGRATE,
  MIGRATE_PFN_VALID,
  MIGRATE_PFN_WRITE,
  MigrateDeviceRange,
  MigrateSelect,
  MigrateVma,
  type MigratingPages,
  migratePfn,
  migratePfnToPfn,
  migrateVmaAbort,
  migrateVmaFinalize,
  migrateVmaSetup,
} from "./index.ts";

const P = PAGE_SIZE;

/** One letter a page of `src`: `.` cannot move, `p` held by a lease, `z` zeros, `r`, `w` what the CPU could do. */
function drawSrc(m: MigratingPages): string {
  return [...m.src.subarray(0, m.npages)]
    .map((entry) => {
      if ((entry & MIGRATE_PFN_MIGRATE) === 0) {
        return entry === 0 ? "." : "p";
      }
      return entry & MIGRATE_PFN_VALID ? (entry & MIGRATE_PFN_WRITE ? "w" : "r") : "z";
    })
    .join("");
}

interface Setup extends AsyncDisposable {
  readonly mm: AddressSpace;
  readonly device: FakeDevice;
}

async function setUp(): Promise<Setup> {
  const mm = createMm();
  const device = new FakeDevice(mm.memory);
  return {
    mm,
    device,
    async [Symbol.asyncDispose]() {
      await mm[Symbol.asyncDispose]();
      device.remove();
    },
  };
}

let nextFrame = 0;

/** Copies what may move into frames of the device. */
function copyTo(device: FakeDevice, m: MigratingPages): void {
  for (let i = 0; i < m.npages; i++) {
    if (m.src[i] & MIGRATE_PFN_MIGRATE) {
      const frame = device.first + (nextFrame++ % 512);
      device.bytes.set(frame, m.src[i] & MIGRATE_PFN_VALID ? m.hostBytes(i).slice() : new Uint8Array(P));
      m.dst[i] = migratePfn(device.pagemap.pfnOf(frame));
    }
  }
}

/** Copies pages of the device, given by their entries, into host memory. */
function copyHome(device: FakeDevice, m: MigratingPages, entries: readonly number[]): void {
  for (const i of entries) {
    const frame = device.pagemap.frameOf(migratePfnToPfn(m.src[i])) ?? 0;
    m.hostBytes(i).set(device.bytes.get(frame) ?? []);
    m.dst[i] = m.toHost(i);
  }
}

/** Frees the frames of pages that did not move after all. */
function freeUnused(device: FakeDevice, m: MigratingPages): void {
  for (let i = 0; i < m.npages; i++) {
    const frame = device.pagemap.frameOf(migratePfnToPfn(m.dst[i]));
    if ((m.src[i] & MIGRATE_PFN_MIGRATE) === 0 && frame !== undefined) {
      device.bytes.delete(frame);
    }
  }
}

const SYSTEM = MigrateSelect.System;

/** Begins to migrate pages `[page, end)` counted from BASE, under the mmap lock. */
function begin({ mm, device }: Setup, lock: MmapRead, page: number, end: number, select: number = SYSTEM) {
  const bounds = { start: BASE + page * P, end: BASE + end * P };
  return MigrateVma.setup({ mm, lock, ...bounds, pgmapOwner: device, select });
}

async function toDevice(s: Setup, page: number, end: number, select: number = SYSTEM): Promise<string> {
  const { mm, device } = s;
  using lock = await mm.mmapLock.read();
  const m = await begin(s, lock, page, end, select);
  copyTo(device, m);
  m.pages();
  freeUnused(device, m);
  await m.finalize();
  return drawSrc(m);
}

describe("to a device", () => {
  test("I-MM-11: zeros that nobody touched get their entry although madvise empties the page table meanwhile", async () => {
    await using s = await setUp();
    const a = await s.mm.mmap({ addr: BASE, length: 4 * P });
    await a.write(0, Uint8Array.of(1));
    {
      using lock = await s.mm.mmapLock.read();
      const m = await begin(s, lock, 2, 3);
      copyTo(s.device, m);
      await s.mm.madvise(BASE, P, "dontneed");
      m.pages();
      await m.finalize();
    }
    expect(drawEntries(s.mm, BASE, 4)).toBe("..d.");
    validateMm(s.mm);
  });

  test("what was written, read and never touched moves, and the CPU's touch brings it home", async () => {
    await using s = await setUp();
    const a = await s.mm.mmap({ addr: BASE, length: 4 * P });
    await a.write(0, Uint8Array.of(1));
    await a.read(P, 1);
    expect(await toDevice(s, 0, 4)).toBe("wrzz");
    expect(drawEntries(s.mm, BASE, 4)).toBe("dddd");
    validateMm(s.mm);
    expect(await firstBytes(a)).toEqual([1, 0, 0, 0]);
    expect(drawEntries(s.mm, BASE, 4)).toBe("rrrr");
    await a.write(0, Uint8Array.of(2));
    expect(await toDevice(s, 0, 2)).toBe("wr");
    expect(await firstBytes(a)).toEqual([2, 0, 0, 0]);
  });

  test("pages held by a lease, in transit, lost or elsewhere stay, and their neighbours move", async () => {
    await using s = await setUp();
    const other = new FakeDevice(s.mm.memory);
    const a = await s.mm.mmap({ addr: BASE, length: 6 * P });
    await a.write(
      0,
      filledBytes(6, (p) => p + 1),
    );
    const object = s.mm.vmas.find(BASE)?.object;
    expect(object && (await other.take(object, 4, 5))).toBe(true);
    const lease = await a.lease("r", { offset: P, length: P });
    object?.updateFlags(2, 3, PageFlag.Busy, 0);
    object?.updateFlags(3, 4, PageFlag.Poisoned, PageFlag.Uptodate);
    expect(await toDevice(s, 0, 6)).toBe("wp...w");
    expect(lease.u8[0]).toBe(2);
    lease.release();
    object?.updateFlags(2, 3, 0, PageFlag.Busy);
    object?.updateFlags(3, 4, PageFlag.Uptodate, PageFlag.Poisoned);
    expect(await firstBytes(a)).toEqual([1, 2, 3, 4, 5, 6]);
    await s.mm.munmap(BASE, 6 * P);
    other.remove();
  });

  test("it is no error when nothing can move, or nothing is selected", async () => {
    await using s = await setUp();
    const a = await s.mm.mmap({ addr: BASE, length: 2 * P });
    using lease = await a.lease("rw");
    expect(await toDevice(s, 0, 2)).toBe("pp");
    expect(await toDevice(s, 0, 2, 0)).toBe("..");
    expect(lease.u8.length).toBe(2 * P);
  });

  test("pages for which the driver has no frame stay, mapped read-only", async () => {
    await using s = await setUp();
    const a = await s.mm.mmap({ addr: BASE, length: 3 * P });
    await a.write(
      0,
      filledBytes(3, (p) => p + 1),
    );
    const lock = await s.mm.mmapLock.read();
    const m = await begin(s, lock, 0, 3);
    expect([m.npages, m.cpages, drawEntries(s.mm, BASE, 3)]).toEqual([3, 3, "mmm"]);
    copyTo(s.device, m);
    m.dst[1] = 0;
    s.device.bytes.delete(s.device.first + ((nextFrame - 2) % 512));
    m.pages();
    expect(m.cpages).toBe(2);
    await m.finalize();
    lock.release();
    expect(drawEntries(s.mm, BASE, 3)).toBe("drd");
    validateMm(s.mm);
    expect(await firstBytes(a)).toEqual([1, 2, 3]);
  });

  test("I-MIG-3: what was aborted is neither aborted nor finalized again", async () => {
    await using s = await setUp();
    await s.mm.mmap({ addr: BASE, length: P });
    using lock = await s.mm.mmapLock.read();
    const vma = s.mm.vmas.find(BASE) ?? expect.fail();
    const migration = await migrateVmaSetup(lock, vma, vma.start, vma.end, s.device.pagemap);
    if (migration === "pinned") {
      expect.fail();
    }
    migrateVmaAbort(migration);
    migrateVmaAbort(migration);
    expect(takeBugs()).toEqual(["I-MIG-3"]);
    expect(() => migrateVmaFinalize(migration, () => 0)).toThrow(/^I-MIG-3/);
    validateMm(s.mm);
  });

  test("I-MIG-3: a second finalize is reported", async () => {
    await using s = await setUp();
    await s.mm.mmap({ addr: BASE, length: P });
    using lock = await s.mm.mmapLock.read();
    const m = await begin(s, lock, 0, 1);
    await m.finalize();
    await m.finalize();
    expect(takeBugs()).toEqual(["I-MIG-3"]);
  });

  test("zeros that somebody touches before pages() do not move; what is isolated is waited for", async () => {
    await using s = await setUp();
    const a = await s.mm.mmap({ addr: BASE, length: 3 * P });
    await a.write(0, Uint8Array.of(1));
    const lock = await s.mm.mmapLock.read();
    const m = await begin(s, lock, 0, 3);
    expect(drawSrc(m)).toBe("wzz");
    const early = a.read(0, 1);
    await a.write(P, Uint8Array.of(7));
    copyTo(s.device, m);
    m.pages();
    expect(drawSrc(m)).toBe("w.z");
    const late = a.read(2 * P, 1);
    freeUnused(s.device, m);
    await turn();
    await m.finalize();
    lock.release();
    expect([(await early)[0], (await late)[0]]).toEqual([1, 0]);
    expect(await firstBytes(a)).toEqual([1, 7, 0]);
  });

  test("EINVAL: a hole, two mappings, no whole pages, device registers, too few entries", async () => {
    await using s = await setUp();
    await s.mm.mmap({ addr: BASE, length: 2 * P });
    await s.mm.mmap({ addr: BASE + 2 * P, length: P, prot: "r" });
    using lock = await s.mm.mmapLock.read();
    const at = (start: number, end: number, more = {}) =>
      errorCode(() => MigrateVma.setup({ mm: s.mm, lock, start, end, pgmapOwner: s.device, select: SYSTEM, ...more }));
    expect(
      await Promise.all([
        at(BASE + 8 * P, BASE + 9 * P),
        at(BASE, BASE + 3 * P),
        at(BASE, BASE),
        at(BASE + 1, BASE + P),
        at(BASE, BASE + 2 * P, { src: new Uint32Array(1) }),
        at(BASE, BASE + 2 * P, { dst: new Uint32Array(1) }),
      ]),
    ).toEqual(Array(6).fill("EINVAL"));
  });

  test("files and forked pages move with their bytes, and a child keeps what it had", async () => {
    await using s = await setUp();
    const a = await s.mm.mmap({ addr: BASE, length: 2 * P });
    await a.write(
      0,
      filledBytes(2, () => 5),
    );
    await using child = await s.mm.fork();
    expect(await toDevice(s, 0, 2)).toBe("rr");
    const c = new Mapping(child, a.start, a.length, "child");
    expect(await firstBytes(c)).toEqual([5, 5]);
    expect(await toDevice({ ...s, mm: child }, 0, 2)).toBe("rr");
    expect(await firstBytes(c)).toEqual([5, 5]);
    const pager = new TestPager(filledBytes(2, (p) => 40 + p));
    const { MemoryObject } = await import("../mm/index.ts");
    const file = new MemoryObject(s.mm.memory, { pages: 2, pager });
    await s.mm.mmap({ addr: BASE + 8 * P, length: 2 * P, object: file });
    await file.put();
    expect(await toDevice(s, 8, 10)).toBe("rr");
    pager.failReads = true;
    expect(await firstBytes(new Mapping(s.mm, (BASE + 8 * P) as typeof a.start, 2 * P, "f"))).toEqual([40, 41]);
  });

  test("mirrors are told once, with the owner, before anything is isolated", async () => {
    await using s = await setUp();
    const a = await s.mm.mmap({ addr: BASE, length: 2 * P });
    await a.write(0, Uint8Array.of(1));
    const hooks = TestHooks.on(s.mm);
    const { wait, open } = gate();
    hooks.delay = () => wait;
    const moving = toDevice(s, 0, 2);
    await turn();
    expect(drawEntries(s.mm, BASE, 2)).toBe("w.");
    open();
    expect(await moving).toBe("wz");
    expect(hooks.told.map(({ event, owner }) => [event, owner === s.device])).toEqual([["migrate", true]]);
    s.mm.notifiers = undefined;
  });
});

describe("from a device", () => {
  test("back to the host, by address: only own pages, and their frames are freed", async () => {
    await using s = await setUp();
    const a = await s.mm.mmap({ addr: BASE, length: 3 * P });
    await a.write(
      0,
      filledBytes(3, (p) => p + 1),
    );
    await toDevice(s, 0, 2);
    expect(await toDevice({ ...s, device: new FakeDevice(s.mm.memory, 0) }, 0, 2, MigrateSelect.DevicePrivate)).toBe(
      "..",
    );
    using lock = await s.mm.mmapLock.read();
    const m = await begin(s, lock, 0, 3, MigrateSelect.DevicePrivate);
    expect(drawSrc(m)).toBe("ww.");
    copyHome(s.device, m, [0, 1]);
    m.pages();
    await m.finalize();
    expect(s.device.bytes.size).toBe(0);
    expect(await firstBytes(a)).toEqual([1, 2, 3]);
  });

  test("by frame, whoever maps them; frames without a page are left out; the CPU waits meanwhile", async () => {
    await using s = await setUp();
    const a = await s.mm.mmap({ addr: BASE, length: 3 * P, shared: true });
    await a.write(
      0,
      filledBytes(3, (p) => p + 1),
    );
    nextFrame = 10;
    await toDevice(s, 0, 3);
    await using child = await s.mm.fork();
    expect(s.device.pagemap.homeOf(s.device.first + 11)?.page).toBe(1);
    const m = await MigrateDeviceRange.setup(s.device.pagemap, s.device.first + 9, 3);
    expect([drawSrc(m), drawEntries(s.mm, BASE, 3)]).toEqual([".rr", "mmd"]);
    const reading = new Mapping(child, a.start, P, "child").read(0, 1);
    await turn();
    copyHome(s.device, m, [1, 2]);
    m.pages();
    await m.finalize();
    expect((await reading)[0]).toBe(1);
    expect([...s.device.bytes.keys()]).toEqual([s.device.first + 12]);
    expect(await firstBytes(a)).toEqual([1, 2, 3]);
    expect(s.device.pagemap.homeOf(s.device.first + 11)).toBeUndefined();
    expect(await errorCode(() => MigrateDeviceRange.setup(s.device.pagemap, 0, 0))).toBe("EINVAL");
  });

  test("by frame, of a mapping that goes meanwhile: the object lives until the end", async () => {
    await using s = await setUp();
    const a = await s.mm.mmap({ addr: BASE, length: P });
    await a.write(0, Uint8Array.of(1));
    nextFrame = 0;
    await toDevice(s, 0, 1);
    const m = await MigrateDeviceRange.setup(s.device.pagemap, s.device.first, 1);
    await a.munmap();
    m.pages();
    await m.finalize();
    expect(s.device.bytes.size).toBe(0);
  });

  test("a fault that is under way and an eviction of the same pages both end", async () => {
    await using s = await setUp();
    const a = await s.mm.mmap({ addr: BASE, length: P });
    await a.write(0, Uint8Array.of(3));
    nextFrame = 0;
    await toDevice(s, 0, 1);
    const { wait, open } = gate();
    s.device.beforeReadback = () => wait;
    const reading = a.read(0, 1);
    await turn();
    const m = await MigrateDeviceRange.setup(s.device.pagemap, s.device.first, 1);
    expect(drawSrc(m)).toBe(".");
    await m.finalize();
    open();
    expect((await reading)[0]).toBe(3);
    const object = s.mm.vmas.find(BASE)?.object;
    await (object && migrateToRam(object, 0, 1));
  });
});
