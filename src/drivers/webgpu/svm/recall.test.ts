/** A kernel that is dispatched again: what it missed before comes along with its first round. */
import { expect, test } from "vitest";
import { validateMm } from "../../../mm/index.ts";
import { wordsOf } from "../../../testing/machine.ts";
import { SVM_PAGE, svmMachine } from "../../../testing/svm-kernels.ts";

const COUNT = 64;
/** Words between the places that are read: each is in a device page of its own. */
const APART = SVM_PAGE / 4;

const GATHER = /* wgsl */ `
struct Params { data: u32, first: u32, sums: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@compute @workgroup_size(${COUNT}) fn main(@builtin(global_invocation_id) id: vec3u) {
  pm_store_u32(params.sums + id.x, pm_load_u32(params.data + (params.first + id.x) * ${APART}u));
}`;

/** A gather of the pages from one on, after the CPU has written them and taken what it made before. */
async function gathering() {
  const m = await svmMachine(1024);
  const data = await m.mm.mmap({ length: 600 * SVM_PAGE, name: "data" });
  const sums = await m.mm.mmap({ length: COUNT * 4, name: "sums" });
  const kernel = await m.device.kernel(GATHER);
  let round = 0;
  const run = async (first: number) => {
    round++;
    const lease = await data.lease("rw");
    const { u32 } = lease;
    for (let page = 0; page < 600; page++) {
      u32[page * APART] = page * 1000 + round;
    }
    lease.release();
    const params = { data: data.svmAddress, first, sums: sums.svmAddress };
    const stats = await kernel.dispatch({ mm: m.mm, params, workgroups: 1 });
    expect(await wordsOf(sums)).toEqual(Uint32Array.from({ length: COUNT }, (_, i) => (first + i) * 1000 + round));
    validateMm(m.mm);
    return stats;
  };
  return { m, run };
}

test("a second dispatch misses nothing that the first one missed, what it writes included", async () => {
  const { m, run } = await gathering();
  await using _ = m;
  const first = await run(0);
  expect(first.rounds).toBeGreaterThan(1);
  expect(first.deviceFaults).toBe(COUNT + 1);
  for (let again = 0; again < 20; again++) {
    const { rounds, deviceFaults, bytesToDevice } = await run(0);
    expect({ rounds, deviceFaults, bytesToDevice }).toEqual({
      rounds: 1,
      deviceFaults: 0,
      bytesToDevice: COUNT * SVM_PAGE,
    });
  }
});

test("what was guessed in vain is not guessed again, and guessing pauses for longer each time", async () => {
  const { m, run } = await gathering();
  await using _ = m;
  const wasted: boolean[] = [];
  for (let i = 0; i < 24; i++) {
    const { bytesToDevice } = await run((i % 4) * 128);
    wasted.push(bytesToDevice > 1.5 * COUNT * SVM_PAGE);
  }
  expect(wasted.filter(Boolean).length).toBeLessThanOrEqual(5);
});

test("a kernel that goes on to other pages misses them, and has the right words", async () => {
  const { m, run } = await gathering();
  await using _ = m;
  await run(0);
  expect((await run(0)).rounds).toBe(1);
  expect((await run(0)).rounds).toBe(1);
  // Trusted by now: loads say nothing of what they miss in the first round.
  const { rounds, deviceFaults } = await run(COUNT / 2);
  expect(rounds).toBeGreaterThan(1);
  expect(deviceFaults).toBe(COUNT / 2);
  expect((await run(COUNT / 2)).rounds).toBe(1);
});
