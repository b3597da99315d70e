/** Runs single invocations over many times the pool, and compares with what the CPU computes. */
import { expect } from "vitest";
import { type Machine, wordsOf } from "./machine.ts";
import { noise } from "./svm-check.ts";
import { SVM_PAGE, svmMachine } from "./svm-kernels.ts";

/** Of the pool. */
export const FRAMES = 6;
/** Device pages of `data`. */
export const PAGES = 16 * FRAMES;
/** Words of it. */
export const WORDS = (PAGES * SVM_PAGE) / 4;

/** Head of a kernel that one invocation runs. */
export const ONE = "@compute @workgroup_size(1) fn main()";

/** A kernel, and what it should do. */
export interface ResumeCase {
  readonly wgsl: string;
  /** Words of `data` and `out` before, and what should be there after. */
  readonly model: (data: Uint32Array, out: Uint32Array) => void;
  readonly workgroups?: number;
  readonly outWords?: number;
  readonly frames?: number;
  readonly initial?: (i: number) => number;
}

/** Runs `main` over `data` of 16 times the pool, `stride` words a turn where the kernel likes, and compares both mappings. */
export async function checkResume(c: ResumeCase): Promise<{ readonly rounds: number; readonly machine: Machine }> {
  const { wgsl, model, workgroups = 1, outWords = 16, frames = FRAMES, initial = noise } = c;
  await using m = await svmMachine(frames);
  const data = await m.mm.mmap({ length: WORDS * 4, name: "data" });
  const out = await m.mm.mmap({ length: outWords * 4, name: "out" });
  const expected = new Uint32Array(WORDS).map((_, i) => initial(i));
  await data.write(0, expected);
  const sums = new Uint32Array(outWords);
  model(expected, sums);
  const kernel = await m.device.kernel(`
struct Params { data: u32, out: u32, words: u32 }
@group(0) @binding(0) var<uniform> params: Params;
${wgsl}`);
  const { rounds } = await kernel.dispatch({
    mm: m.mm,
    params: { data: data.svmAddress, out: out.svmAddress, words: WORDS },
    workgroups,
  });
  const after = await wordsOf(data);
  const wrong = after.findIndex((word, i) => i < WORDS && word !== expected[i]);
  expect(wrong < 0 ? "" : `word ${wrong}: ${after[wrong]} for ${expected[wrong]}`).toBe("");
  expect([...(await wordsOf(out)).slice(0, outWords)]).toEqual([...sums]);
  return { rounds, machine: m };
}

/** Of every `step`th word. */
export const sumOf = (data: Uint32Array, step = 1) => {
  let total = 0;
  for (let i = 0; i < data.length; i += step) {
    total = (total + (data[i] ?? 0)) >>> 0;
  }
  return total;
};
