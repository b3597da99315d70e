/** Operations that run at the same time, in orders that fast-check chooses at every point where one of them waits. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { addrOf, KernelError, type MaybePromise, PAGE_SIZE, vpnOf } from "../base/index.ts";
import { lockdepTask } from "../sync/index.ts";
import { createMemory, createMm, FakeDevice, filledBytes, TestHooks, TestPager } from "../testing/mm.ts";
import { BASE } from "../testing/spaces.ts";
import { type AddressSpace, Mapping, MemoryObject, msync, PageFlag, type Prot, validateMm } from "./index.ts";

/**
 * The mapping that every run begins with:
 *
 *     page  0 1 2  anonymous, private
 *           3 4    a private copy of a file
 *           5 6    a shared file
 *           7      anonymous, shared
 */
const PAGES = 8;
const at = (page: number): number => BASE + page * PAGE_SIZE;

/** What a page may hold: one value unless something that drops content has run. Shared pages share one of these. */
interface Cell {
  allowed: Set<number>;
  /** Content may have been dropped at any time: a store may be lost. */
  dropped: boolean;
  /** Every value stored, in order. */
  readonly log: number[];
}

interface Space {
  readonly mm: AddressSpace;
  readonly cells: Cell[];
}

const cell = (...values: number[]): Cell => ({ allowed: new Set(values), dropped: false, log: [] });

interface World {
  readonly s: fc.Scheduler;
  readonly spaces: Space[];
  readonly device: FakeDevice;
  readonly pager: TestPager;
}

interface Plan {
  readonly name: string;
  readonly run: Action;
}

type Action = (world: World) => Promise<void>;

/** `name` is what a failure prints. */
class Task {
  readonly name: string;
  readonly run: Action;

  constructor({ name, run }: Plan) {
    this.name = name;
    this.run = run;
  }

  [fc.toStringMethod](): string {
    return this.name;
  }
}

const space = fc.nat({ max: 3 });
const page = fc.nat({ max: PAGES - 1 });
const count = fc.integer({ min: 1, max: 3 });
const spaceOf = (world: World, i: number): Space => world.spaces[i % world.spaces.length];

/** Errors that a caller may get because of what others do meanwhile. */
const EXPECTED = new Set(["EFAULT", "EACCES", "ESRCH", "EINVAL", "ENOMEM", "EIO"]);

async function tolerant(action: () => MaybePromise<unknown>): Promise<void> {
  try {
    await action();
  } catch (error) {
    if (!(error instanceof KernelError && EXPECTED.has(error.code))) {
      throw error;
    }
  }
}

const pause = (world: World, label: string): Promise<void> => world.s.schedule(Promise.resolve(), label);

const read = fc.tuple(space, page, count).map(([i, first, n]): Plan => {
  const end = Math.min(PAGES, first + n);
  return {
    name: `read(${i}, ${first}..${end})`,
    run: async (world) => {
      const { mm, cells } = spaceOf(world, i);
      using lease = await new Mapping(mm, addrOf(vpnOf(at(first))), (end - first) * PAGE_SIZE, "part").lease("r");
      for (const hold of [true, false]) {
        for (let p = first; p < end; p++) {
          const value = lease.u8[(p - first) * PAGE_SIZE];
          if (hold || !cells[p].dropped) {
            expect([...cells[p].allowed], `page ${p} of space ${i}`).toContain(value);
          }
        }
        await pause(world, "reader holds");
      }
    },
  };
});

let lastValue = 0;

const write = fc.tuple(space, page, count).map(([i, first, n]): Plan => {
  const end = Math.min(PAGES, first + n);
  return {
    name: `write(${i}, ${first}..${end})`,
    run: async (world) => {
      const { mm, cells } = spaceOf(world, i);
      using lease = await new Mapping(mm, addrOf(vpnOf(at(first))), (end - first) * PAGE_SIZE, "part").lease("rw");
      for (let round = 0; round < 2; round++) {
        for (let p = first; p < end; p++) {
          lastValue = (lastValue % 190) + 1;
          lease.u8[(p - first) * PAGE_SIZE] = lastValue;
          cells[p].allowed = cells[p].dropped ? cells[p].allowed.add(lastValue) : new Set([lastValue]);
          cells[p].log.push(lastValue);
        }
        await pause(world, "writer holds");
      }
    },
  };
});

const forkTask = space.map(
  (i): Plan => ({
    name: `fork(${i})`,
    run: async (world) => {
      const parent = spaceOf(world, i);
      const before = parent.cells.map((c) => ({ allowed: new Set(c.allowed), log: c.log.length }));
      const mm = await parent.mm.fork();
      const cells = parent.cells.map((c, p) =>
        p >= 5 ? c : cell(...before[p].allowed, ...c.log.slice(before[p].log), ...(c.dropped ? c.allowed : [])),
      );
      world.spaces.push({ mm, cells });
    },
  }),
);

const drop = fc.tuple(space, page, count).map(([i, first, n]): Plan => {
  const end = Math.min(PAGES, first + n);
  return {
    name: `madvise(${i}, ${first}..${end})`,
    run: async (world) => {
      const { mm, cells } = spaceOf(world, i);
      for (let p = first; p < Math.min(end, 5); p++) {
        cells[p].dropped = true;
        cells[p].allowed.add(p >= 3 ? 200 + p : 0);
      }
      await mm.madvise(at(first), (end - first) * PAGE_SIZE, "dontneed");
    },
  };
});

const unmap = fc.tuple(space, page, count).map(([i, first, n]): Plan => {
  const end = Math.min(PAGES, first + n);
  return {
    name: `munmap(${i}, ${first}..${end})`,
    run: async (world) => {
      const { mm, cells } = spaceOf(world, i);
      for (let p = first; p < end; p++) {
        cells[p].dropped = true;
      }
      await mm.munmap(at(first), (end - first) * PAGE_SIZE);
    },
  };
});

const protect = fc
  .tuple(space, page, count, fc.constantFrom<Prot>("none", "r", "rw"))
  .map(([i, first, n, prot]): Plan => {
    const end = Math.min(PAGES, first + n);
    return {
      name: `mprotect(${i}, ${first}..${end}, ${prot})`,
      run: (world) => spaceOf(world, i).mm.mprotect(at(first), (end - first) * PAGE_SIZE, prot),
    };
  });

const grow = space.map(
  (i): Plan => ({
    name: `mremap(${i})`,
    run: async (world) => {
      await spaceOf(world, i).mm.mremap(at(2), PAGE_SIZE, PAGE_SIZE, { addr: at(PAGES + 2 + i) });
      await spaceOf(world, i).mm.mremap(at(PAGES + 2 + i), PAGE_SIZE, PAGE_SIZE, { addr: at(2) });
    },
  }),
);

const toDevice = fc.tuple(space, page, count).map(([i, first, n]): Plan => {
  return {
    name: `toDevice(${i}, ${first}, ${n})`,
    run: async (world) => {
      const { mm } = spaceOf(world, i);
      using _lock = await mm.mmapLock.read();
      const vma = mm.vmas.find(at(first));
      if (vma !== undefined) {
        const from = vma.objectPage(at(first));
        await world.device.take(vma.object, from, Math.min(vma.pgoff + vma.pages, from + n));
      }
    },
  };
});

const sync = space.map(
  (i): Plan => ({ name: `msync(${i})`, run: (world) => msync(spaceOf(world, i).mm, at(5), 2 * PAGE_SIZE) }),
);

const exit = space.map(
  (i): Plan => ({
    name: `exit(${i})`,
    run: async (world) => {
      const index = i % world.spaces.length;
      if (index > 0) {
        const [{ mm }] = world.spaces.splice(index, 1);
        await mm.mmput();
      }
    },
  }),
);

const task = fc.oneof(
  { weight: 3, arbitrary: read },
  { weight: 4, arbitrary: write },
  { weight: 2, arbitrary: forkTask },
  { weight: 2, arbitrary: drop },
  { weight: 1, arbitrary: unmap },
  { weight: 1, arbitrary: protect },
  { weight: 1, arbitrary: grow },
  { weight: 3, arbitrary: toDevice },
  { weight: 1, arbitrary: sync },
  { weight: 1, arbitrary: exit },
);

/** What one of them does, one step after the other. */
const actor = fc.array(
  task.map((one) => new Task(one)),
  { minLength: 1, maxLength: 5 },
);

async function build(s: fc.Scheduler): Promise<World & { readonly end: () => Promise<void> }> {
  const memory = createMemory();
  const pager = new TestPager(filledBytes(PAGES, (p) => 200 + p));
  const file = new MemoryObject(memory, { pages: PAGES, pager });
  const copied = new MemoryObject(memory, {
    pages: PAGES,
    pager: Object.assign(new TestPager(filledBytes(PAGES, (p) => 200 + p)), {
      delay: () => s.schedule(Promise.resolve(), "private pager"),
    }),
  });
  const mm = createMm(memory);
  await mm.mmap({ addr: at(0), fixed: true, length: 3 * PAGE_SIZE });
  await mm.mmap({ addr: at(3), fixed: true, length: 2 * PAGE_SIZE, object: copied, offset: 3 * PAGE_SIZE });
  await mm.mmap({ addr: at(5), fixed: true, length: 2 * PAGE_SIZE, object: file, offset: 5 * PAGE_SIZE, shared: true });
  await mm.mmap({ addr: at(7), fixed: true, length: PAGE_SIZE, shared: true });
  pager.delay = () => s.schedule(Promise.resolve(), "pager");
  TestHooks.on(mm).delay = () => s.schedule(Promise.resolve(), "notifier");
  const device = new FakeDevice(memory, 2048);
  device.beforeReadback = () => s.schedule(Promise.resolve(), "read-back");
  const cells = Array.from({ length: PAGES }, (_, p) => cell(p >= 3 && p < 7 ? 200 + p : 0));
  const spaces: Space[] = [{ mm, cells }];
  const end = async (): Promise<void> => {
    for (const one of spaces) {
      await one.mm.mmput();
    }
    await file.put();
    await copied.put();
    device.remove();
  };
  return { s, spaces, device, pager, end };
}

async function checkAll({ spaces }: World): Promise<void> {
  for (const [i, { mm, cells }] of spaces.entries()) {
    validateMm(mm);
    for (let p = 0; p < PAGES; p++) {
      const vma = mm.vmas.find(at(p));
      if (vma !== undefined && vma.flags & 1) {
        expect(vma.object.flagsOf(vma.objectPage(at(p))) & PageFlag.Busy, "nothing is in transit at rest").toBe(0);
        const bytes = await new Mapping(mm, addrOf(vpnOf(at(p))), PAGE_SIZE, "page").read();
        expect([...cells[p].allowed], `page ${p} of space ${i} at rest`).toContain(bytes[0]);
      }
    }
  }
}

test("operations that wait in any order neither lose stores nor show a copy the other's", async () => {
  const validated: { world: World | undefined } = { world: undefined };
  const scheduler = fc.scheduler({
    act: async (step) => {
      await step();
      for (const { mm } of validated.world?.spaces ?? []) {
        validateMm(mm);
      }
    },
  });
  await fc.assert(
    fc.asyncProperty(scheduler, fc.array(actor, { minLength: 2, maxLength: 5 }), async (s, actors) => {
      lastValue = 0;
      const world = await build(s);
      validated.world = world;
      const running = actors.map((steps, i) =>
        lockdepTask(`actor ${i}`, async () => {
          for (const { run } of steps) {
            await tolerant(() => run(world));
          }
        }),
      );
      await s.waitFor(Promise.all(running));
      world.pager.delay = undefined;
      await s.waitFor(checkAll(world));
      await s.waitFor(world.end());
      validated.world = undefined;
      const [{ cells }] = world.spaces;
      for (const p of [5, 6]) {
        if (!cells[p].dropped) {
          expect([...cells[p].allowed], `page ${p} of the file`).toEqual([world.pager.bytes[p * PAGE_SIZE]]);
        }
      }
    }),
    { numRuns: Number(process.env.PM_RUNS ?? 300) },
  );
}, 120_000);
