/** The write rule where it is hardest: more stores than the log holds, other invocations, and atomics between stores. */
import { expect, test } from "vitest";
import { useTestGpu } from "../../../testing/gpu.ts";
import { seededRandom } from "../../../testing/seeded-random.ts";
import { checkSvm } from "../../../testing/svm-check.ts";
import { SvmHost } from "../../../testing/svm-host.ts";
import { compileSvmKernel } from "./compile-svm.ts";
import { Fatal } from "./control-layout.ts";

const gpu = useTestGpu("svm stores");

const P = 4096;

const at = (words: Uint32Array, i: number): number => words[i] ?? 0;

test("more stores than the log holds are made by a second run, with private variables as at the start", async () => {
  await checkSvm(gpu(), {
    wgsl: `var<private> count = 5u;
    var<private> pair: vec2u;
    @compute @workgroup_size(16) fn main(@builtin(global_invocation_id) id: vec3u) {
      for (var k = 0u; k < 100u; k++) {
        count++;
        pair += vec2u(1u, 2u);
        let a = 4096u + id.x * 128u + k;
        pm_store_u32(a, pm_load_u32(a) + count + pair.x * pair.y);
      }
    }`,
    grid: [6, 1, 1],
    model: (w) => {
      for (let id = 0; id < 96; id++) {
        for (let k = 0; k < 100; k++) {
          const a = P + id * 128 + k;
          w[a] = at(w, a) + 6 + k + (k + 1) * (2 * k + 2);
        }
      }
    },
  });
});

test("more stores than the log holds in a workgroup with barriers: all of it runs again, shared memory cleared", async () => {
  await checkSvm(gpu(), {
    wgsl: `struct Tally { n: atomic<u32>, last: u32 }
    alias Counts = array<atomic<u32>, 4>;
    var<workgroup> counts: Counts;
    var<workgroup> tallies: array<Tally, 2>;
    var<workgroup> plain: array<u32, 16>;
    @compute @workgroup_size(16) fn main(@builtin(workgroup_id) wg: vec3u, @builtin(local_invocation_index) li: u32) {
      plain[li] += li + 1u;
      atomicAdd(&counts[li % 4u], plain[li]);
      atomicAdd(&tallies[li % 2u].n, 1u);
      workgroupBarrier();
      if (li == 0u) { tallies[1].last += atomicLoad(&tallies[0].n); }
      workgroupBarrier();
      let seen = atomicLoad(&counts[li % 4u]) + tallies[1].last;
      for (var k = 0u; k < 40u; k++) {
        let a = 4096u + (wg.x * 16u + li) * 40u + k;
        pm_store_u32(a, pm_load_u32(a) + seen);
        pm_atomic_add_u32(7u * 4096u + wg.x, k);
      }
    }`,
    grid: [9, 1, 1],
    model: (w) => {
      for (let wg = 0; wg < 9; wg++) {
        w[7 * P + wg] = at(w, 7 * P + wg) + 16 * 780;
        for (let li = 0; li < 16; li++) {
          const seen = 4 * ((li % 4) + 1) + 24 + 8;
          for (let k = 0; k < 40; k++) {
            const a = P + (wg * 16 + li) * 40 + k;
            w[a] = at(w, a) + seen;
          }
        }
      }
    },
  });
});

test("a kernel that reads its own stores past the log fails and writes nothing wrong", async () => {
  const kernel = await compileSvmKernel(
    gpu(),
    `@compute @workgroup_size(4) fn main(@builtin(global_invocation_id) id: vec3u) {
      let a = 4096u + id.x * 1000u;
      for (var k = 1u; k < 100u; k++) { pm_store_u32(a + k, k); }
      pm_store_u32(2u * 4096u + id.x, pm_load_u32(a + 50u));
    }`,
  );
  for (const resident of [0, 0.5, 1]) {
    const host = new SvmHost(gpu(), { pages: 4, random: seededRandom(7) });
    host.makeResident(resident);
    const { fatal } = await host.run(kernel, { grid: [1, 1, 1] });
    expect(fatal?.code).toBe(Fatal.StoreLogFull);
    expect((fatal?.address ?? 0) % 1000).toBe((P + 50) % 1000);
    expect((await host.settle()).every((word) => word === 0)).toBe(true);
    host.destroy();
  }
});

test("storing one word again and again takes one place in the log", async () => {
  await checkSvm(gpu(), {
    wgsl: `@compute @workgroup_size(8) fn main(@builtin(global_invocation_id) id: vec3u) {
      for (var k = 0u; k < 500u; k++) {
        pm_store_u32(4096u + id.x, pm_load_u32(4096u + id.x) + pm_load_u32(2u * 4096u + k * 30u));
        pm_store_u32(6u * 4096u + id.x, k);
      }
    }`,
    grid: [2, 1, 1],
    model: (w) => {
      for (let id = 0; id < 16; id++) {
        for (let k = 0; k < 500; k++) {
          w[P + id] = at(w, P + id) + at(w, 2 * P + k * 30);
        }
        w[6 * P + id] = 499;
      }
    },
  });
});

test("after storageBarrier the other invocations of a workgroup read what was stored", async () => {
  await checkSvm(gpu(), {
    wgsl: `@compute @workgroup_size(32) fn main(@builtin(global_invocation_id) id: vec3u,
      @builtin(workgroup_id) wg: vec3u, @builtin(local_invocation_index) li: u32) {
      let a = 4096u + wg.x * 700u;
      for (var turn = 0u; turn < 5u; turn++) {
        pm_store_u32(a + li, pm_load_u32(a + li) + turn);
        storageBarrier();
        let other = pm_load_u32(a + (li + 1u) % 32u);
        storageBarrier();
        pm_store_u32(a + li, other + pm_load_u32(4u * 4096u + id.x));
        storageBarrier();
      }
      let first = pm_atomic_add_u32(7u * 4096u + id.x, 1u);
      if (first == 3u) { pm_atomic_add_u32(7u * 4096u + 1000u, 1u); }
    }`,
    grid: [10, 1, 1],
    initial: (i) => (i >= 7 * P ? 3 : i),
    model: (w) => {
      for (let wg = 0; wg < 10; wg++) {
        const a = P + wg * 700;
        for (let turn = 0; turn < 5; turn++) {
          const own = Array.from({ length: 32 }, (_, li) => at(w, a + li) + turn);
          own.forEach((_, li) => {
            w[a + li] = (own[(li + 1) % 32] ?? 0) + at(w, 4 * P + wg * 32 + li);
          });
        }
        for (let li = 0; li < 32; li++) {
          w[7 * P + wg * 32 + li] = 4;
          w[7 * P + 1000] = at(w, 7 * P + 1000) + 1;
        }
      }
    },
  });
});

test("atomics with results in workgroups wait until what they do cannot come from a fault", async () => {
  await checkSvm(gpu(), {
    // Invocation 0 takes a piece of the output for its workgroup, as long as the sum of what all of them found.
    wgsl: `var<workgroup> wanted: atomic<u32>;
    var<workgroup> base: u32;
    @compute @workgroup_size(32) fn main(@builtin(global_invocation_id) id: vec3u, @builtin(local_invocation_index) li: u32) {
      let n = pm_load_u32(2u * 4096u + id.x * 64u) % 4u;
      atomicAdd(&wanted, n);
      workgroupBarrier();
      if (li == 0u) { base = pm_atomic_add_u32(4096u, atomicLoad(&wanted)); }
      let from_here = workgroupUniformLoad(&base);
      if (li < atomicLoad(&wanted)) { pm_atomic_add_u32(4u * 4096u + from_here + li, 1u); }
      pm_store_u32(6u * 4096u + id.x, n);
    }`,
    grid: [8, 1, 1],
    initial: (i) => (i === P || i >= 4 * P ? 0 : Math.imul(i, 2_654_435_761) >>> 20),
    model: (w) => {
      let used = 0;
      for (let wg = 0; wg < 8; wg++) {
        let wanted = 0;
        for (let li = 0; li < 32; li++) {
          const n = at(w, 2 * P + (wg * 32 + li) * 64) % 4;
          w[6 * P + wg * 32 + li] = n;
          wanted += n;
        }
        w.fill(1, 4 * P + used, 4 * P + used + Math.min(32, wanted));
        used += wanted;
      }
      w[P] = used;
    },
    // Pieces differ in length, and so does where the gaps are: one order only.
    options: { window: 1 },
    pipelines: ["checked"],
  });
});

test("a store and then an atomic on the same word, with and without a use of its result", async () => {
  const kernel = (use: string) => `@compute @workgroup_size(8) fn main(@builtin(global_invocation_id) id: vec3u) {
    let a = 4096u + id.x;
    pm_store_u32(a, 40u);
    ${use}
    pm_store_u32(2u * 4096u + id.x, pm_load_u32(a) + pm_load_u32(5u * 4096u + id.x * 500u));
  }`;
  for (const [use, more] of [
    ["pm_atomic_add_u32(a, 2u);", 0],
    ["let old = pm_atomic_add_u32(a, 2u); pm_store_u32(3u * 4096u + id.x, old);", 1],
  ] as const) {
    await checkSvm(gpu(), {
      wgsl: kernel(use),
      grid: [1, 1, 1],
      model: (w) => {
        for (let id = 0; id < 8; id++) {
          w[P + id] = 42;
          w[2 * P + id] = 42 + at(w, 5 * P + id * 500);
          if (more === 1) {
            w[3 * P + id] = 40;
          }
        }
      },
    });
  }
});

test("a replay log that is too short makes the invocation wait for a longer one", async () => {
  await checkSvm(gpu(), {
    wgsl: `@compute @workgroup_size(8) fn main(@builtin(global_invocation_id) id: vec3u) {
      var sum = 0u;
      for (var k = 0u; k < 48u; k++) { sum += pm_atomic_add_u32(4096u + id.x * 48u + k, 1u); }
      pm_store_u32(3u * 4096u + id.x, sum);
    }`,
    grid: [3, 1, 1],
    model: (w) => {
      for (let id = 0; id < 24; id++) {
        let sum = 0;
        for (let k = 0; k < 48; k++) {
          const a = P + id * 48 + k;
          sum += at(w, a);
          w[a] = at(w, a) + 1;
        }
        w[3 * P + id] = sum;
      }
    },
  });
});
