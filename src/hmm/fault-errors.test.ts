import { expect, test } from "vitest";
import { PageFlag, PteKind, pteOfKind, VmFlags } from "../mm/index.ts";
import { fault, fixed, makeBusy, objectOf, P, picture, setUp, snapshot, V, VPN, W } from "../testing/ranges.ts";
import { BASE, begin, createSpace, invalidation, turn } from "../testing/spaces.ts";
import { HmmRange, type HmmRangeOptions } from "./index.ts";

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
