import { expect, test } from "vitest";
import { useTestGpu } from "../../../testing/gpu.ts";
import { SvmHost, type SvmRunOptions, type SvmRunResult, seededRandom } from "../../../testing/svm-host.ts";
import { compileSvmKernel } from "./compile-svm.ts";

const gpu = useTestGpu("svm kernels");

interface Case {
  readonly wgsl: string;
  readonly grid: readonly [number, number, number];
  readonly params?: Record<string, number>;
  readonly pages?: number;
  /** Computes on the CPU what the kernel should. */
  readonly model: (words: Uint32Array) => void;
  readonly options?: Partial<SvmRunOptions>;
  readonly seeds?: readonly number[];
  readonly initial?: (i: number) => number;
}

/** Runs over half-resident memory, checked, with several seeds and evictions, and once over resident memory. */
async function check(c: Case): Promise<SvmRunResult[]> {
  const { pages = 8, initial = (i) => Math.imul(i, 2654435761) >>> 8 } = c;
  const kernel = await compileSvmKernel(gpu(), c.wgsl);
  const results: SvmRunResult[] = [];
  for (const seed of c.seeds ?? [1, 2, 3]) {
    for (const pipeline of ["checked", "resident", "resident-linear"] as const) {
      const random = seededRandom(seed);
      const host = new SvmHost(gpu(), { pages, random });
      host.words.forEach((_, i) => {
        host.words[i] = initial(i);
      });
      const expected = host.words.slice();
      c.model(expected);
      host.makeResident(pipeline === "checked" ? 0.5 : 1);
      try {
        const evict = pipeline === "checked" && seed > 2 ? 0.2 : 0;
        const run = { grid: c.grid, params: c.params ?? {}, pipeline, evict, ...c.options };
        const result = await host.run(kernel, run);
        expect(result.fatal).toBeUndefined();
        results.push(result);
        expectSame(await host.settle(), expected, `${pipeline}, seed ${seed}`);
      } finally {
        host.destroy();
      }
    }
  }
  return results;
}

function expectSame(got: Uint32Array, expected: Uint32Array, what: string): void {
  const wrong: string[] = [];
  for (let i = 0; i < expected.length && wrong.length < 5; i++) {
    if (got[i] !== expected[i]) {
      wrong.push(`word ${i} is ${got[i]}, not ${expected[i]}`);
    }
  }
  expect(wrong, what).toEqual([]);
}

const P = 4096;

test("read-modify-write applies once to each word", async () => {
  await check({
    wgsl: `@compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3u) {
      for (var k = 0u; k < 4u; k++) {
        let a = 4096u + id.x * 4u + k;
        pm_store_u32(a, pm_load_u32(a) + 1u);
      }
    }`,
    grid: [64, 1, 1],
    model: (w) => {
      for (let i = P; i < P + 64 * 64 * 4; i++) {
        w[i] = (w[i] ?? 0) + 1;
      }
    },
  });
});

test("a running sum through one word is right", async () => {
  await check({
    wgsl: `@compute @workgroup_size(32) fn main(@builtin(global_invocation_id) id: vec3u) {
      let out = 4096u + id.x;
      for (var k = 0u; k < 24u; k++) {
        pm_store_u32(out, pm_load_u32(out) + pm_load_u32(2u * 4096u + k * 1024u + id.x));
      }
    }`,
    grid: [4, 1, 1],
    model: (w) => {
      for (let id = 0; id < 128; id++) {
        for (let k = 0; k < 24; k++) {
          w[P + id] = (w[P + id] ?? 0) + (w[2 * P + k * 1024 + id] ?? 0);
        }
      }
    },
  });
});
