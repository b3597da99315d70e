/** Kernels made at random, two at a time in one small pool, while the CPU writes, maps and protects memory around them. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { KernelError, PAGE_SIZE } from "../../../base/index.ts";
import { AddressSpace, type Mapping, validateMm } from "../../../mm/index.ts";
import { Machine } from "../../../testing/machine.ts";
import { noise } from "../../../testing/svm-check.ts";
import { SVM_PAGE } from "../../../testing/svm-kernels.ts";
import {
  collectiveProgram,
  GROUP,
  isCollective,
  OWN_WORDS,
  orderedProgram,
  type ProgramMemory,
  type ProgramShape,
  program,
  type Statement,
  THERE,
} from "../../../testing/svm-program.ts";
import { runOnCpu } from "../../../testing/svm-program-cpu.ts";
import { toWgsl } from "../../../testing/svm-program-wgsl.ts";
import type { WebGpuDevice } from "../device.ts";
import type { SvmKernel } from "./svm-kernel.ts";

/** Frames of the devices' pools: one, which is the least; a few; all. */
const POOLS = [1, 3, 7, 60];

const SHAPES: readonly ProgramShape[] = [
  { workgroup: [16, 1, 1], grid: [5, 1, 1] },
  { workgroup: [4, 4, 1], grid: [2, 3, 1] },
  { workgroup: [2, 2, 4], grid: [2, 1, 3] },
];
const MOST_INVOCATIONS = 6 * GROUP;

const SHARED_PAGES = 8;
const BINS = 40;
/** In the CPU page behind what invocations own: the CPU counts there. */
const SCRATCH = MOST_INVOCATIONS * OWN_WORDS;

/** A space with the memory of one program. */
interface Side {
  readonly mm: AddressSpace;
  readonly own: Mapping;
  readonly shared: Mapping;
  readonly bins: Mapping;
  readonly memory: ProgramMemory;
  /** By svm address, as the program should leave it. */
  readonly model: Uint32Array;
  bumps: number;
}

async function makeSide(machine: Machine): Promise<Side> {
  const mm = AddressSpace.create({ memory: machine.memory });
  const shared = await mm.mmap({ length: SHARED_PAGES * SVM_PAGE, name: "shared" });
  const bins = await mm.mmap({ length: PAGE_SIZE, name: "bins" });
  const own = await mm.mmap({ length: SCRATCH * 4 + PAGE_SIZE, name: "own" });
  const ends = [shared, bins, own].map(({ svmAddress, length }) => svmAddress + length / 4);
  const model = new Uint32Array(Math.max(...ends));
  for (const mapping of [shared, bins, own]) {
    const words = model.subarray(mapping.svmAddress, mapping.svmAddress + mapping.length / 4);
    words.forEach((_, i) => {
      words[i] = noise(i) | (mapping === shared ? THERE : 0);
    });
    await mapping.write(0, words.slice());
  }
  const sharedWords = shared.length / 4;
  const memory = {
    own: own.svmAddress,
    shared: shared.svmAddress,
    sharedWords,
    bins: bins.svmAddress,
    binCount: BINS,
  };
  return { mm, own, shared, bins, memory, model, bumps: 0 };
}

const tick = () => new Promise((resolve) => setImmediate(resolve));

/** Change no word that a program uses, but take pages from it. */
const MEDDLERS = {
  async write(side: Side) {
    using lease = await side.own.lease("rw", { offset: SCRATCH * 4, length: 4 });
    lease.u32[0]++;
    side.bumps++;
  },
  async protect({ mm, shared }: Side) {
    await mm.mprotect(shared.start + PAGE_SIZE, 6 * PAGE_SIZE, "r");
    await tick();
    await mm.mprotect(shared.start, shared.length, "rw");
  },
  async mapElsewhere({ mm }: Side) {
    const other = await mm.mmap({ length: 3 * PAGE_SIZE });
    await other.write(0, new Uint8Array(9));
    await other.munmap();
  },
  async fork({ mm }: Side) {
    const child = await mm.fork();
    await tick();
    await child[Symbol.asyncDispose]();
  },
  async prefetch({ own }: Side, device: WebGpuDevice) {
    await device.prefetch(own, { write: true, timeoutMs: 10_000 });
  },
  async read({ shared }: Side) {
    await shared.read(5 * PAGE_SIZE, PAGE_SIZE);
  },
};

/** Take from a program what it needs. */
const SABOTEURS = {
  async unmap({ mm, shared }: Side) {
    await mm.munmap(shared.start + 2 * PAGE_SIZE, 13 * PAGE_SIZE);
  },
  async seal({ mm, own }: Side) {
    await mm.mprotect(own.start, SVM_PAGE, "r");
  },
};

const task = fc.tuple(fc.constantFrom(...(Object.keys(MEDDLERS) as (keyof typeof MEDDLERS)[])), fc.nat(1), fc.nat(12));
const sabotage = fc.tuple(fc.constantFrom(...(Object.keys(SABOTEURS) as (keyof typeof SABOTEURS)[])), fc.nat(30));
const sides = fc.array(
  fc.tuple(
    fc.oneof(
      { weight: 3, arbitrary: program },
      { weight: 1, arbitrary: collectiveProgram },
      { weight: 1, arbitrary: orderedProgram },
    ),
    fc.nat(2),
  ),
  { minLength: 2, maxLength: 2 },
);
const trial = fc.record({
  pool: fc.nat(POOLS.length - 1),
  sides,
  tasks: fc.array(task, { maxLength: 6 }),
  sabotage: fc.option(sabotage, { nil: undefined, freq: 3 }),
});

async function wordsOf(mapping: Mapping): Promise<Uint32Array> {
  return new Uint32Array((await mapping.read()).buffer);
}

function firstWrong(found: Uint32Array, side: Side, mapping: Mapping): string {
  const at = found.findIndex((word, i) => word !== side.model[mapping.svmAddress + i]);
  return at < 0 ? "" : `${mapping.name} word ${at}: ${found[at]} for ${side.model[mapping.svmAddress + at]}`;
}

const uses = (list: readonly Statement[], kind: Statement["kind"]): boolean =>
  JSON.stringify(list).includes(`"${kind}"`);

/** Dispatches one side's program; the error's code when it is one that the program or the saboteur has earned. */
async function run(side: Side, kernel: SvmKernel, shape: ProgramShape, mayFail: readonly string[]): Promise<string> {
  try {
    await kernel.dispatch({ mm: side.mm, workgroups: shape.grid, timeoutMs: 20_000 });
    return "done";
  } catch (error) {
    if (!(error instanceof KernelError) || !mayFail.includes(error.code)) {
      throw error;
    }
    return error.code;
  }
}

test("two random kernels in one small pool do what they do on the CPU, whatever happens around them", async () => {
  await using machine = new Machine();
  const devices: WebGpuDevice[] = [];
  for (const frames of POOLS) {
    devices.push(await machine.open({ deviceMemory: (frames + 1) * SVM_PAGE }));
  }
  const outcomes = new Map<string, number>();
  await fc.assert(
    fc.asyncProperty(trial, async (t) => {
      const device = devices[t.pool];
      const worlds: Side[] = [];
      try {
        for (const _ of t.sides) {
          worlds.push(await makeSide(machine));
        }
        let over = false;
        const later = async (ticks: number, act: () => Promise<void>) => {
          for (let n = 0; n < ticks * 8 && !over; n++) {
            await tick();
          }
          await act();
        };
        const before = worlds.map(({ model }) => model.slice());
        const running = t.sides.map(async ([statements, s], i) => {
          const side = worlds[i];
          const shape = SHAPES[s];
          const kernel = (await device.kernel(toWgsl(statements, side.memory, shape))) as SvmKernel;
          const invocations = shape.grid.reduce((a, b) => a * b) * GROUP;
          const stores = runOnCpu(statements, side.memory, side.model, invocations);
          const { logEntries } = kernel.compiled.features;
          const outcome = await run(side, kernel, shape, [
            ...(stores > logEntries || isCollective(statements) ? ["ENOTSUP"] : []),
            // A workgroup with barriers, or an invocation without resume points, can need them all.
            ...(POOLS[t.pool] < SHARED_PAGES + 4 ? ["ENOMEM"] : []),
            ...(t.sabotage !== undefined && i === 0 ? ["EFAULT", "EPERM"] : []),
          ]);
          outcomes.set(outcome, (outcomes.get(outcome) ?? 0) + 1);
          return outcome;
        });
        const finished = Promise.all(running).finally(() => {
          over = true;
        });
        const meddling = t.tasks.map(([what, i, ticks]) =>
          later(ticks, () => MEDDLERS[what](worlds[i], device)).catch((error: unknown) => {
            // What the saboteur took cannot be meddled with.
            if (t.sabotage === undefined || !(error instanceof KernelError)) {
              throw error;
            }
          }),
        );
        const sabotaged = t.sabotage;
        const broken = sabotaged && later(sabotaged[1], () => SABOTEURS[sabotaged[0]](worlds[0]));
        const [ends] = await Promise.all([finished, ...meddling, broken]);
        for (const [i, side] of worlds.entries()) {
          const { own, model } = side;
          const [statements] = t.sides[i];
          const scratch = own.svmAddress + SCRATCH;
          model[scratch] = before[i][scratch] + side.bumps;
          const found = await wordsOf(own);
          if (ends[i] === "done") {
            expect(firstWrong(found, side, own)).toBe("");
            expect(firstWrong(await wordsOf(side.bins), side, side.bins)).toBe("");
          } else if (POOLS[t.pool] > 20 && !isCollective(statements) && !uses(statements, "take")) {
            // All of an invocation, or nothing: nobody needs resume points in that pool.
            for (let at = own.svmAddress; at < scratch; at += OWN_WORDS) {
              const words = found.subarray(at - own.svmAddress, at - own.svmAddress + OWN_WORDS);
              const same = (list: Uint32Array) => words.every((word, k) => word === list[at + k]);
              expect(same(model) || same(before[i]), `words from ${at} on`).toBe(true);
            }
          }
          validateMm(side.mm);
        }
      } finally {
        for (const { mm } of worlds) {
          await mm[Symbol.asyncDispose]();
        }
      }
    }),
    { numRuns: Number(process.env.SVM_PROGRAMS ?? 6), endOnFailure: true },
  );
  expect(outcomes.get("done") ?? 0).toBeGreaterThan(0);
}, 300_000);
