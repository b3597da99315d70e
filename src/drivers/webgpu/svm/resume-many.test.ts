/** Many invocations that each need more than a tiny pool: they share rounds and pages. */
import { expect, test } from "vitest";
import { checkResume, FRAMES, sumOf } from "../../../testing/svm-resume.ts";

test("4,096 invocations that each need 16 times the pool share its rounds", async () => {
  const { rounds } = await checkResume({
    workgroups: 64,
    outWords: 4096,
    wgsl: `@compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3u) {
      var sum = 0u;
      for (var i = id.x % 64u; i < params.words; i += 2048u) { sum += pm_load_u32(params.data + i); }
      pm_store_u32(params.out + id.x, sum);
    }`,
    model: (data, out) => {
      const sums = Array.from({ length: 64 }, (_, first) => sumOf(data.subarray(first), 2048));
      for (let id = 0; id < out.length; id++) {
        out[id] = sums[id % 64] ?? 0;
      }
    },
  });
  // One at a time they take 65,000.
  expect(rounds).toBeLessThan(2000);
});

test("invocations that fit the pool, but only one or two at a time, share rounds, too", async () => {
  // Each goes to 4 pages; it finds out the next one from the last one.
  const next = (x: number) => Math.imul(x, 2_654_435_761) >>> 8;
  const { rounds } = await checkResume({
    workgroups: 8,
    outWords: 128,
    wgsl: `@compute @workgroup_size(16) fn main(@builtin(global_invocation_id) id: vec3u) {
      var at = id.x * 5003u;
      for (var n = 0u; n < 4u; n++) { at = pm_load_u32(params.data + at % params.words); }
      pm_store_u32(params.out + id.x, at);
    }`,
    initial: next,
    model: (data, out) => {
      for (let id = 0; id < out.length; id++) {
        let at = id * 5003;
        for (let n = 0; n < 4; n++) {
          at = data[at % data.length] ?? 0;
        }
        out[id] = at;
      }
    },
  });
  expect(rounds).toBeLessThan(250);
});

/** Turns, each in two pages of the invocation's own, and what they add up to. */
const TURNS = 24;

test.each([3, 4, FRAMES])("each turn needs two pages, of many invocations, in %i frames", async (frames) => {
  await checkResume({
    frames,
    workgroups: 3,
    outWords: 24,
    wgsl: `@compute @workgroup_size(8) fn main(@builtin(global_invocation_id) id: vec3u) {
      let half = params.words / 2u;
      for (var i = 0u; i < ${TURNS}u; i++) {
        let at = ((i / 3u * 8u + id.x) * 4096u + i) % half;
        let x = pm_load_u32(params.data + at);
        pm_atomic_add_u32(params.data + half + at, x);
        pm_store_u32(params.out + id.x, x + i);
      }
    }`,
    model: (data, out) => {
      const half = data.length / 2;
      for (let id = 0; id < 24; id++) {
        for (let i = 0; i < TURNS; i++) {
          const at = ((Math.floor(i / 3) * 8 + id) * 4096 + i) % half;
          const x = data[at] ?? 0;
          data[half + at] = (data[half + at] ?? 0) + x;
          out[id] = x + i;
        }
      }
    },
  });
});
