import { expect, test } from "vitest";
import { Machine, wordsOf } from "../../../testing/machine.ts";
import type { SvmKernel } from "./svm-kernel.ts";

const PAGE_WORDS = 4096;
const PAGES = 16;

const kernelOf = (body: string) => /* wgsl */ `
struct Params { data: u32, far: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3u) { ${body} }`;

/** Invocations that add 1 to a word each, and look at a page far away: after the store, or before it. Too few for scouts. */
const FEW = 512;
const EACH = (PAGES * PAGE_WORDS) / FEW;
const AFTER = kernelOf(`
  let at = params.data + id.x * ${EACH}u;
  pm_store_u32(at, pm_load_u32(at) + 1u);
  _ = pm_load_u32(params.far + id.x * ${EACH}u);`);
const BEFORE = kernelOf(`
  _ = pm_load_u32(params.far + id.x * ${EACH}u);
  let at = params.data + id.x * ${EACH}u;
  pm_store_u32(at, pm_load_u32(at) + 1u);`);
/** The second half of each vector is in the next page for one invocation of a page's. */
const VECTORS = kernelOf(`
  let at = params.data + 2u + id.x * 4u;
  pm_store_vec4u(at, pm_load_vec4u(at) + 1u);`);

test.each([
  ["before another page is missed", AFTER, false],
  ["after it was missed", BEFORE, true],
])("a word that is added to %s is added to once", async (_when, wgsl, direct) => {
  await using machine = new Machine();
  const device = await machine.open();
  const mm = machine.space();
  const kernel = await device.kernel(wgsl);
  expect((kernel as SvmKernel).compiled.features.endsWithStore).toBe(direct);
  const data = await mm.mmap({ length: PAGES * PAGE_WORDS * 4 });
  const turns = 5;
  const far = await mm.mmap({ length: turns * PAGES * PAGE_WORDS * 4 });
  await far.write(0, new Uint8Array(far.length).fill(1));
  for (let turn = 0; turn < turns; turn++) {
    // Half of what is added to is the device's own, and what is far away nobody used before.
    await device.prefetch(data.range(0, data.length / 2), { write: true });
    const params = { data: data.svmAddress, far: far.svmAddress + turn * PAGES * PAGE_WORDS };
    await kernel.dispatch({ mm, params, workgroups: FEW / 64 });
    expect(new Set((await wordsOf(data)).filter((_, i) => i % EACH === 0))).toEqual(new Set([turn + 1]));
  }
});

test("vectors over the end of a page are stored whole, once, when the CPU takes every other page in between", async () => {
  await using machine = new Machine();
  const device = await machine.open();
  const mm = machine.space();
  const kernel = await device.kernel(VECTORS);
  const words = PAGES * PAGE_WORDS;
  const data = await mm.mmap({ length: (words + PAGE_WORDS) * 4 });
  for (let turn = 0; turn < 5; turn++) {
    await kernel.dispatch({ mm, params: { data: data.svmAddress, far: 0 }, workgroups: words / 4 / 64 });
    for (let page = turn % 2; page < PAGES; page += 2) {
      (await data.lease("rw", { offset: page * PAGE_WORDS * 4, length: PAGE_WORDS * 4 })).release();
    }
  }
  const expected = new Uint32Array(data.length / 4).fill(5, 2, words + 2);
  expect((await wordsOf(data)).findIndex((word, i) => word !== expected[i])).toBe(-1);
});
