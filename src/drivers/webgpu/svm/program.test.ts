/** Kernels made at random, over random residency, against an interpreter on the CPU. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { useTestGpu } from "../../../testing/gpu.ts";
import { assertProperty } from "../../../testing/property.ts";
import { seededRandom } from "../../../testing/seeded-random.ts";
import { expectWords, noise } from "../../../testing/svm-check.ts";
import { SvmHost } from "../../../testing/svm-host.ts";
import {
  collectiveProgram,
  isCollective,
  OWN_WORDS,
  orderedProgram,
  type ProgramMemory,
  program,
  rowOf,
  type Statement,
  THERE,
} from "../../../testing/svm-program.ts";
import { runOnCpu } from "../../../testing/svm-program-cpu.ts";
import { toWgsl } from "../../../testing/svm-program-wgsl.ts";
import { compileSvmKernel } from "./compile-svm.ts";
import { Fatal } from "./control-layout.ts";

const gpu = useTestGpu("svm programs");

const P = 4096;
const INVOCATIONS = 96;
const MEMORY: ProgramMemory = { own: P, shared: 3 * P, sharedWords: 8 * P, bins: 12 * P, binCount: 40 };

const options = fc.record({
  seed: fc.nat(),
  residency: fc.constantFrom(0, 0.3, 0.7),
  evict: fc.constantFrom(0, 0, 0.3),
  pagesPerRound: fc.option(fc.constantFrom(1, 3), { nil: undefined }),
  fuel: fc.constantFrom(0, 3, 50),
  window: fc.constantFrom(1, 4, 6),
  track: fc.boolean(),
  mostFaults: fc.constantFrom(1, 2, 32),
});

const initial = (i: number) => (noise(i) | (i >= MEMORY.shared && i < MEMORY.bins ? THERE : 0)) >>> 0;

/** A program that every pipeline takes: chance alone may draw none that has resume points. */
const walker: Statement[] = [
  { kind: "walk", index: 0, at: { kind: "id" }, turns: { kind: "number", value: 5 } },
  { kind: "store", at: { kind: "number", value: 1 }, value: { kind: "variable", index: 0 } },
];

test("whatever is resident, a kernel does what it does on the CPU, or says that it stores too much", async () => {
  let done = 0;
  let resumed = 0;
  await assertProperty(
    fc.asyncProperty(
      fc.oneof(program, collectiveProgram, orderedProgram),
      options,
      async (statements, { seed, residency, pagesPerRound, ...run }) => {
        const kernel = await compileSvmKernel(gpu(), toWgsl(statements, MEMORY, rowOf(INVOCATIONS)));
        const expected = new Uint32Array(14 * P).map((_, i) => initial(i));
        const mostStores = runOnCpu(statements, MEMORY, expected, INVOCATIONS);
        const more = [
          ...(typeof (await kernel.resuming()) === "string" ? [] : ["resuming" as const]),
          ...(kernel.quick === undefined ? [] : ["quick" as const]),
          ...(kernel.guarded === undefined ? [] : ["guarded" as const]),
        ];
        for (const pipeline of ["checked", "resident", ...more] as const) {
          const host = new SvmHost(gpu(), { pages: 14, random: seededRandom(seed) });
          try {
            host.words.forEach((_, i) => {
              host.words[i] = initial(i);
            });
            host.makeResident(pipeline === "resident" ? 1 : residency);
            const { fatal } = await host.run(kernel, {
              grid: [INVOCATIONS / 16, 1, 1],
              pipeline,
              ...run,
              ...(pagesPerRound === undefined ? {} : { pagesPerRound }),
            });
            if (fatal !== undefined) {
              expect(fatal.code).toBe(Fatal.StoreLogFull);
              expect(pipeline).not.toBe("resident");
              expect(isCollective(statements) || mostStores > kernel.features.logEntries).toBe(true);
            } else {
              done++;
              resumed += pipeline === "resuming" ? 1 : 0;
              expectWords(await host.settle(), expected, pipeline);
            }
          } finally {
            host.destroy();
          }
        }
      },
    ),
    {
      numRuns: Number(process.env.SVM_PROGRAMS ?? 10),
      examples: [
        [
          walker,
          {
            seed: 1,
            residency: 0.3,
            evict: 0.3,
            pagesPerRound: undefined,
            fuel: 0,
            window: 4,
            track: true,
            mostFaults: 2,
          },
        ],
      ],
    },
  );
  expect(done).toBeGreaterThan(0);
  expect(resumed).toBeGreaterThan(0);
}, 300_000);

test("the programs own the words that they store to", () => {
  expect(MEMORY.own + INVOCATIONS * OWN_WORDS).toBeLessThanOrEqual(MEMORY.shared);
});
