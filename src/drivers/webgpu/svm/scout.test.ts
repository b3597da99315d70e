import { expect, test } from "vitest";
import type { Mapping } from "../../../mm/index.ts";
import { Machine, wordsOf } from "../../../testing/machine.ts";
import type { SvmKernel } from "./svm-kernel.ts";

const PAGE_WORDS = 4096;
/** Pages that a dispatch uses: nobody used them before. */
const PART = 64;
const WORKGROUPS = (PART * PAGE_WORDS) / 64 / 16;

const head = `
struct Params { data: u32, out: u32, count: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3u, @builtin(local_invocation_index) lane: u32)`;

/** Each sums 16 words behind those of its neighbour. */
const NEIGHBOURS = /* wgsl */ `${head} {
  var sum = 0u;
  for (var i = 0u; i < 16u; i++) { sum += pm_load_u32(params.data + id.x * 16u + i); }
  pm_store_u32(params.out + id.x, sum);
}`;

/** Each has a page of its workgroup's for itself. */
const STRANGERS = /* wgsl */ `${head} {
  pm_store_u32(params.out + id.x, pm_load_u32(params.data + lane * ${PAGE_WORDS}u + id.x / 64u));
}`;

/** Changes what it is run over, and counts. */
const CHANGES = /* wgsl */ `${head} {
  let at = params.data + id.x * 16u;
  pm_store_u32(at, pm_load_u32(at) * 3u + 1u);
  pm_atomic_add_u32(params.count, 1u);
}`;

/** The names of the pipelines that rounds are made with, in order; "checked" is not among them. */
function pipelinesOf({ compiled }: SvmKernel): string[] {
  const names: string[] = [];
  for (const name of ["scout", "quick", "guarded"] as const) {
    const make = compiled[name];
    Object.assign(compiled, {
      [name]: () => {
        names.push(name);
        return make?.();
      },
    });
  }
  return names;
}

async function filled(mapping: Mapping): Promise<Uint32Array> {
  using lease = await mapping.lease("rw");
  const words = lease.u32;
  for (let i = 0; i < words.length; i++) {
    words[i] = Math.imul(i, 2_654_435_761) >>> 3;
  }
  return words.slice();
}

test("what neighbours use a few of them find out, and one round gets all of it done", async () => {
  await using machine = new Machine();
  const device = await machine.open();
  const mm = machine.space();
  const data = await mm.mmap({ length: 5 * PART * PAGE_WORDS * 4 });
  const out = await mm.mmap({ length: WORKGROUPS * 64 * 4 });
  const words = await filled(data);
  const kernel = await device.kernel(NEIGHBOURS);
  const pipelines = pipelinesOf(kernel as SvmKernel);
  const rounds: number[] = [];
  for (let part = 0; part < 5; part++) {
    const first = part * PART * PAGE_WORDS;
    const params = { data: data.svmAddress + first, out: out.svmAddress, count: 0 };
    const stats = await kernel.dispatch({ mm, params, workgroups: WORKGROUPS });
    rounds.push(stats.rounds);
    expect(stats.deviceFaults).toBeGreaterThanOrEqual(PART);
    expect(await wordsOf(out)).toEqual(
      Uint32Array.from({ length: WORKGROUPS * 64 }, (_, i) =>
        words.subarray(first + i * 16, first + i * 16 + 16).reduce((sum, word) => (sum + word) >>> 0, 0),
      ),
    );
  }
  expect(rounds).toEqual([2, 2, 2, 2, 2]);
  // The first dispatch is thorough; before scouts were right once, what comes after them looks for more.
  expect(pipelines).toEqual(["scout", "quick", ...Array.from({ length: 3 }, () => ["scout", "guarded"]).flat()]);
});

test("scouts whose neighbours use other pages are not sent the next time, and every word is right all the same", async () => {
  await using machine = new Machine();
  const device = await machine.open();
  const mm = machine.space();
  const turns = 6;
  const data = await mm.mmap({ length: turns * PART * PAGE_WORDS * 4 });
  const out = await mm.mmap({ length: WORKGROUPS * 64 * 4 });
  const words = await filled(data);
  const kernel = await device.kernel(STRANGERS);
  const pipelines = pipelinesOf(kernel as SvmKernel);
  const scouted: boolean[] = [];
  for (let turn = 0; turn < turns; turn++) {
    const first = turn * PART * PAGE_WORDS;
    const params = { data: data.svmAddress + first, out: out.svmAddress, count: 0 };
    pipelines.length = 0;
    await kernel.dispatch({ mm, params, workgroups: WORKGROUPS });
    scouted.push(pipelines.includes("scout"));
    expect(await wordsOf(out)).toEqual(
      Uint32Array.from(
        { length: WORKGROUPS * 64 },
        (_, i) => words[first + (i % 64) * PAGE_WORDS + Math.floor(i / 64)],
      ),
    );
  }
  expect(scouted.slice(0, 3)).toEqual([false, true, false]);
  expect(scouted.filter(Boolean).length).toBeLessThanOrEqual(2);
});

test("scouts store nothing and count nothing, wherever their pages are", async () => {
  await using machine = new Machine();
  const device = await machine.open();
  const mm = machine.space();
  const parts = 5;
  const data = await mm.mmap({ length: parts * PART * PAGE_WORDS * 4 });
  const count = await mm.mmap({ length: 4 });
  const words = await filled(data);
  const kernel = await device.kernel(CHANGES);
  const pipelines = pipelinesOf(kernel as SvmKernel);
  const params = (part: number) => ({
    data: data.svmAddress + part * PART * PAGE_WORDS,
    out: 0,
    count: count.svmAddress,
  });
  for (let part = 0; part < parts; part++) {
    if (part > 2) {
      // Part of what scouts come to is there, and the device's own.
      const offset = (part * PART + 5) * PAGE_WORDS * 4;
      await device.prefetch(data.range(offset, 5 * PAGE_WORDS * 4), { write: true });
    }
    pipelines.length = 0;
    await kernel.dispatch({ mm, params: params(part), workgroups: WORKGROUPS });
    expect(pipelines.includes("scout")).toBe(part > 0);
  }
  expect((await wordsOf(count))[0]).toBe(parts * WORKGROUPS * 64);
  const expected = words.map((word, i) => (i % 16 === 0 ? Math.imul(word, 3) + 1 : word));
  expect((await wordsOf(data)).findIndex((word, i) => word !== expected[i])).toBe(-1);
});
