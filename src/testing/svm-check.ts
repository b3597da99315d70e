/** Runs a kernel of svm mode over memory that is half there, and compares with what the CPU computes. */
import { expect } from "vitest";
import type { GpuHandle } from "../drivers/webgpu/gpu-handle.ts";
import { compileSvmKernel } from "../drivers/webgpu/svm/compile-svm.ts";
import { seededRandom } from "./seeded-random.ts";
import { type PageMapping, SvmHost, type SvmRunResult } from "./svm-host.ts";
import type { SvmRunOptions } from "./svm-host-window.ts";

/** A kernel, and what it should do. */
export interface SvmCase {
  readonly wgsl: string;
  readonly grid: readonly [number, number, number];
  readonly params?: Record<string, number>;
  /** Device pages of the aperture, 8 by default. */
  readonly pages?: number;
  readonly mapping?: (page: number) => PageMapping | undefined;
  /** Word i of memory, at the start. */
  readonly initial?: (i: number) => number;
  /** Does on the CPU what the kernel should. */
  readonly model: (words: Uint32Array) => void;
  readonly options?: Partial<SvmRunOptions>;
  readonly seeds?: readonly number[];
  readonly residency?: number;
  /** Which pipelines to run: all that the kernel has by default. */
  readonly pipelines?: readonly NonNullable<SvmRunOptions["pipeline"]>[];
}

/** What a page of memory holds when a case says nothing else. */
export function noise(i: number): number {
  return Math.imul(i, 2_654_435_761) >>> 8;
}

/**
 * Checked over half-resident memory with three seeds, the last with evictions, and quick with that one; guarded over memory that
 * can be read, and half of it written, until some is evicted; resident over all of it.
 */
export async function checkSvm(gpu: GpuHandle, c: SvmCase): Promise<SvmRunResult[]> {
  const { pages = 8, initial = noise, seeds = [1, 2, 3], residency = 0.5 } = c;
  const kernel = await compileSvmKernel(gpu, c.wgsl);
  const results: SvmRunResult[] = [];
  for (const pipeline of c.pipelines ?? ["checked", "quick", "guarded", "resident", "resident-linear"]) {
    if ((pipeline === "quick" || pipeline === "guarded") && kernel[pipeline] === undefined) {
      continue;
    }
    const missing = pipeline === "checked" || pipeline === "quick" || pipeline === "guarded";
    for (const seed of pipeline === "checked" ? seeds : seeds.slice(-1)) {
      const host = new SvmHost(gpu, {
        pages,
        random: seededRandom(seed),
        ...(c.mapping === undefined ? {} : { mapping: c.mapping }),
      });
      try {
        host.words.forEach((_, i) => {
          host.words[i] = initial(i);
        });
        const expected = host.words.slice();
        c.model(expected);
        pipeline === "guarded" ? host.makeResident(1, 0.5) : host.makeResident(missing ? residency : 1);
        const evict = missing && seed === seeds.at(-1) ? 0.3 : 0;
        const result = await host.run(kernel, { grid: c.grid, params: c.params ?? {}, pipeline, evict, ...c.options });
        expect(result.fatal, `${pipeline}, seed ${seed}`).toBeUndefined();
        results.push(result);
        expectWords(await host.settle(), expected, `${pipeline}, seed ${seed}`);
      } finally {
        host.destroy();
      }
    }
  }
  return results;
}

/** The words are the same; names the first that are not. */
export function expectWords(got: Uint32Array, expected: Uint32Array, what: string): void {
  const wrong: string[] = [];
  for (let i = 0; i < expected.length && wrong.length < 5; i++) {
    if (got[i] !== expected[i]) {
      wrong.push(`word ${i} (page ${i >> 12}) is ${got[i]}, not ${expected[i]}`);
    }
  }
  expect(wrong, what).toEqual([]);
}
