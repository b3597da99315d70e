import { spawnSync } from "node:child_process";
import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { listenToTrace, PAGE_SIZE, type TraceEvent } from "../../base/index.ts";
import {
  AddressSpace,
  disown,
  MemoryObject,
  makeDeviceExclusive,
  type Pager,
  PhysicalMemory,
  poisonPages,
  syncCpuWrites,
} from "../../mm/index.ts";
import { openMachine, SUM } from "../../testing/machine.ts";
import { PlainThread, WORDS } from "../../testing/plain-thread.ts";
import { POISON_WORD } from "./fault-log.ts";
import { UserfaultfdMmu } from "./mmu.ts";
import { probeUserfaultfd } from "./probe.ts";
import type { UffdTrap } from "./trap.ts";

const report = probeUserfaultfd();
if (!report.works) {
  console.warn(`userfaultfd tests are skipped: ${report.why}`);
}

/** What a thread needs to see an object. */
function viewOf(object: MemoryObject) {
  object.windows.ensure(0);
  const trap = object.windows.trapAt(0)?.trap;
  if (trap === undefined) {
    throw new Error("no trap");
  }
  const { buffer, byteOffset } = trap;
  return { buffer, byteOffset, byteLength: object.pages * PAGE_SIZE };
}

const SUM_ALL = `${WORDS} let sum = 0; for (let i = 0; i < u32.length; i += 1024) sum += Atomics.load(u32, i); return sum;`;
const NUMBER_PAGES = /* wgsl */ `
@group(0) @binding(0) var<storage, read_write> data: array<u32>;
@compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3u) { data[id.x * 1024u] = id.x + 7u; }`;
const FILL = `${WORDS} for (let i = 0; i < u32.length; i += 1024) u32[i] = args.value + i / 1024; return u32.length;`;

describe.skipIf(!report.works)("plain arrays on the userfaultfd MMU", () => {
  let mmu: UserfaultfdMmu;
  let mm: AddressSpace;
  let thread: PlainThread;

  beforeEach(() => {
    mmu = new UserfaultfdMmu();
    mm = AddressSpace.create({ memory: new PhysicalMemory(mmu) });
    thread = new PlainThread();
  });

  afterEach(async () => {
    await mm[Symbol.asyncDispose]();
    await thread[Symbol.asyncDispose]();
    mmu.close();
  });

  const map = async (pages: number, object?: MemoryObject) => {
    const mapping = await mm.mmap({ length: pages * PAGE_SIZE, ...(object && { object, shared: true, prot: "r" }) });
    const vma = mm.vmas.find(mapping.start);
    if (vma === undefined) {
      throw new Error("no vma");
    }
    return { mapping, object: vma.object, view: viewOf(vma.object) };
  };

  test("absent pages read as zeros, and a write is there for a lease", async () => {
    const { mapping, view } = await map(200);
    expect(await thread.run(SUM_ALL, view)).toBe(0);
    await thread.run(FILL, { ...view, value: 7 });
    using lease = await mapping.lease("r");
    expect([lease.u32[0], lease.u32[1024 * 199]]).toEqual([7, 206]);
    expect(mmu.counts.faults).toBeLessThan(10);
  });

  test("faults of plain accesses are traced, with what they asked for and the pages that came along", async () => {
    const { mapping, view } = await map(200);
    const events: TraceEvent[] = [];
    const stop = listenToTrace((event) => events.push(event));
    try {
      await thread.run(`${WORDS} return Atomics.load(u32, 0)`, view);
      await thread.run(`${WORDS} u32[199 * 1024] = 1`, view);
    } finally {
      stop();
    }
    const faults = events.filter((event): event is TraceEvent<"mm.fault"> => event.name === "mm.fault");
    expect(faults).toHaveLength(mmu.counts.faults);
    const [read, written] = faults.map(({ fields }) => fields);
    expect([read.write, written.write, read.device]).toEqual([false, true, false]);
    expect(read.start).toBe(mapping.start);
    expect(written.start <= mapping.start + 199 * PAGE_SIZE && written.end === mapping.start + 200 * PAGE_SIZE).toBe(
      true,
    );
    const pages = faults.reduce((sum, { fields }) => sum + (fields.end - fields.start) / PAGE_SIZE, 0);
    expect(pages).toBe(mmu.counts.pagesShown);
    expect(faults.every(({ duration }) => duration > 0)).toBe(true);
  });

  test("what a lease wrote is there for plain arrays", async () => {
    const { mapping, view } = await map(3);
    await mapping.write(2 * PAGE_SIZE, Uint32Array.of(42));
    expect(await thread.run(`${WORDS} return u32[2048]`, view)).toBe(42);
  });

  test("a page comes from its pager, once", async () => {
    let reads = 0;
    const pager: Pager = {
      name: "counting",
      length: 8 * PAGE_SIZE,
      writable: false,
      read: (offset, dst) => {
        reads++;
        new Uint32Array(dst.buffer, dst.byteOffset, dst.byteLength / 4).forEach((_, i, words) => {
          words[i] = offset / 4 + i;
        });
        return Promise.resolve();
      },
      write: () => undefined,
      sync: () => undefined,
      close: () => undefined,
    };
    const paged = new MemoryObject(mm.memory, { pages: 8, pager });
    const { view } = await map(8, paged);
    await paged.put();
    const threads = [thread, new PlainThread(), new PlainThread(), new PlainThread()];
    const seen = await Promise.all(threads.map((t) => t.run(`${WORDS} return Atomics.load(u32, 5000)`, view)));
    expect(seen).toEqual([5000, 5000, 5000, 5000]);
    expect(reads).toBe(1);
    for (const other of threads.slice(1)) {
      await other[Symbol.asyncDispose]();
    }
  });

  test("writes are collected exactly, once, and watched again", async () => {
    const { object, view } = await map(64);
    await thread.run(SUM_ALL, view);
    const collect = () => {
      const pages: number[] = [];
      object.windows.trapAt(0)?.trap.collectWritten(0, 64, (page, end) => {
        for (let p = page; p < end; p++) {
          pages.push(p);
        }
      });
      return pages;
    };
    expect(collect()).toEqual([]);
    await thread.run(`${WORDS} for (const page of [3, 4, 60]) u32[page * 1024 + 9] = 1;`, view);
    expect([collect(), collect()]).toEqual([[3, 4, 60], []]);
    await thread.run(`${WORDS} u32[4 * 1024] = 2;`, view);
    expect(collect()).toEqual([4]);
  });

  test("a page that is hidden after a write is still known to be written", async () => {
    const { object, view } = await map(8);
    await thread.run(`${WORDS} u32[0] = 1; return Atomics.load(u32, 1024)`, view);
    const trap = object.windows.trapAt(0)?.trap;
    expect(trap?.unmap(0, 8)).toBe(false);
    const pages: number[] = [];
    trap?.collectWritten(0, 8, (page, end) => pages.push(page, end));
    expect(pages).toEqual([0, 1]);
    expect(trap?.unmap(0, 8)).toBe(true);
    expect(await thread.run(`${WORDS} return u32[0]`, view)).toBe(1);
  });

  test("a held page makes its users wait, not the others", async () => {
    const { object, view } = await map(200);
    const trap = object.windows.trapAt(0)?.trap;
    const hold = trap?.hold(0, 1);
    const waiting = thread.run(`${WORDS} return Atomics.load(u32, 0)`, view);
    const other = new PlainThread();
    expect(await other.run(`${WORDS} return Atomics.load(u32, 190 * 1024)`, view)).toBe(0);
    expect(await Promise.race([waiting, Promise.resolve("waits")])).toBe("waits");
    hold?.[Symbol.dispose]();
    expect(await waiting).toBe(0);
    await other[Symbol.asyncDispose]();
  });

  test("threads that meet a page together do not push out the accesses in order of others", async () => {
    const { object, view } = await map(1000);
    const trap = object.windows.trapAt(0)?.trap as UffdTrap;
    await using second = new PlainThread();
    await using third = new PlainThread();
    const threads = [thread, second, third];
    await thread.run(`${WORDS} return Atomics.load(u32, 0)`, view);
    for (const page of [300, 500, 700, 900]) {
      const hold = trap.hold(page, page + 1);
      const before = mmu.counts.faults;
      const read = threads.map((t) => t.run(`${WORDS} return Atomics.load(u32, ${page} * 1024)`, view));
      await vi.waitFor(() => expect(mmu.counts.faults - before).toBe(3));
      hold[Symbol.dispose]();
      expect(await Promise.all(read)).toEqual([0, 0, 0]);
    }
    expect(trap.streams.find(64)).toBeDefined();
  });

  test("a lost page is reported before the access goes on, and reads as a pattern that is no number", async () => {
    const { object, view } = await map(2);
    object.reserve(0, 2);
    poisonPages(object, 1, 2);
    const seen = await thread.run<number[]>(
      `${WORDS} const log = new Int32Array(args.log); const before = Atomics.load(log, 0);
       const word = u32[1024]; return [before, word, Atomics.load(log, 0), new Float64Array(u32.buffer, u32.byteOffset + 4096, 1)[0]];`,
      { ...view, log: mmu.log.buffer },
    );
    expect(seen).toEqual([0, POISON_WORD, 1, Number.NaN]);
    expect(mmu.log.since(0)).toMatchObject([{ index: 0, code: "EHWPOISON" }]);
  });

  test("an access to what may not be read is reported", async () => {
    const { mapping, view } = await map(4);
    await thread.run(FILL, { ...view, value: 1 });
    await mm.mprotect(mapping.start, PAGE_SIZE, "none");
    expect(mmu.log.count).toBe(0);
    await thread.run(SUM_ALL, view);
    expect(mmu.log.since(0)).toMatchObject([{ code: "EFAULT" }]);
    await mm.mprotect(mapping.start, PAGE_SIZE, "rw");
    expect(await thread.run(SUM_ALL, view)).toBe(10);
  });

  test("an engine that starts a process in between loses no write", async () => {
    const { object, view } = await map(4);
    await thread.run(FILL, { ...view, value: 1 });
    spawnSync("true");
    await syncCpuWrites(object, 0, 4);
    await thread.run(`${WORDS} u32[0] = 5`, view);
    spawnSync("true");
    const trap = object.windows.trapAt(0)?.trap;
    expect(trap?.unmap(0, 4)).toBe(false);
    expect(await thread.run(SUM_ALL, view)).toBe(5 + 2 + 3 + 4);
  });

  test("arrays that outlive their mapping see zeros", async () => {
    const { mapping, view } = await map(4);
    await thread.run(FILL, { ...view, value: 9 });
    await mapping.munmap();
    expect(await thread.run(SUM_ALL, view)).toBe(0);
    await thread.run(FILL, { ...view, value: 9 });
    expect(mmu.windows).toBe(0);
  });

  test("who sleeps is woken by a fault", async () => {
    const { view } = await map(4);
    const touched = thread.run(SUM_ALL, view);
    mmu.uffd.sleep(60_000);
    expect(await touched).toBe(0);
  });

  test("closing releases who waits for a page", async () => {
    const { object, view } = await map(4);
    object.windows.trapAt(0)?.trap.hold(0, 4);
    const waiting = thread.run(SUM_ALL, view);
    while (mmu.counts.faults === 0) {
      await new Promise((resolve) => setImmediate(resolve));
    }
    mmu.close();
    expect(await waiting).toBe(0);
  });

  test("a fork has the bytes of its moment, whatever plain arrays write to the parent later", async () => {
    const { mapping, view } = await map(4);
    await thread.run(FILL, { ...view, value: 1 });
    const child = await mm.fork();
    await thread.run(FILL, { ...view, value: 100 });
    const copy = child.vmas.find(mapping.start)?.object;
    if (copy === undefined) {
      throw new Error("no copy");
    }
    expect(await thread.run(SUM_ALL, viewOf(copy))).toBe(1 + 2 + 3 + 4);
    await child[Symbol.asyncDispose]();
  });

  test("dropped pages read as zeros again", async () => {
    const { mapping, view } = await map(4);
    await thread.run(FILL, { ...view, value: 1 });
    await mm.madvise(mapping.start, mapping.length, "dontneed");
    expect(await thread.run(SUM_ALL, view)).toBe(0);
  });

  test("a page that a device has for itself is taken back by who touches it, not by his neighbours", async () => {
    const { mapping, object, view } = await map(4);
    await thread.run(FILL, { ...view, value: 1 });
    {
      using lock = await mm.mmapLock.read();
      const taken = await makeDeviceExclusive(mm, lock, mapping.start + PAGE_SIZE, {});
      if (taken !== "EBUSY") {
        taken[Symbol.dispose]();
      }
    }
    object.windows.trapAt(0)?.trap.unmap(0, 4);
    expect(await thread.run(`${WORDS} return Atomics.load(u32, 0) + Atomics.load(u32, 3 * 1024)`, view)).toBe(5);
    expect([...object.exclusive]).toEqual([1]);
    expect(await thread.run(SUM_ALL, view)).toBe(10);
    expect([...object.exclusive]).toEqual([]);
  });

  test("a synced write of a page that no fault mapped is announced and harmless", async () => {
    const { object, view } = await map(4);
    await thread.run(FILL, { ...view, value: 1 });
    await syncCpuWrites(object, 0, 4);
    expect(await thread.run(SUM_ALL, view)).toBe(10);
  });
});

describe.skipIf(!report.works)("plain arrays and kernels", () => {
  test("a kernel sees what plain arrays wrote, and plain arrays what a kernel wrote", async () => {
    using mmu = new UserfaultfdMmu();
    await using m = await openMachine({ mmu });
    await using thread = new PlainThread();
    const pages = 300;
    const data = await m.mm.mmap({ length: pages * PAGE_SIZE, name: "data" });
    const sums = await m.mm.mmap({ length: PAGE_SIZE, name: "sums" });
    const objectAt = (start: number) => m.mm.vmas.find(start)?.object as MemoryObject;
    const [view, sumView] = [viewOf(objectAt(data.start)), viewOf(objectAt(sums.start))];
    const kernel = await m.device.kernel(SUM);
    const sum = async () => {
      await thread.run(`${WORDS} u32[0] = 0`, sumView);
      const stats = await kernel.dispatch({ bind: { data, sums }, params: { scale: 1 }, workgroups: pages * 16 });
      return [await thread.run(`${WORDS} return u32[0]`, sumView), stats.pagesUploaded];
    };
    await thread.run(FILL, { ...view, value: 1 });
    const total = (pages * (pages + 1)) / 2;
    expect((await sum())[0]).toBe(total);
    expect(await sum()).toEqual([total, 1]);
    await thread.run(`${WORDS} u32[77 * 1024 + 1] = 1000`, view);
    expect(await sum()).toEqual([total + 1000, 2]);
  });

  test.each([
    // Its first page, the sixteenth, those of the four blocks that come alone, and of six times two.
    ["in order", "for (let i = 0; i < n; i++) look(i);", 1, 12],
    // A part is four blocks: its first page, the sixteenth, and those of the further blocks.
    ["by turns", "for (let i = 0; i < n / 4; i++) for (let q = 0; q < 4; q++) look(q * n / 4 + i);", 1, 20],
    ["in four threads", "for (let i = 0; i < n / 4; i++) look(args.me * n / 4 + i);", 4, 24],
  ])("four parts that a kernel wrote, walked over %s, come home in blocks", async (_, body, count, faults) => {
    using mmu = new UserfaultfdMmu();
    await using m = await openMachine({ mmu });
    const threads = Array.from({ length: count }, () => new PlainThread());
    const pages = 8192;
    const data = await m.mm.mmap({ length: pages * PAGE_SIZE, name: "data" });
    const kernel = await m.device.kernel(NUMBER_PAGES);
    await kernel.dispatch({ bind: { data }, workgroups: pages / 64 });
    const view = viewOf(m.mm.vmas.find(data.start)?.object as MemoryObject);
    const before = mmu.counts.faults;
    const walk = `${WORDS} const n = ${pages}; let wrong = 0;
      const look = (page) => { if (Atomics.load(u32, page * 1024) !== page + 7) wrong++; };
      ${body} return wrong;`;
    const wrong = await Promise.all(threads.map((thread, me) => thread.run(walk, { ...view, me })));
    expect(wrong).toEqual(threads.map(() => 0));
    expect(mmu.counts.faults - before).toBeLessThanOrEqual(faults);
    for (const thread of threads) {
      await thread[Symbol.asyncDispose]();
    }
  });

  test("an adopted memory comes back with its bytes, and with poison where a device has lost them", async () => {
    using mmu = new UserfaultfdMmu();
    await using mm = AddressSpace.create({ memory: new PhysicalMemory(mmu) });
    const memory = new WebAssembly.Memory({ initial: 1, maximum: 2, shared: true });
    const words = new Uint32Array(memory.buffer);
    const ofPages = () => Array.from({ length: 6 }, (_, page) => words[page * (PAGE_SIZE / 4) + 9]);
    for (let page = 0; page < 6; page++) {
      words[page * (PAGE_SIZE / 4) + 9] = page + 1;
    }
    const mapping = await mm.adopt(memory, { maximum: 2 * 65_536 });
    const object = mm.vmas.find(mapping.start)?.object as MemoryObject;
    poisonPages(object, 2, 4);
    await disown(mapping);
    expect(ofPages()).toEqual([1, 2, POISON_WORD, POISON_WORD, 5, 6]);
    expect(mm.vmas.find(mapping.start)).toBeUndefined();
  });
});
