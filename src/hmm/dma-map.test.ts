import { expect, test } from "vitest";
import { MemoryObject, PageFlag } from "../mm/index.ts";
import { MmuIntervalNotifier } from "../mmu-notifier/index.ts";
import { errorCode, TestPager } from "../testing/mm.ts";
import { P } from "../testing/ranges.ts";
import { BASE, createSpace } from "../testing/spaces.ts";
import {
  HMM_PFN_REQ_FAULT,
  HMM_PFN_REQ_WRITE,
  type HmmDmaDevice,
  type HmmIntervalRange,
  hmmDmaMapAlloc,
  hmmRangeFault,
} from "./index.ts";

/** An IOMMU that notes what it is told. */
function testDevice(log: string[], more: Partial<HmmDmaDevice> = {}): HmmDmaDevice {
  let next = 1000;
  return {
    mapPage(_pfn, direction) {
      log.push(`map ${direction}`);
      return next++;
    },
    unmapPage: (daddr, direction) => void log.push(`unmap ${daddr} ${direction}`),
    ...more,
  };
}

function withIova(log: string[]): HmmDmaDevice {
  return testDevice(log, {
    reserveIova: (pages) => {
      log.push(`reserve ${pages}`);
      return 0x10_0000;
    },
    linkPage(daddr, _pfn, direction) {
      log.push(`link ${daddr - 0x10_0000} ${direction}`);
      return daddr < 0x10_0000 + 2 * P;
    },
    unlinkPage: (daddr, direction) => void log.push(`unlink ${daddr - 0x10_0000} ${direction}`),
    freeIova: (_daddr, pages) => void log.push(`free ${pages}`),
  });
}

/** A space with a shared file of three pages, of which entries 0 (written) and 1 (read) are faulted in. */
async function setUp(hmmPfns: Uint32Array, mm = createSpace()) {
  const object = new MemoryObject(mm.memory, { pages: 3, pager: new TestPager(new Uint8Array(3 * P)) });
  await mm.mmap({ addr: BASE, length: 3 * P, object, shared: true });
  const notifier = new MmuIntervalNotifier({
    name: "dma",
    invalidate(sub, _range, seq) {
      sub.setSeq(seq);
      return true;
    },
  });
  await notifier.insert(mm, BASE, 3 * P);
  for (let outcome: unknown = "EBUSY"; outcome !== 0; ) {
    hmmPfns.set([HMM_PFN_REQ_FAULT | HMM_PFN_REQ_WRITE, HMM_PFN_REQ_FAULT, 0]);
    const notifierSeq = await notifier.readBegin();
    const range: HmmIntervalRange = { notifier, notifierSeq, start: BASE, end: BASE + 3 * P, hmmPfns, pfnFlagsMask: 3 };
    using lock = await mm.mmapLock.read();
    outcome = await hmmRangeFault(range, lock);
  }
  object.updateFlags(0, 3, 0, PageFlag.Dirty);
  return {
    mm,
    object,
    async end() {
      await notifier.remove();
      await object.put();
      await mm.mmput();
    },
  };
}

test("a page is mapped once, in its direction, and the same address comes back until it is unmapped", async () => {
  const mm = createSpace();
  const log: string[] = [];
  const map = hmmDmaMapAlloc(testDevice(log), mm.memory, 3);
  const s = await setUp(map.pfns, mm);
  expect([map.mapPfn(0), map.mapPfn(0), map.mapPfn(1), map.usesIova]).toEqual([1000, 1000, 1001, false]);
  expect(log).toEqual(["map bidirectional", "map to-device"]);
  expect(await errorCode(() => map.mapPfn(2))).toBe("EFAULT");
  expect([map.unmapPfn(0), map.unmapPfn(0), map.unmapPfn(2)]).toEqual([true, false, false]);
  expect([0, 1].map((page) => s.object.flagsOf(page) & PageFlag.Dirty)).toEqual([PageFlag.Dirty, 0]);
  expect(map.mapPfn(0)).toBe(1002);
  map.free();
  map.free();
  expect(log.slice(2)).toEqual([
    "unmap 1000 bidirectional",
    "map bidirectional",
    "unmap 1002 bidirectional",
    "unmap 1001 to-device",
  ]);
  await s.end();
});

test("addresses that follow each other are reserved first, where the device can", async () => {
  const mm = createSpace();
  const log: string[] = [];
  {
    using map = hmmDmaMapAlloc(withIova(log), mm.memory, 3);
    const s = await setUp(map.pfns, mm);
    expect(map.usesIova).toBe(true);
    expect([map.mapPfn(1), map.mapPfn(0)]).toEqual([0x10_0000 + P, 0x10_0000]);
    map.pfns[2] = map.pfns[1];
    expect(await errorCode(() => map.mapPfn(2))).toBe("EFAULT");
    await s.end();
  }
  expect(log).toEqual([
    "reserve 3",
    `link ${P} to-device`,
    "link 0 bidirectional",
    `link ${2 * P} to-device`,
    "unlink 0 bidirectional",
    `unlink ${P} to-device`,
    "free 3",
  ]);
});

test("ENOTSUP: data is copied on its way; EINVAL: no pages, no such entry, a freed map; EFAULT: the device cannot", async () => {
  await using mm = createSpace();
  const map = hmmDmaMapAlloc(testDevice([], { mapPage: () => undefined }), mm.memory, 1);
  map.pfns[0] = HMM_PFN_REQ_FAULT;
  expect(await errorCode(() => map.mapPfn(0))).toBe("EFAULT");
  expect(await errorCode(() => map.mapPfn(1))).toBe("EINVAL");
  map.free();
  expect(await errorCode(() => map.mapPfn(0))).toBe("EINVAL");
  expect(await errorCode(() => hmmDmaMapAlloc(testDevice([]), mm.memory, 0))).toBe("EINVAL");
  expect(await errorCode(() => hmmDmaMapAlloc(testDevice([], { bounces: true }), mm.memory, 1))).toBe("ENOTSUP");
});
