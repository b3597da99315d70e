import fc from "fast-check";
import { expect, test } from "vitest";
import { isPromise, type VirtAddr } from "../base/index.ts";
import { DevicePagemap, PTE_PRESENT, PTE_WRITE, PteKind, pteOfKind, ptePfn } from "../mm/index.ts";
import { D, fault, fixed, makeBusy, NONE, P, picture, setUp, snapshot, V, VPN, W } from "../testing/ranges.ts";
import { begin, invalidation, turn } from "../testing/spaces.ts";
import { entryFromPfn, entryToPfn, HmmMirror, HmmRange } from "./index.ts";

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
