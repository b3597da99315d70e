import { expect, test } from "vitest";
import { type AddressSpace, PageFlag } from "../mm/index.ts";
import { mmuNotifierSynchronize } from "../mmu-notifier/index.ts";
import { BASE, begin, createSpace, invalidation } from "../testing/spaces.ts";
import { DEFAULT_PFN_FLAGS, type DmaDevice, HmmMirror, HmmRange, hmmRangeDmaMap, hmmRangeDmaUnmap } from "./index.ts";

const P = 4096;
const V = DEFAULT_PFN_FLAGS.valid;
const W = DEFAULT_PFN_FLAGS.write;

/** An IOMMU that maps at 1000 and up; `onMap` may refuse. */
class TestDma implements DmaDevice {
  readonly log: string[] = [];
  onMap: (n: number) => boolean = () => true;
  #next = 1000;

  mapPage(_pfn: number, direction: string): number | undefined {
    if (!this.onMap(this.#next - 1000)) {
      return undefined;
    }
    this.log.push(`map ${this.#next} ${direction}`);
    return this.#next++;
  }

  unmapPage(daddr: number, direction: string): void {
    this.log.push(`unmap ${daddr} ${direction}`);
  }
}

interface Setup extends AsyncDisposable {
  readonly mm: AddressSpace;
  readonly range: HmmRange;
  readonly device: TestDma;
  readonly daddrs: Float64Array;
}

/** Three mapped pages; the first was written by the CPU. */
async function setUp(): Promise<Setup> {
  const mm = createSpace();
  const mapping = await mm.mmap({ addr: BASE, length: 3 * P, fixed: true });
  await mapping.write(0, new Uint8Array([1]));
  const mirror = new HmmMirror({ name: "dma", syncCpuDevicePagetables: () => 0 });
  await mirror.register(mm);
  const range = new HmmRange({ start: BASE, end: BASE + 3 * P, pfnFlagsMask: 0xffff_ffff });
  range.register(mirror);
  range.pfns.set([V | W, V, 0]);
  return {
    mm,
    range,
    device: new TestDma(),
    daddrs: new Float64Array(3),
    async [Symbol.asyncDispose]() {
      await range[Symbol.asyncDispose]();
      await mirror.unregister();
      await mm.mmput();
      await mmuNotifierSynchronize();
    },
  };
}

test("maps the pages that are there, each in the direction it may move, and counts them", async () => {
  await using s = await setUp();
  using lock = await s.mm.mmapLock.read();
  expect(await hmmRangeDmaMap(s.range, lock, s.device, s.daddrs)).toBe(2);
  expect([...s.daddrs]).toEqual([1000, 1001, 0]);
  expect(s.device.log).toEqual(["map 1000 bidirectional", "map 1001 to-device"]);

  const object = s.mm.vmas.find(BASE)?.object;
  object?.updateFlags(0, 3, 0, PageFlag.Dirty);
  expect(hmmRangeDmaUnmap(s.range, s.mm.memory, s.device, s.daddrs, "dirty")).toBe(2);
  expect(s.device.log.slice(2)).toEqual(["unmap 1000 bidirectional", "unmap 1001 to-device"]);
  expect([0, 1].map((page) => (object?.flagsOf(page) ?? 0) & PageFlag.Dirty)).toEqual([PageFlag.Dirty, 0]);
  expect([...s.daddrs, ...s.range.pfns]).toEqual([0, 0, 0, 0, 0, 0]);
});

test("a clean unmap leaves pages clean", async () => {
  await using s = await setUp();
  using lock = await s.mm.mmapLock.read();
  await hmmRangeDmaMap(s.range, lock, s.device, s.daddrs);
  const object = s.mm.vmas.find(BASE)?.object;
  object?.updateFlags(0, 3, 0, PageFlag.Dirty);
  hmmRangeDmaUnmap(s.range, s.mm.memory, s.device, s.daddrs, "clean");
  expect((object?.flagsOf(0) ?? 0) & PageFlag.Dirty).toBe(0);
});

test("EFAULT: a page that the device cannot map; everything is unmapped and reset", async () => {
  await using s = await setUp();
  using lock = await s.mm.mmapLock.read();
  s.device.onMap = (n) => n < 1;
  expect(() => hmmRangeDmaMap(s.range, lock, s.device, s.daddrs)).toThrow(expect.objectContaining({ code: "EFAULT" }));
  expect(s.device.log).toEqual(["map 1000 bidirectional", "unmap 1000 bidirectional"]);
  expect([...s.daddrs, ...s.range.pfns]).toEqual([0, 0, 0, 0, 0, 0]);
});

test("EBUSY: the range becomes invalid while it is mapped; everything is unmapped and reset", async () => {
  await using s = await setUp();
  using lock = await s.mm.mmapLock.read();
  let end = (): unknown => undefined;
  s.device.onMap = () => {
    end = begin(invalidation(s.mm, 0, 1));
    return true;
  };
  expect(await hmmRangeDmaMap(s.range, lock, s.device, s.daddrs)).toBe("EBUSY");
  expect(s.device.log).toEqual(["map 1000 bidirectional", "unmap 1000 bidirectional"]);
  expect([...s.daddrs, ...s.range.pfns]).toEqual([0, 0, 0, 0, 0, 0]);
  await end();
});

test("what the fault answers comes out: EBUSY, and errors", async () => {
  await using s = await setUp();
  using lock = await s.mm.mmapLock.read();
  const end = begin(invalidation(s.mm, 0, 1));
  expect(await hmmRangeDmaMap(s.range, lock, s.device, s.daddrs)).toBe("EBUSY");
  await end();
  const vma = s.mm.vmas.find(BASE);
  if (vma !== undefined) {
    vma.flags = 0;
  }
  expect(() => hmmRangeDmaMap(s.range, lock, s.device, s.daddrs)).toThrow(expect.objectContaining({ code: "EPERM" }));
  expect(s.device.log).toEqual([]);
});

test("EINVAL: an empty range, or too few bus addresses", async () => {
  await using s = await setUp();
  const empty = new HmmRange({ start: BASE, end: BASE });
  const invalid = expect.objectContaining({ code: "EINVAL" });
  expect(() => hmmRangeDmaUnmap(empty, s.mm.memory, s.device, s.daddrs, "clean")).toThrow(invalid);
  expect(() => hmmRangeDmaUnmap(s.range, s.mm.memory, s.device, new Float64Array(2), "clean")).toThrow(invalid);
  const none = undefined as unknown as Float64Array;
  expect(() => hmmRangeDmaUnmap(s.range, s.mm.memory, s.device, none, "clean")).toThrow(invalid);
  using lock = await s.mm.mmapLock.read();
  expect(() => hmmRangeDmaMap(s.range, lock, s.device, new Float64Array(2))).toThrow(invalid);
});
