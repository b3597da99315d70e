/** I-MM-7: a system call that runs out of memory changes nothing, whichever of its allocations fails. */
import { describe, expect, test } from "vitest";
import { KernelError, PAGE_SIZE } from "../base/index.ts";
import { createMemory, createMm, FakeDevice, filledBytes, snapshotOf, TestPager } from "../testing/mm.ts";
import { BASE } from "../testing/spaces.ts";
import { AddressSpace, type Lease, Mapping, MemoryObject, type PhysicalMemory, validateMm } from "./index.ts";

const PAGE = PAGE_SIZE;

interface World {
  readonly memory: PhysicalMemory;
  readonly mm: AddressSpace;
  readonly spaces: AddressSpace[];
  readonly leases: Lease[];
  readonly device: FakeDevice;
  /** Shared by whoever maps it. */
  readonly file: MemoryObject;
  map(pages: number, options?: Parameters<AddressSpace["mmap"]>[0] | object): Promise<Mapping>;
}

/** Prepares a world; what it returns is the call under test. */
type Scenario = (world: World) => Promise<() => Promise<unknown>>;

async function inWorld<T>(body: (world: World) => Promise<T>): Promise<T> {
  const memory = createMemory();
  const mm = createMm(memory);
  const pager = new TestPager(filledBytes(8, (p) => p + 1));
  const world: World = {
    memory,
    mm,
    spaces: [mm],
    leases: [],
    device: new FakeDevice(memory),
    file: new MemoryObject(memory, { pages: 8, pager }),
    map: (pages, options = {}) => mm.mmap({ length: pages * PAGE, ...options }),
  };
  try {
    return await body(world);
  } finally {
    memory.failAfter();
    for (const lease of world.leases) {
      lease.release();
    }
    for (const space of world.spaces) {
      await space.mmput();
    }
    await world.file.put();
    world.device.remove();
  }
}

/** Where a 2 MiB page-table block ends. */
const EDGE = BASE + 2 ** 21;

const scenarios: Record<string, Scenario> = {
  "a new address space": async ({ memory, spaces }) => {
    return async () => spaces.push(AddressSpace.create({ memory }));
  },
  "mmap of zeros": async ({ map }) => {
    return () => map(4);
  },
  "mmap of a private copy of a file": async ({ map, file }) => {
    return () => map(4, { object: file });
  },
  "mmap over the middle of another mapping": async ({ map }) => {
    const m = await map(6, { addr: BASE });
    await m.write(
      0,
      filledBytes(6, (p) => p + 1),
    );
    return () => map(2, { addr: BASE + 2 * PAGE, fixed: true });
  },
  "munmap of the middle": async ({ map, mm }) => {
    const m = await map(6, { addr: BASE });
    await m.write(
      0,
      filledBytes(6, (p) => p + 1),
    );
    return () => mm.munmap(BASE + 2 * PAGE, 2 * PAGE);
  },
  "mprotect of the middle": async ({ map, mm }) => {
    const m = await map(6, { addr: BASE });
    await m.write(
      0,
      filledBytes(6, (p) => p + 1),
    );
    return () => mm.mprotect(BASE + 2 * PAGE, 2 * PAGE, "r");
  },
  "mremap in place": async ({ map, mm }) => {
    const m = await map(2, { addr: BASE });
    await m.write(
      0,
      filledBytes(2, (p) => p + 1),
    );
    return () => mm.mremap(BASE, 2 * PAGE, 5 * PAGE);
  },
  "mremap to another place, over a mapping, across page-table blocks": async ({ map, mm }) => {
    const m = await map(6, { addr: BASE });
    await m.write(
      0,
      filledBytes(6, (p) => p + 1),
    );
    const n = await map(8, { addr: EDGE - 3 * PAGE });
    await n.write(
      0,
      filledBytes(8, (p) => p + 10),
    );
    return () => mm.mremap(BASE + PAGE, 4 * PAGE, 6 * PAGE, { addr: EDGE - 2 * PAGE });
  },
  "mremap of a shared file mapping": async ({ map, mm, file }) => {
    const m = await map(2, { addr: BASE, object: file, shared: true });
    await m.write(
      0,
      filledBytes(2, (p) => p + 1),
    );
    return () => mm.mremap(BASE, 2 * PAGE, 3 * PAGE, { addr: EDGE });
  },
  "madvise of a forked mapping": async ({ map, mm, spaces }) => {
    const m = await map(4, { addr: BASE });
    await m.write(
      0,
      filledBytes(4, (p) => p + 1),
    );
    spaces.push(await mm.fork());
    return () => mm.madvise(BASE, 4 * PAGE, "dontneed");
  },
  "madvise of the child's part": async ({ map, mm, spaces }) => {
    const m = await map(4, { addr: BASE });
    await m.write(
      0,
      filledBytes(4, (p) => p + 1),
    );
    const child = await mm.fork();
    spaces.push(child);
    return () => child.madvise(BASE, 4 * PAGE, "dontneed");
  },
  "fork with a page under a write lease": async ({ map, mm, spaces, leases }) => {
    const m = await map(4, { addr: BASE });
    await m.write(
      0,
      filledBytes(4, (p) => p + 1),
    );
    await map(2, { addr: EDGE, shared: true });
    leases.push(await m.lease("rw", { offset: PAGE, length: PAGE }));
    return async () => spaces.push(await mm.fork());
  },
  "first lease of zeros, across page-table blocks": async ({ map, leases }) => {
    const m = await map(8, { addr: EDGE - 4 * PAGE });
    return async () => leases.push(await m.lease("rw"));
  },
  "first lease of a file": async ({ map, file, leases }) => {
    const m = await map(8, { addr: EDGE - 4 * PAGE, object: file, shared: true });
    return async () => leases.push(await m.lease("r"));
  },
  "a write that a copy needs served first": async ({ map, mm, spaces, leases }) => {
    const m = await map(4, { addr: BASE });
    await m.write(
      0,
      filledBytes(4, (p) => p + 1),
    );
    spaces.push(await mm.fork());
    return async () => leases.push(await m.lease("rw"));
  },
  "the child's first look": async ({ map, mm, spaces, leases }) => {
    const m = await map(4, { addr: BASE });
    await m.write(
      0,
      filledBytes(4, (p) => p + 1),
    );
    const child = await mm.fork();
    spaces.push(child);
    return async () => leases.push(await new Mapping(child, m.start, m.length, "child").lease("r"));
  },
  "a lease of pages on a device": async ({ map, device, leases }) => {
    const m = await map(4, { addr: BASE });
    await m.write(
      0,
      filledBytes(4, (p) => p + 1),
    );
    await device.takeMapping(m);
    await m.munmap();
    const n = await map(4, { addr: BASE });
    await n.write(
      0,
      filledBytes(4, (p) => p + 1),
    );
    await device.takeMapping(n);
    return async () => leases.push(await n.lease("rw"));
  },
};

/** Scenarios in which nothing has to be allocated. */
const FREE = new Set(["a lease of pages on a device"]);

describe("I-MM-7: out of memory at any allocation changes nothing", () => {
  for (const [name, scenario] of Object.entries(scenarios)) {
    test(name, async () => {
      let failures = 0;
      for (let n = 0, failed = true; failed; n++) {
        expect(n, "it succeeds with enough memory").toBeLessThan(50);
        failed = await inWorld(async (world) => {
          const call = await scenario(world);
          const before = await snapshotOf(world.spaces);
          world.memory.failAfter(n);
          try {
            await call();
            world.memory.failAfter();
            return false;
          } catch (error) {
            world.memory.failAfter();
            expect(error).toBeInstanceOf(KernelError);
            expect((error as KernelError).code).toBe("ENOMEM");
            expect(await snapshotOf(world.spaces), `allocation ${n} failed`).toBe(before);
            for (const mm of world.spaces) {
              validateMm(mm);
            }
            failures++;
            return true;
          }
        });
      }
      expect(failures > 0).toBe(!FREE.has(name));
    });
  }
});
