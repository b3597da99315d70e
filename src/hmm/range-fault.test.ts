import { expect, test } from "vitest";
import { isPromise } from "../base/index.ts";
import { type AddressSpace, DevicePagemap, PageFlag, PteKind, pteOfKind, ptePfn, VmFlags } from "../mm/index.ts";
import { MmuIntervalNotifier } from "../mmu-notifier/index.ts";
import { errorCode } from "../testing/mm.ts";
import { fixed, P, VPN } from "../testing/ranges.ts";
import { BASE, begin, createSpace, invalidation, turn } from "../testing/spaces.ts";
import {
  HMM_PFN_ERROR,
  HMM_PFN_REQ_FAULT,
  HMM_PFN_REQ_WRITE,
  HMM_PFN_VALID,
  HMM_PFN_WRITE,
  type HmmIntervalRange,
  hmmPfnToMapOrder,
  hmmPfnToPfn,
  hmmRangeFault,
  hmmRangeFaultUnlocked,
} from "./index.ts";

const READ = HMM_PFN_REQ_FAULT;
const WRITE = HMM_PFN_REQ_FAULT | HMM_PFN_REQ_WRITE;

interface Setup extends AsyncDisposable {
  readonly mm: AddressSpace;
  range(page: number, end: number, more?: Partial<HmmIntervalRange>): Promise<HmmIntervalRange>;
}

async function setUp(): Promise<Setup> {
  const mm = createSpace();
  const notifier = new MmuIntervalNotifier({
    name: "test",
    invalidate(sub, _range, seq) {
      sub.setSeq(seq);
      return true;
    },
  });
  await notifier.insert(mm, 0, 2 ** 48);
  return {
    mm,
    async range(page, end, more) {
      const hmmPfns = more?.hmmPfns ?? new Uint32Array(end - page);
      const bounds = { start: BASE + page * P, end: BASE + end * P };
      return { notifier, notifierSeq: await notifier.readBegin(), hmmPfns, ...bounds, ...more };
    },
    async [Symbol.asyncDispose]() {
      await mm.mmput();
      await notifier.remove();
    },
  };
}

/** Faults under the mmap lock: the result, or the code. */
async function fault(range: HmmIntervalRange): Promise<string | number> {
  using lock = await range.notifier.mm.mmapLock.read();
  let result: string | number = "";
  const code = await errorCode(async () => {
    result = await hmmRangeFault(range, lock);
  });
  return code === "none" ? result : code;
}

function picture({ hmmPfns }: HmmIntervalRange): string {
  const letter = (entry: number) =>
    entry & HMM_PFN_ERROR ? "E" : entry & HMM_PFN_VALID ? (entry & HMM_PFN_WRITE ? "w" : "r") : ".";
  return [...hmmPfns].map(letter).join("");
}

test("one request for all pages, or one a page; what the CPU grants comes out", async () => {
  await using s = await setUp();
  const mapping = await s.mm.mmap(fixed(0, 4));
  await mapping.write(3 * P, Uint8Array.of(1));
  const read = await s.range(0, 4, { defaultFlags: READ });
  expect(await fault(read)).toBe(0);
  expect(picture(read)).toBe("rrrw");
  expect(hmmPfnToPfn(read.hmmPfns[2])).toBe(ptePfn(s.mm.pageTable.get(VPN + 2)));
  const some = await s.range(0, 4, { pfnFlagsMask: WRITE });
  some.hmmPfns.set([WRITE, READ, HMM_PFN_REQ_WRITE, 0]);
  expect(await fault(some), "a write fault is announced, to this notifier too").toBe("EBUSY");
  some.notifierSeq = await some.notifier.readBegin();
  expect(await fault(some)).toBe(0);
  expect(picture(some), "write without fault asks for nothing").toBe("wrrw");
});

test("without a request nothing is faulted in, and what the CPU could not have is an error entry", async () => {
  await using s = await setUp();
  const mapping = await s.mm.mmap(fixed(1, 6));
  await mapping.write(0, Uint8Array.of(1));
  await s.mm.mprotect(BASE + 3 * P, P, "none");
  s.mm.pageTable.set(VPN + 5, pteOfKind(PteKind.Poisoned, 0));
  const range = await s.range(0, 9);
  range.hmmPfns.fill(WRITE);
  expect(await fault(range)).toBe(0);
  expect(picture(range)).toBe("Ew.E.E.EE");
  const vma = s.mm.vmas.find(BASE + P);
  if (vma !== undefined) {
    vma.flags |= VmFlags.PfnMap;
  }
  const special = await s.range(1, 3);
  expect([await fault(special), picture(special)]).toEqual([0, "EE"]);
  s.mm.pageTable.set(VPN + 5, 0);
});

test("EFAULT: a requested page in a hole, unreadable, of device registers, or lost; EPERM: not writable", async () => {
  await using s = await setUp();
  await s.mm.mmap(fixed(0, 4));
  await s.mm.mprotect(BASE + P, P, "none");
  const at = async (page: number, request: number) => {
    const range = await s.range(0, 6, { pfnFlagsMask: WRITE });
    range.hmmPfns[0] = READ;
    range.hmmPfns[page] = request;
    range.hmmPfns[5] ||= HMM_PFN_REQ_WRITE;
    return [await fault(range), picture(range)];
  };
  expect(await at(1, READ)).toEqual(["EFAULT", "rE...."]);
  expect(await at(4, READ)).toEqual(["EFAULT", "rE..E."]);
  s.mm.pageTable.set(VPN + 2, pteOfKind(PteKind.Special, 0));
  expect(await at(2, READ)).toEqual(["EFAULT", "rEE..."]);
  s.mm.pageTable.set(VPN + 2, 0);
  await s.mm.mprotect(BASE + 2 * P, P, "r");
  expect(await at(2, WRITE)).toEqual(["EPERM", "rEE..."]);
  const vma = s.mm.vmas.find(BASE + 3 * P);
  if (vma !== undefined) {
    vma.flags |= VmFlags.Io;
  }
  expect(await at(3, READ)).toEqual(["EFAULT", "rE.E.."]);
});

test("EFAULT: a page whose fault fails, found exactly; ENOMEM", async () => {
  await using s = await setUp();
  await s.mm.mmap(fixed(0, 8));
  const object = s.mm.vmas.find(BASE)?.object;
  object?.reserve(0, 8);
  object?.updateFlags(5, 6, PageFlag.Poisoned, 0);
  const range = await s.range(0, 8, { defaultFlags: READ });
  expect(await fault(range)).toBe("EFAULT");
  expect(picture(range)).toBe("rrrrrE..");
  object?.updateFlags(5, 6, 0, PageFlag.Poisoned);
  await s.mm.mmap(fixed(1000, 2));
  const other = await s.range(1000, 1002, { defaultFlags: READ });
  s.mm.memory.failAfter(0);
  expect(await fault(other)).toBe("ENOMEM");
  s.mm.memory.failAfter();
  expect(picture(other)).toBe("E.");
});

test("own device-private pages are valid entries, never faulted; those of others are brought home", async () => {
  await using s = await setUp();
  await s.mm.mmap(fixed(0, 1));
  const owner = {};
  const pagemap = new DevicePagemap(s.mm.memory, owner, { migrateToRam: async () => {}, pageFree: () => {} });
  const frame = pagemap.addFrames(1);
  const first = await s.range(0, 1, { defaultFlags: READ });
  await fault(first);
  s.mm.pageTable.set(VPN, pteOfKind(PteKind.DevicePrivate, pagemap.pfnOf(frame), 2));
  const own = await s.range(0, 1, { defaultFlags: WRITE, devPrivateOwner: owner });
  expect([await fault(own), picture(own)]).toEqual([0, "w"]);
  expect(hmmPfnToPfn(own.hmmPfns[0])).toBe(pagemap.pfnOf(frame));
  const foreign = await s.range(0, 1, { devPrivateOwner: {} });
  expect([await fault(foreign), picture(foreign)]).toEqual([0, "."]);
  const faulted = await s.range(0, 1, { defaultFlags: READ, devPrivateOwner: {} });
  expect(await fault(faulted)).toBe(0);
  expect(hmmPfnToPfn(faulted.hmmPfns[0])).toBe(hmmPfnToPfn(first.hmmPfns[0]));
  pagemap.removeFrames(frame, 512);
});

test("EBUSY: the sequence is old; the entries are untouched, requests included", async () => {
  await using s = await setUp();
  await s.mm.mmap(fixed(0, 2));
  const range = await s.range(0, 2, { pfnFlagsMask: WRITE });
  range.hmmPfns.set([READ, WRITE]);
  const end = begin(invalidation(s.mm, 0, 1));
  expect(await fault(range)).toBe("EBUSY");
  await end();
  expect(await fault(range)).toBe("EBUSY");
  expect([...range.hmmPfns]).toEqual([READ, WRITE]);
  range.notifierSeq = await range.notifier.readBegin();
  expect([await fault(range), range.notifier.readRetry(range.notifierSeq)]).toEqual(["EBUSY", true]);
  range.notifierSeq = await range.notifier.readBegin();
  expect([await fault(range), picture(range)], "the write fault has been announced").toEqual([0, "rw"]);
});

test("order: aligned blocks of 16 and 512 pages with frames that follow each other and one permission", async () => {
  await using s = await setUp();
  const first = 512 - (VPN % 512);
  const mapping = await s.mm.mmap(fixed(first, 1024));
  await mapping.write(600 * P, Uint8Array.of(1));
  const range = await s.range(first, first + 1024, { defaultFlags: READ });
  expect(await fault(range)).toBe(0);
  const orders = [...range.hmmPfns].map(hmmPfnToMapOrder);
  expect(orders.slice(0, 512).every((order) => order === 9)).toBe(true);
  expect([orders[512], orders[591], orders[592], orders[600], orders[607], orders[608]]).toEqual([4, 4, 0, 0, 0, 4]);
  const odd = await s.range(first + 3, first + 500, { defaultFlags: READ });
  await fault(odd);
  const oddOrders = [...odd.hmmPfns].map(hmmPfnToMapOrder);
  expect([oddOrders[12], oddOrders[13], oddOrders[492], oddOrders[493]]).toEqual([0, 4, 4, 0]);
});

test("EINVAL: not of whole pages, outside the notifier, too few entries; I-MN-12: not inserted; I-SYNC-2", async () => {
  await using s = await setUp();
  const range = await s.range(0, 2);
  const lock = await s.mm.mmapLock.read();
  const codes: string[] = [];
  const none = new MmuIntervalNotifier(range.notifier.ops);
  const small = new MmuIntervalNotifier(range.notifier.ops);
  await small.insert(s.mm, BASE, P);
  for (const more of [{ start: BASE + 1 }, { end: BASE }, { notifier: small }, { hmmPfns: new Uint32Array(1) }]) {
    codes.push(await errorCode(() => hmmRangeFault({ ...range, ...more }, lock)));
  }
  expect(codes).toEqual(["EINVAL", "EINVAL", "EINVAL", "EINVAL"]);
  expect(() => hmmRangeFault({ ...range, notifier: none }, lock)).toThrow("I-MN-12");
  lock.release();
  expect(() => hmmRangeFault({ ...range, defaultFlags: READ }, lock)).toThrow("I-SYNC-2");
  await small.remove();
});

test("unlocked: drops the lock while a page is in transit, and begins its time anew after that", async () => {
  await using s = await setUp();
  await s.mm.mmap(fixed(0, 2));
  const object = s.mm.vmas.find(BASE)?.object;
  object?.reserve(0, 2);
  object?.updateFlags(1, 2, PageFlag.Busy, 0);
  const range = await s.range(0, 2, { pfnFlagsMask: WRITE });
  range.hmmPfns.set([READ, READ]);
  const faulting = hmmRangeFaultUnlocked(range);
  await turn();
  const writer = s.mm.mmapLock.tryWrite();
  expect(writer, "the lock is free").toBeDefined();
  writer?.release();
  object?.updateFlags(1, 2, 0, PageFlag.Busy);
  object?.wq.wakeAll();
  expect([await faulting, picture(range)]).toEqual([0, "rr"]);
  expect(isPromise(range.notifier.readBegin())).toBe(false);
});

test("unlocked: EBUSY when its time is over, EINTR, EFAULT when the space has exited", async () => {
  await using s = await setUp();
  await s.mm.mmap(fixed(0, 2));
  const range = await s.range(0, 2, { defaultFlags: READ });
  const end = begin(invalidation(s.mm, 0, 1));
  expect(await errorCode(() => hmmRangeFaultUnlocked(range, { timeoutMs: 1 }))).toBe("EBUSY");
  const abort = new AbortController();
  const aborted = errorCode(() => hmmRangeFaultUnlocked(range, { signal: abort.signal, timeoutMs: 0 }));
  await turn();
  abort.abort();
  expect(await aborted).toBe("EINTR");
  await end();
  expect(await hmmRangeFaultUnlocked(range)).toBe(0);
  const gone = createSpace();
  const sub = new MmuIntervalNotifier(range.notifier.ops);
  await sub.insert(gone, BASE, 2 * P);
  await gone.mmput();
  expect(await errorCode(() => hmmRangeFaultUnlocked({ ...range, notifier: sub }))).toBe("EFAULT");
  await sub.remove();
});
