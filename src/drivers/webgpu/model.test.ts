/** Address spaces and two devices against a model of bytes, by random commands. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { KernelError, PAGE_SIZE } from "../../base/index.ts";
import { type AddressSpace, Mapping, MemoryObject, validateMm } from "../../mm/index.ts";
import { validateDevice } from "../../testing/device-pages.ts";
import { groupsFor, INCREMENT, Machine, SUM } from "../../testing/machine.ts";
import { assertProperty } from "../../testing/property.ts";
import { BASE } from "../../testing/spaces.ts";
import type { WebGpuKernel } from "./kernel.ts";

/** Pages of the region that commands are about, in each space; behind it is one page for sums. */
const PAGES = 6;
const SUMS = PAGES + 1;
/** Pages of the object that shared mappings map. */
const SHARED_PAGES = 4;
const MAX_SPACES = 3;
/** Room for one dispatch over everything, not for two spaces' worth. */
const DEVICE_PAGES = PAGES + 3;

interface ModelPage {
  readonly words: Uint32Array;
  readonly shared: boolean;
  writable: boolean;
}

interface ModelSpace {
  readonly mm: AddressSpace;
  readonly pages: (ModelPage | undefined)[];
}

interface Model {
  readonly spaces: ModelSpace[];
  readonly sharedWords: readonly Uint32Array[];
}

interface Real {
  readonly machine: Machine;
  readonly object: MemoryObject;
  readonly increments: readonly WebGpuKernel[];
  readonly sums: readonly WebGpuKernel[];
}

const addrOf = (page: number) => BASE + page * PAGE_SIZE;
const mapping = (space: ModelSpace, page: number, count: number) =>
  new Mapping(space.mm, addrOf(page) as Mapping["start"], count * PAGE_SIZE, "region");
const zeros = () => new Uint32Array(PAGE_SIZE / 4);

const privatePage = (): ModelPage => ({ words: zeros(), shared: false, writable: true });

async function codeOf(work: Promise<unknown>): Promise<string> {
  try {
    await work;
    return "done";
  } catch (error) {
    if (error instanceof KernelError) {
      return error.code;
    }
    throw error;
  }
}

/** A command that is told apart by what it does to a space of the model, chosen by number. */
class Command implements fc.AsyncCommand<Model, Real> {
  readonly #label: string;
  readonly #space: number;
  readonly #body: (space: ModelSpace, real: Real, model: Model) => Promise<void>;

  constructor(label: string, space: number, body: (space: ModelSpace, real: Real, model: Model) => Promise<void>) {
    this.#label = label;
    this.#space = space;
    this.#body = body;
  }

  check(): boolean {
    return true;
  }

  async run(model: Model, real: Real): Promise<void> {
    await this.#body(model.spaces[this.#space % model.spaces.length], real, model);
    for (const space of model.spaces) {
      validateMm(space.mm);
      for (const kernel of real.increments) {
        await validateDevice(kernel.device, space.mm, (addr) => {
          const page = (addr - BASE) / PAGE_SIZE;
          return page < PAGES ? space.pages[page]?.words : undefined;
        });
      }
    }
  }

  toString(): string {
    return this.#label;
  }
}

const anySpace = fc.nat(MAX_SPACES - 1);
const run = fc
  .tuple(fc.nat(PAGES - 1), fc.integer({ min: 1, max: PAGES }))
  .map(([page, count]) => ({ page, count: Math.min(count, PAGES - page) }));

const write = fc.tuple(anySpace, fc.nat(PAGES - 1), fc.nat(1023), fc.nat(1000)).map(
  ([s, page, word, value]) =>
    new Command(`write(${s}, ${page}:${word}, ${value})`, s, async (space) => {
      const expected = space.pages[page];
      const outcome = await codeOf(mapping(space, page, 1).write(word * 4, new Uint32Array([value])));
      expect(outcome).toBe(expected === undefined ? "EFAULT" : expected.writable ? "done" : "EACCES");
      if (outcome === "done" && expected !== undefined) {
        expected.words[word] = value;
      }
    }),
);

const read = fc.tuple(anySpace, fc.nat(PAGES - 1)).map(
  ([s, page]) =>
    new Command(`read(${s}, ${page})`, s, async (space) => {
      const expected = space.pages[page];
      if (expected !== undefined) {
        const bytes = await mapping(space, page, 1).read();
        expect(new Uint32Array(bytes.buffer)).toEqual(expected.words);
      }
    }),
);

/** What a dispatch over the pages comes to, before anything else is known. */
function expectedOutcome(space: ModelSpace, page: number, count: number, writes: boolean): string {
  const pages = space.pages.slice(page, page + count);
  for (const p of pages) {
    if (p === undefined) {
      return "EFAULT";
    }
    if (writes && !p.writable) {
      return "EACCES";
    }
  }
  const distinct = new Set(pages.map((p) => p?.words));
  return writes && distinct.size < count ? "EINVAL" : "done";
}

const increment = fc.tuple(anySpace, run, fc.nat(1)).map(
  ([s, { page, count }, d]) =>
    new Command(`increment(${s}, ${page}+${count}, gpu${d})`, s, async (space, { increments }) => {
      const data = mapping(space, page, count);
      const options = { bind: { data }, workgroups: groupsFor(data.length) };
      const outcome = await codeOf(increments[d].dispatch(options));
      expect(outcome).toBe(expectedOutcome(space, page, count, true));
      if (outcome === "done") {
        for (const p of space.pages.slice(page, page + count)) {
          p?.words.forEach((word, i, words) => {
            words[i] = word + 1;
          });
        }
      }
    }),
);

const sum = fc.tuple(anySpace, run, fc.nat(1)).map(
  ([s, { page, count }, d]) =>
    new Command(`sum(${s}, ${page}+${count}, gpu${d})`, s, async (space, real) => {
      const data = mapping(space, page, count);
      const sums = await space.mm.mmap({ addr: addrOf(SUMS), length: 4, fixed: true });
      const options = { bind: { data, sums }, params: { scale: 3 }, workgroups: groupsFor(data.length) };
      const outcome = await codeOf(real.sums[d].dispatch(options));
      expect(outcome).toBe(expectedOutcome(space, page, count, false));
      if (outcome === "done") {
        const bytes = await sums.read();
        let expected = 0;
        for (const p of space.pages.slice(page, page + count)) {
          expected = p?.words.reduce((total, word) => (total + Math.imul(word, 3)) >>> 0, expected) ?? expected;
        }
        expect(new Uint32Array(bytes.buffer)[0]).toBe(expected);
      }
      await sums.munmap();
    }),
);

const unmap = fc.tuple(anySpace, run).map(
  ([s, { page, count }]) =>
    new Command(`munmap(${s}, ${page}+${count})`, s, async (space) => {
      await space.mm.munmap(addrOf(page), count * PAGE_SIZE);
      space.pages.fill(undefined, page, page + count);
    }),
);

const map = fc.tuple(anySpace, run).map(
  ([s, { page, count }]) =>
    new Command(`mmap(${s}, ${page}+${count})`, s, async (space) => {
      await space.mm.mmap({ addr: addrOf(page), length: count * PAGE_SIZE, fixed: true });
      for (let p = page; p < page + count; p++) {
        space.pages[p] = privatePage();
      }
    }),
);

const mapShared = fc.tuple(anySpace, run, fc.nat(SHARED_PAGES - 1)).map(
  ([s, { page, count }, first]) =>
    new Command(`mmap(${s}, ${page}+${count}, shared from ${first})`, s, async (space, { object }, { sharedWords }) => {
      const n = Math.min(count, SHARED_PAGES - first);
      const offset = first * PAGE_SIZE;
      await space.mm.mmap({ addr: addrOf(page), length: n * PAGE_SIZE, fixed: true, shared: true, object, offset });
      for (let i = 0; i < n; i++) {
        space.pages[page + i] = { words: sharedWords[first + i], shared: true, writable: true };
      }
    }),
);

const protect = fc.tuple(anySpace, run, fc.constantFrom("r" as const, "rw" as const)).map(
  ([s, { page, count }, prot]) =>
    new Command(`mprotect(${s}, ${page}+${count}, ${prot})`, s, async (space) => {
      const outcome = await codeOf(space.mm.mprotect(addrOf(page), count * PAGE_SIZE, prot));
      const pages = space.pages.slice(page, page + count);
      expect(outcome).toBe(pages.includes(undefined) ? "ENOMEM" : "done");
      for (const p of outcome === "done" ? pages : []) {
        if (p !== undefined) {
          p.writable = prot === "rw";
        }
      }
    }),
);

const dontneed = fc.tuple(anySpace, run).map(
  ([s, { page, count }]) =>
    new Command(`madvise(${s}, ${page}+${count})`, s, async (space) => {
      const outcome = await codeOf(space.mm.madvise(addrOf(page), count * PAGE_SIZE, "dontneed"));
      const pages = space.pages.slice(page, page + count);
      expect(outcome).toBe(pages.includes(undefined) ? "ENOMEM" : "done");
      for (const p of outcome === "done" ? pages : []) {
        if (p !== undefined && !p.shared) {
          p.words.fill(0);
        }
      }
    }),
);

const fork = anySpace.map(
  (s) =>
    new Command(`fork(${s})`, s, async (space, _, { spaces }) => {
      if (spaces.length < MAX_SPACES) {
        const pages = space.pages.map((p) => p && { ...p, words: p.shared ? p.words : p.words.slice() });
        spaces.push({ mm: await space.mm.fork(), pages });
      }
    }),
);

const exit = anySpace.map(
  (s) =>
    new Command(`exit(${s})`, s, async (space, _, { spaces }) => {
      if (spaces.length > 1) {
        spaces.splice(spaces.indexOf(space), 1);
        await space.mm[Symbol.asyncDispose]();
      }
    }),
);

test("spaces and two devices with little memory behave like plain bytes, whatever the order of commands", async () => {
  const commands = fc.commands(
    [
      ...[write, write, read, increment, increment, increment, sum, sum],
      ...[unmap, map, mapShared, protect, dontneed, fork, exit],
    ],
    { maxCommands: 40, size: "max" },
  );
  await assertProperty(
    fc.asyncProperty(commands, async (steps) => {
      await using machine = new Machine();
      const deviceMemory = DEVICE_PAGES * PAGE_SIZE;
      const devices = [await machine.open({ deviceMemory }), await machine.open({ deviceMemory })];
      const object = new MemoryObject(machine.memory, { pages: SHARED_PAGES });
      await machine.mm.mmap({ addr: addrOf(0), length: PAGES * PAGE_SIZE, fixed: true });
      const model: Model = {
        spaces: [{ mm: machine.mm, pages: Array.from({ length: PAGES }, privatePage) }],
        sharedWords: Array.from({ length: SHARED_PAGES }, zeros),
      };
      const real: Real = {
        machine,
        object,
        increments: await Promise.all(devices.map((device) => device.kernel(INCREMENT))),
        sums: await Promise.all(devices.map((device) => device.kernel(SUM))),
      };
      try {
        await fc.asyncModelRun(() => ({ model, real }), steps);
      } finally {
        for (const { mm } of model.spaces) {
          await mm[Symbol.asyncDispose]();
        }
        await object.put();
      }
      await machine[Symbol.asyncDispose]();
      expect(machine.memory.blocksInUse).toBe(0);
    }),
    { numRuns: Number(process.env.PAGEMIRROR_RUNS ?? 25) },
  );
}, 120_000);
