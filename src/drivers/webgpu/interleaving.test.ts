/**
 * Tasks that run side by side over the same memory: leases, dispatches on two devices, system calls, forks, aborts, a lost
 * device, exit and unload. Every change is an addition, so additions that were reported as done must all be there whatever
 * the order, those that failed must not, and only those whose end nobody saw may or may not.
 */
import fc from "fast-check";
import { expect, test } from "vitest";
import { KernelError, PAGE_SIZE } from "../../base/index.ts";
import { type AddressSpace, Mapping, MemoryObject, validateMm } from "../../mm/index.ts";
import { groupsFor, Machine } from "../../testing/machine.ts";
import { assertProperty } from "../../testing/property.ts";
import type { WebGpuKernel } from "./kernel.ts";

const PAGES = 6;
/** What the CPU adds; the devices add 1. */
const CPU_STEP = 1000;
const HANG_MS = 25_000;

/** Adds 1 to `data` and, whatever that holds, to `more`. */
const ADD = /* wgsl */ `
@group(0) @binding(0) var<storage, read_write> data: array<u32>;
@group(0) @binding(1) var<storage, read_write> more: array<u32>;
@compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3u) {
  if (id.x < arrayLength(&data)) { data[id.x] += 1u; }
  if (id.x < arrayLength(&more)) { more[id.x] += 1u; }
}`;

type Op =
  | {
      readonly kind: "dispatch";
      readonly gpu: number;
      readonly page: number;
      readonly count: number;
      readonly abort: number;
    }
  | {
      readonly kind: "write";
      readonly page: number;
      readonly count: number;
      readonly held: number;
      readonly theirs: boolean;
    }
  | { readonly kind: "read"; readonly page: number; readonly held: number; readonly theirs: boolean }
  | { readonly kind: "remap" }
  | { readonly kind: "protect" }
  | { readonly kind: "fork" }
  | { readonly kind: "lose" };

const range = fc
  .tuple(fc.nat(PAGES - 1), fc.integer({ min: 1, max: PAGES }))
  .map(([page, count]) => ({ page, count: Math.min(count, PAGES - page) }));

const dispatch = fc
  .tuple(range, fc.nat(1), fc.constantFrom(-1, -1, -1, 0, 1, 5, 30))
  .map(([r, gpu, abort]): Op => ({ kind: "dispatch", ...r, gpu, abort }));
const write = fc
  .tuple(range, fc.nat(4), fc.boolean())
  .map(([r, held, theirs]): Op => ({ kind: "write", ...r, held, theirs }));
const read = fc
  .tuple(fc.nat(PAGES - 1), fc.nat(4), fc.boolean())
  .map(([page, held, theirs]): Op => ({ kind: "read", page, held, theirs }));
const plain = (kind: "remap" | "protect" | "fork" | "lose") => fc.constant<Op>({ kind });

const op = fc.oneof(
  { weight: 6, arbitrary: dispatch },
  { weight: 4, arbitrary: write },
  { weight: 3, arbitrary: read },
  { weight: 2, arbitrary: plain("remap") },
  { weight: 1, arbitrary: plain("protect") },
  { weight: 1, arbitrary: plain("fork") },
);

/** What may be in a page: additions that are done, and those that may be. */
interface Bounds {
  done: number;
  started: number;
}

class World {
  readonly bounds: readonly { readonly gpu: Bounds; readonly cpu: Bounds }[];
  readonly machine: Machine;
  readonly mm: AddressSpace;
  readonly other: AddressSpace;
  readonly data: Mapping;
  readonly theirs: Mapping;
  /** Comes and goes, in the same space. */
  readonly victim: Mapping;
  readonly kernels: readonly WebGpuKernel[];
  readonly gpus: readonly (GPUDevice | undefined)[];
  lost = false;

  constructor(parts: Pick<World, "machine" | "mm" | "other" | "data" | "theirs" | "victim" | "kernels" | "gpus">) {
    this.machine = parts.machine;
    this.mm = parts.mm;
    this.other = parts.other;
    this.data = parts.data;
    this.theirs = parts.theirs;
    this.victim = parts.victim;
    this.kernels = parts.kernels;
    this.gpus = parts.gpus;
    this.bounds = Array.from({ length: PAGES }, () => ({
      gpu: { done: 0, started: 0 },
      cpu: { done: 0, started: 0 },
    }));
  }

  /** A word as it was read, against what may be there: `at` is what was done before the reading began. */
  check(page: number, word: number, at: { gpu: number; cpu: number }): void {
    const { gpu, cpu } = this.bounds[page];
    const gpuAdds = word % CPU_STEP;
    const cpuAdds = Math.floor(word / CPU_STEP);
    expect(gpuAdds).toBeGreaterThanOrEqual(at.gpu);
    expect(gpuAdds).toBeLessThanOrEqual(gpu.started);
    expect(cpuAdds).toBeGreaterThanOrEqual(at.cpu);
    expect(cpuAdds).toBeLessThanOrEqual(cpu.started);
  }

  doneOf(page: number): { gpu: number; cpu: number } {
    return { gpu: this.bounds[page].gpu.done, cpu: this.bounds[page].cpu.done };
  }
}

async function makeWorld(machine: Machine, deviceMemory: number): Promise<World> {
  const mine = await machine.open({ deviceMemory });
  const { gpu, device } = await machine.adopt({ deviceMemory });
  const object = new MemoryObject(machine.memory, { pages: PAGES });
  const other = machine.space();
  const length = PAGES * PAGE_SIZE;
  const { mm } = machine;
  const data = await mm.mmap({ object, length, shared: true });
  const theirs = await other.mmap({ object, length, shared: true });
  await object.put();
  const victim = await mm.mmap({ length: PAGE_SIZE });
  const kernels = await Promise.all([mine.kernel(ADD), device.kernel(ADD)]);
  return new World({ machine, mm, other, data, theirs, victim, kernels, gpus: [undefined, gpu] });
}

/** Ends in "done", or in the code of an error that `allowed` names; an error of a lost device only once one is. */
async function outcomeOf(world: World, work: Promise<unknown>, allowed: readonly string[]): Promise<string> {
  try {
    await work;
    return "done";
  } catch (error) {
    if (error instanceof KernelError && (allowed.includes(error.code) || (world.lost && LOST.includes(error.code)))) {
      return error.code;
    }
    throw error;
  }
}

const pause = () => new Promise<void>((resolve) => setImmediate(resolve));

async function pauses(count: number): Promise<void> {
  for (let i = 0; i < count; i++) {
    await pause();
  }
}

async function runOp(world: World, o: Op, ending: readonly string[]): Promise<void> {
  switch (o.kind) {
    case "dispatch":
      return runDispatch(world, o, ending);
    case "write":
    case "read":
      return runLease(world, o, ending);
    case "remap": {
      const { mm, victim } = world;
      await outcomeOf(world, mm.munmap(victim.start, victim.length), ending);
      await pauses(2);
      const again = mm.mmap({ addr: victim.start, length: victim.length, fixed: true });
      await outcomeOf(world, again, ending);
      return;
    }
    case "protect": {
      const { mm, data } = world;
      await outcomeOf(world, mm.mprotect(data.start, PAGE_SIZE, "r"), ending);
      await pause();
      await outcomeOf(world, mm.mprotect(data.start, PAGE_SIZE, "rw"), ending);
      return;
    }
    case "fork": {
      const at = world.bounds.map((_, page) => world.doneOf(page));
      let child: AddressSpace | undefined;
      await outcomeOf(
        world,
        world.mm.fork().then((mm) => {
          child = mm;
        }),
        ending,
      );
      if (child !== undefined) {
        const copy = new Mapping(child, world.data.start, world.data.length, "child");
        await runReads(world, copy, 0, PAGES, at, ending);
        validateMm(child);
        await child[Symbol.asyncDispose]();
      }
      return;
    }
    case "lose":
      world.lost = true;
      world.gpus[1]?.destroy();
      return;
    default:
      return o satisfies never;
  }
}

async function runDispatch(world: World, o: Op & { kind: "dispatch" }, ending: readonly string[]): Promise<void> {
  const { data, victim } = world;
  const stop = new AbortController();
  const bounds = world.bounds.slice(o.page, o.page + o.count).map((b) => b.gpu);
  for (const b of bounds) {
    b.started++;
  }
  const part = data.range(o.page * PAGE_SIZE, o.count * PAGE_SIZE);
  const running = outcomeOf(
    world,
    world.kernels[o.gpu].dispatch({
      bind: { data: part, more: victim.range(0) },
      workgroups: groupsFor(o.count * PAGE_SIZE),
      signal: stop.signal,
      timeoutMs: 5000,
    }),
    ["EFAULT", "EACCES", "EINTR", "EBUSY", ...ending],
  );
  if (o.abort >= 0) {
    await pauses(o.abort);
    stop.abort();
  }
  const outcome = await running;
  for (const b of bounds) {
    if (outcome === "done") {
      b.done++;
    } else if (outcome !== "EINTR" && outcome !== "ENODEV") {
      // It was refused: nothing may have changed.
      b.started--;
    }
  }
}

/** What a device's loss makes of operations. */
const LOST = ["ENODEV", "EHWPOISON"];

async function runLease(world: World, o: Op & { kind: "read" | "write" }, ending: readonly string[]): Promise<void> {
  const mapping = o.theirs ? world.theirs : world.data;
  const count = o.kind === "write" ? o.count : 1;
  const at = world.bounds.map((_, page) => world.doneOf(page));
  if (o.kind === "read") {
    return runReads(world, mapping, o.page, count, at, ending, o.held);
  }
  const work = async () => {
    using lease = await mapping.lease("rw", { offset: o.page * PAGE_SIZE, length: count * PAGE_SIZE });
    const { u32 } = lease;
    await pauses(o.held);
    for (let i = 0; i < count; i++) {
      const page = o.page + i;
      world.check(page, u32[i * 1024], at[page]);
      world.bounds[page].cpu.started++;
      for (let w = i * 1024; w < (i + 1) * 1024; w++) {
        u32[w] += CPU_STEP;
      }
      world.bounds[page].cpu.done++;
    }
    await pauses(o.held);
  };
  await outcomeOf(world, work(), ["EACCES", ...ending]);
}

async function runReads(
  world: World,
  mapping: Mapping,
  page: number,
  count: number,
  at: readonly { gpu: number; cpu: number }[],
  ending: readonly string[],
  held = 0,
): Promise<void> {
  const work = async () => {
    using lease = await mapping.lease("r", { offset: page * PAGE_SIZE, length: count * PAGE_SIZE });
    const { u32 } = lease;
    const before = u32.slice();
    for (let i = 0; i < count; i++) {
      world.check(page + i, before[i * 1024], at[page + i]);
      expect(before.subarray(i * 1024, (i + 1) * 1024).every((w) => w === before[i * 1024])).toBe(true);
    }
    await pauses(held);
  };
  await outcomeOf(world, work(), ending);
}

async function inTime<T>(work: Promise<T>): Promise<T> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const hang = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new Error("the tasks hang")), HANG_MS);
  });
  try {
    return await Promise.race([work, hang]);
  } finally {
    clearTimeout(timer);
  }
}

const tasks = fc.array(fc.array(op, { minLength: 1, maxLength: 8 }), { minLength: 2, maxLength: 6 });
const numRuns = Number(process.env.PAGEMIRROR_RUNS ?? 12);

async function runTasks(world: World, list: readonly (readonly Op[])[], ending: readonly string[] = []): Promise<void> {
  const settled = await inTime(
    Promise.allSettled(
      list.map(async (ops) => {
        for (const o of ops) {
          await runOp(world, o, ending);
        }
      }),
    ),
  );
  for (const result of settled) {
    if (result.status === "rejected") {
      throw result.reason;
    }
  }
}

/** When everything is at rest: all that is certain is there. */
async function checkRest(world: World): Promise<void> {
  validateMm(world.mm);
  validateMm(world.other);
  for (let page = 0; page < PAGES; page++) {
    await runReads(
      world,
      world.theirs,
      page,
      1,
      world.bounds.map((_, p) => world.doneOf(p)),
      [],
    );
  }
}

test("additions by leases and two devices are never lost, doubled or torn, whatever runs beside them", async () => {
  await assertProperty(
    fc.asyncProperty(tasks, fc.constantFrom(4, 16), async (list, devicePages) => {
      await using machine = new Machine();
      const world = await makeWorld(machine, devicePages * PAGE_SIZE + 4 * PAGE_SIZE);
      await runTasks(world, list);
      await checkRest(world);
    }),
    { numRuns },
  );
}, 300_000);

test("a device that is lost on the way takes only what it held, and says so", async () => {
  await assertProperty(
    fc.asyncProperty(tasks, fc.nat(20), async (list, when) => {
      await using machine = new Machine();
      const world = await makeWorld(machine, 16 * PAGE_SIZE);
      const lose = async () => {
        await pauses(when);
        await runOp(world, { kind: "lose" }, []);
      };
      await Promise.all([runTasks(world, list), lose()]);
      await checkRest(world);
    }),
    { numRuns },
  );
}, 300_000);

test("a space may exit and the driver be unloaded under running tasks", async () => {
  const over = ["ESRCH", "ENODEV", "EFAULT", "ENOMEM", "EINVAL"];
  await assertProperty(
    fc.asyncProperty(tasks, fc.nat(20), fc.nat(20), async (list, exitAt, unloadAt) => {
      const machine = new Machine();
      const world = await makeWorld(machine, 16 * PAGE_SIZE);
      const exit = pauses(exitAt).then(() => world.mm[Symbol.asyncDispose]());
      const unload = pauses(unloadAt).then(() => machine.driver.unload());
      await Promise.all([runTasks(world, list, over), exit, unload]);
      await inTime(machine[Symbol.asyncDispose]());
      expect(machine.memory.blocksInUse).toBe(0);
    }),
    { numRuns },
  );
}, 300_000);
