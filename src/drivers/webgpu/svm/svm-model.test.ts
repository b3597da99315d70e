/** Kernels that follow pointers against a model of words: any memory, any residence, any pool, and a CPU that meddles. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { PAGE_SIZE } from "../../../base/index.ts";
import { AddressSpace, Mapping, MemoryObject, validateMm } from "../../../mm/index.ts";
import { INCREMENT, Machine } from "../../../testing/machine.ts";
import { TestPager } from "../../../testing/mm.ts";
import { assertProperty } from "../../../testing/property.ts";
import { SVM_PAGE } from "../../../testing/svm-kernels.ts";
import { ALONE, BINDING, KERNEL_NAMES, type KernelName, MODEL_KERNELS } from "../../../testing/svm-model-kernels.ts";
import type { WebGpuDevice } from "../device.ts";
import type { WebGpuKernel } from "../kernel.ts";

/** Frames of a pool with room for nearly all. */
const LARGE = 100;
/**
 * Frames of a pool in which single invocations go on from resume points: as many as one of them uses between two, and so many
 * that ranges can be bound beside.
 */
const LEAST = 4;
const LEAST_TO_BIND = 9;

/** A device with its kernels, compiled when they are needed. */
class Gpu {
  readonly device: WebGpuDevice;
  readonly canBind: boolean;
  readonly #kernels = new Map<string, Promise<WebGpuKernel>>();

  constructor(device: WebGpuDevice, frames: number) {
    this.device = device;
    this.canBind = frames >= LEAST_TO_BIND;
  }

  static async open(frames: number): Promise<Gpu> {
    return new Gpu(await machine.open({ deviceMemory: (frames + 1) * SVM_PAGE }), frames);
  }

  kernel(name: KernelName): Promise<WebGpuKernel> {
    return this.#compiled(name, MODEL_KERNELS[name].wgsl);
  }

  get bind(): Promise<WebGpuKernel> {
    return this.#compiled("bind", INCREMENT);
  }

  #compiled(name: string, wgsl: string): Promise<WebGpuKernel> {
    const kernel = this.#kernels.get(name) ?? this.device.kernel(wgsl, { name });
    this.#kernels.set(name, kernel);
    return kernel;
  }
}

let machine: Machine;
/** One whose pool is made for the trial, and the large one. */
let gpus: readonly [Gpu, Gpu];

/** A piece of memory with the words that it should hold; pieces over one object share them. */
interface Piece {
  readonly mapping: Mapping;
  readonly words: Uint32Array;
}

interface World {
  readonly spaces: { readonly mm: AddressSpace; readonly pieces: Piece[] }[];
}

type Kind = "anon" | "shared" | "file" | "copy";
const kind = fc.constantFrom<Kind>("anon", "shared", "file", "copy");
/** In CPU pages: not whole device pages. */
const sizes = fc.integer({ min: 1, max: 19 });

async function addPiece(world: World, what: Kind, pages: number, hole: boolean): Promise<void> {
  const { mm, pieces } = world.spaces[0];
  const length = pages * PAGE_SIZE;
  const object =
    what === "anon"
      ? undefined
      : new MemoryObject(
          machine.memory,
          what === "file" ? { pages, pager: new TestPager(new Uint8Array(length).fill(3)) } : { pages },
        );
  // A hole before and after each: the next device page is nobody's.
  const gap = hole ? await mm.mmap({ length: SVM_PAGE }) : undefined;
  const mapping = await mm.mmap({ length, ...(object && { object }), shared: what === "shared" || what === "file" });
  await gap?.munmap();
  await object?.put();
  const words = new Uint32Array(length / 4);
  words.set(new Uint32Array((await mapping.read()).buffer));
  words.forEach((word, i) => {
    words[i] = word + Math.imul(i, 2654435761);
  });
  // Only the first half is written: the rest is as it was born.
  const half = Math.ceil(pages / 2) * (PAGE_SIZE / 4);
  const original = new Uint32Array((await mapping.read()).buffer);
  words.set(original.subarray(half), half);
  await mapping.write(0, words.subarray(0, half));
  pieces.push({ mapping, words });
}

type Step = (world: World) => Promise<void>;
const named = (label: string, step: Step): Step => Object.assign(step, { toString: () => label });

const pieceOf = (world: World, s: number, p: number): Piece => {
  const { pieces } = world.spaces[s % world.spaces.length];
  return pieces[p % pieces.length];
};

/** Primes that divide no count of words of a piece. */
const FACTORS = [1, 23, 29, 101, 9973, 65537];

/** Changes no word, whatever it meets. */
type Meddler = (world: World, piece: Piece, device: WebGpuDevice) => Promise<void>;
const tick = () => new Promise((resolve) => setImmediate(resolve));
const meddlers: Record<string, Meddler> = {
  leaseRead: async (_w, { mapping }) => {
    using _lease = await mapping.lease("r");
    await tick();
  },
  leaseWrite: async (_w, { mapping }) => {
    using lease = await mapping.lease("rw", { offset: 0, length: PAGE_SIZE });
    const [first] = lease.u32;
    await tick();
    lease.u32[0] = first;
  },
  fork: async (_w, { mapping }) => {
    const child = await mapping.mm.fork();
    await tick();
    await child[Symbol.asyncDispose]();
  },
  mapElsewhere: async (_w, { mapping }) => {
    const other = await mapping.mm.mmap({ length: 5 * PAGE_SIZE });
    await other.write(0, new Uint8Array(100));
    await other.munmap();
  },
  sync: async (_w, { mapping }) => mapping.msync(),
};

const meddling = fc.array(fc.tuple(fc.constantFrom(...Object.keys(meddlers)), fc.nat(9), fc.nat(9)), { maxLength: 4 });

const write = fc.tuple(fc.nat(2), fc.nat(9), fc.nat(99), fc.nat(1 << 20)).map(([s, p, at, value]) =>
  named(`write(${s}, ${p}, ${at}, ${value})`, async (world) => {
    const { mapping, words } = pieceOf(world, s, p);
    const word = Math.floor((at / 100) * words.length);
    await mapping.write(word * 4, Uint32Array.of(value));
    words[word] = value;
  }),
);

const read = fc.tuple(fc.nat(2), fc.nat(9)).map(([s, p]) =>
  named(`read(${s}, ${p})`, async (world) => {
    const { mapping, words } = pieceOf(world, s, p);
    expectWords(new Uint32Array((await mapping.read()).buffer), words, mapping);
  }),
);

const prefetch = fc.tuple(fc.nat(2), fc.nat(9), fc.nat(1), fc.boolean()).map(([s, p, g, forWrite]) =>
  named(`prefetch(${s}, ${p}, gpu${g}, ${forWrite})`, async (world) => {
    await gpus[g].device.prefetch(pieceOf(world, s, p).mapping, { write: forWrite, timeoutMs: 10_000 });
  }),
);

const bind = fc.tuple(fc.nat(2), fc.nat(9), fc.nat(1)).map(([s, p, g]) =>
  named(`bind(${s}, ${p}, gpu${g})`, async (world) => {
    const { mapping, words } = pieceOf(world, s, p);
    if (!gpus[g].canBind) {
      return;
    }
    await (await gpus[g].bind).dispatch({
      bind: { data: mapping },
      workgroups: Math.ceil(words.length / 64),
      timeoutMs: 10_000,
    });
    words.forEach((word, i) => {
      words[i] = word + 1;
    });
  }),
);

const forkStep = fc.constant(
  named("fork()", async (world) => {
    if (world.spaces.length < 3) {
      const [{ mm, pieces }] = world.spaces;
      const child = await mm.fork();
      world.spaces.push({
        mm: child,
        pieces: pieces.map(({ mapping, words }) => ({
          mapping: new Mapping(child, mapping.start, mapping.length, mapping.name),
          words: mm.vmas.find(mapping.start)?.shared ? words : words.slice(),
        })),
      });
    }
  }),
);

function sharesDevicePage(a: Mapping, b: Mapping): boolean {
  const page = (addr: number) => Math.floor(addr / SVM_PAGE);
  return page(a.start) <= page(b.end - 1) && page(b.start) <= page(a.end - 1);
}

/** One dispatch, and the pieces that it may touch. */
interface Job {
  readonly label: string;
  readonly pieces: (world: World) => readonly Piece[];
  readonly run: Step;
}

const job: fc.Arbitrary<Job> = fc
  .tuple(
    fc.constantFrom(...KERNEL_NAMES),
    fc.nat(2),
    fc.nat(9),
    fc.nat(9),
    fc.nat(1),
    fc.constantFrom(...FACTORS),
    meddling,
  )
  .map(([name, s, a, b, g, k, tasks]) => ({
    label: `${name}(${s}, ${a}, ${b}, gpu${g}, ${k}, [${tasks}])`,
    pieces: (world: World) => [pieceOf(world, s, a), pieceOf(world, s, b)],
    run: async (world: World) => {
      const from = pieceOf(world, s, a);
      const to = pieceOf(world, s, b);
      if (from === to && name !== "increment" && name !== "runningSum") {
        return;
      }
      if (BINDING.has(name) && (sharesDevicePage(from.mapping, to.mapping) || !gpus[g].canBind)) {
        return;
      }
      const count = Math.min(from.words.length, to.words.length);
      let over = false;
      const kernel = await gpus[g].kernel(name);
      const running = kernel
        .dispatch({
          mm: from.mapping.mm,
          ...(BINDING.has(name) && { bind: { out: to.mapping } }),
          params: { a: from.mapping.svmAddress, b: to.mapping.svmAddress, words: count, k },
          workgroups: ALONE.has(name) ? 1 : Math.ceil(count / 32),
          timeoutMs: 10_000,
        })
        .finally(() => {
          over = true;
        });
      const meddled = tasks.map(async ([what, ms, mp], i) => {
        for (let t = 0; t < i * 20 && !over; t++) {
          await tick();
        }
        await meddlers[what](world, pieceOf(world, ms, mp), gpus[g].device);
      });
      await Promise.all([running, ...meddled]);
      MODEL_KERNELS[name].model(from.words.subarray(0, count), to.words.subarray(0, count), k);
    },
  }));

const dispatch = job.map(({ label, run }) => named(label, run));

/** Side by side, unless one could see what the other does. */
const dispatches = fc.array(job, { minLength: 2, maxLength: 3 }).map((jobs) =>
  named(`together(${jobs.map(({ label }) => label).join("; ")})`, async (world) => {
    const words = jobs.map(({ pieces }) => new Set(pieces(world).map((piece) => piece.words)));
    const apart = words.every((own, i) =>
      words.every((other, j) => i === j || [...own].every((list) => !other.has(list))),
    );
    const pages = jobs.map(({ pieces }) => pieces(world).map(({ mapping }) => mapping));
    const binds = jobs.some(({ label }) => [...BINDING].some((name) => label.startsWith(name)));
    if (apart && !(binds && pages.some((own, i) => pages.some((other, j) => i !== j && meet(own, other))))) {
      await Promise.all(jobs.map(({ run }) => run(world)));
    } else {
      for (const { run } of jobs) {
        await run(world);
      }
    }
  }),
);

const meet = (a: readonly Mapping[], b: readonly Mapping[]) =>
  a.some((x) => b.some((y) => x.mm === y.mm && sharesDevicePage(x, y)));

function expectWords(found: Uint32Array, expected: Uint32Array, { name }: Mapping): void {
  const at = found.findIndex((word, i) => word !== expected[i]);
  expect(at < 0 ? "" : `${name} word ${at}: ${found[at]} for ${expected[at]}`).toBe("");
}

test("any kernels over any memory, wherever its pages are, do what one thread would over plain words", async () => {
  await using opened = new Machine();
  machine = opened;
  const large = await Gpu.open(LARGE);
  const steps = fc.array(
    fc.oneof(
      { weight: 4, arbitrary: dispatch },
      { weight: 3, arbitrary: dispatches },
      { weight: 1, arbitrary: write },
      { weight: 1, arbitrary: read },
      { weight: 1, arbitrary: prefetch },
      { weight: 1, arbitrary: bind },
      { weight: 1, arbitrary: forkStep },
    ),
    { minLength: 1, maxLength: 12 },
  );
  const pieces = fc.array(fc.tuple(kind, sizes, fc.boolean()), { minLength: 2, maxLength: 5 });
  await assertProperty(
    fc.asyncProperty(fc.integer({ min: LEAST, max: 20 }), pieces, steps, async (frames, wanted, list) => {
      const small = await Gpu.open(frames);
      gpus = [small, large];
      const world: World = { spaces: [{ mm: AddressSpace.create({ memory: machine.memory }), pieces: [] }] };
      try {
        for (const [what, pages, hole] of wanted) {
          await addPiece(world, what, pages, hole);
        }
        for (const step of list) {
          await step(world);
          for (const { device } of gpus) {
            const { used, limit } = device.stats().deviceMemory;
            expect(used).toBeLessThanOrEqual(limit);
          }
          for (const { mm } of world.spaces) {
            validateMm(mm);
          }
        }
        for (const space of world.spaces) {
          for (const { mapping, words } of space.pieces) {
            expectWords(new Uint32Array((await mapping.read()).buffer), words, mapping);
          }
        }
      } finally {
        for (const { mm } of world.spaces) {
          await mm[Symbol.asyncDispose]();
        }
        await small.device.close();
      }
    }),
    { numRuns: Number(process.env.PM_RUNS ?? 25) },
  );
}, 300_000);
