/** Kernels over memory that is half there, with any number of pages brought in a round, against models on the CPU. */
import { expect, test } from "vitest";
import { useTestGpu } from "../../../testing/gpu.ts";
import { seededRandom } from "../../../testing/seeded-random.ts";
import { checkSvm } from "../../../testing/svm-check.ts";
import { SvmHost } from "../../../testing/svm-host.ts";
import { compileSvmKernel } from "./compile-svm.ts";

const gpu = useTestGpu("svm kernels");

/** Words of a device page. */
const P = 4096;

const at = (words: Uint32Array, i: number): number => words[i] ?? 0;

test("read-modify-write applies once to each word", async () => {
  await checkSvm(gpu(), {
    wgsl: `@compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3u) {
      for (var k = 0u; k < 4u; k++) {
        let a = 4096u + id.x * 4u + k;
        pm_store_u32(a, pm_load_u32(a) + 1u);
      }
    }`,
    grid: [64, 1, 1],
    model: (w) => {
      for (let i = P; i < P + 64 * 64 * 4; i++) {
        w[i] = at(w, i) + 1;
      }
    },
  });
});

test("a running sum through one word is right", async () => {
  await checkSvm(gpu(), {
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
          w[P + id] = at(w, P + id) + at(w, 2 * P + k * 1024 + id);
        }
      }
    },
  });
});

test("an invocation reads its own stores, through scalars, vectors and spans", async () => {
  await checkSvm(gpu(), {
    wgsl: `@compute @workgroup_size(16) fn main(@builtin(global_invocation_id) id: vec3u) {
      let a = 4096u + id.x * 16u;
      pm_store_u32(a + 1u, 7u + id.x);
      let v = pm_load_vec4u(a);
      pm_store_vec4u(a + 4u, v + vec4u(1u));
      let s = pm_span(a, 16u);
      pm_span_store_u32(s, 8u, pm_span_load_u32(s, 1u) + pm_span_load_vec4u(s, 4u).y);
      pm_store_f32(5u * 4096u + id.x * 300u % 8192u, f32(pm_load_u32(a + 8u)));
    }`,
    grid: [4, 1, 1],
    model: (w) => {
      const f = new Float32Array(w.buffer);
      for (let id = 0; id < 64; id++) {
        const a = P + id * 16;
        w[a + 1] = 7 + id;
        for (let k = 0; k < 4; k++) {
          w[a + 4 + k] = at(w, a + k) + 1;
        }
        w[a + 8] = at(w, a + 1) + at(w, a + 5);
        f[5 * P + ((id * 300) % 8192)] = at(w, a + 8);
      }
    },
  });
});

test("scattered stores go where they should and nowhere else", async () => {
  await checkSvm(gpu(), {
    pages: 32,
    wgsl: `@compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3u) {
      let i = (id.x * 2654435761u) >> 15u; // 17 bits: one of 32 pages
      if (i >= 8192u) { pm_store_i32(i, -i32(pm_load_u32(4096u + id.x))); }
    }`,
    grid: [16, 1, 1],
    initial: (i) => i,
    model: (w) => {
      for (let id = 0; id < 1024; id++) {
        const i = Math.imul(id, 2_654_435_761) >>> 15;
        if (i >= 2 * P) {
          w[i] = -at(w, P + id);
        }
      }
    },
    residency: 0.3,
  });
});

test("atomics without results apply exactly once", async () => {
  await checkSvm(gpu(), {
    wgsl: `@compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3u) {
      let bin = pm_load_u32(2u * 4096u + id.x) % 32u;
      pm_atomic_add_u32(4096u + bin, 1u);
      pm_atomic_sub_u32(4096u + 32u, 1u);
      pm_atomic_max_u32(4096u + 33u, id.x);
      pm_atomic_min_i32(4096u + 34u, -i32(id.x));
      pm_atomic_max_i32(4096u + 35u, i32(id.x) - 100);
      pm_atomic_or_u32(4096u + 36u + (id.x >> 5u), 1u << (id.x & 31u));
      pm_atomic_xor_u32(7u * 4096u, id.x);
      pm_atomic_and_u32(7u * 4096u + 1u, ~(1u << (id.x & 7u)));
    }`,
    grid: [32, 1, 1],
    model: (w) => {
      const i = new Int32Array(w.buffer);
      for (let id = 0; id < 2048; id++) {
        const bin = at(w, 2 * P + id) % 32;
        w[P + bin] = at(w, P + bin) + 1;
        w[P + 32] = at(w, P + 32) - 1;
        w[P + 33] = Math.max(at(w, P + 33), id);
        i[P + 34] = Math.min(i[P + 34] ?? 0, -id);
        i[P + 35] = Math.max(i[P + 35] ?? 0, id - 100);
        w[P + 36 + (id >> 5)] = at(w, P + 36 + (id >> 5)) | (1 << (id & 31));
        w[7 * P] = at(w, 7 * P) ^ id;
        w[7 * P + 1] = at(w, 7 * P + 1) & ~(1 << (id & 7));
      }
    },
  });
});

test("an atomic in a loop that waits in the log is seen by plain loads, and combined", async () => {
  await checkSvm(gpu(), {
    wgsl: `@compute @workgroup_size(8) fn main(@builtin(global_invocation_id) id: vec3u) {
      let a = 4096u + id.x;
      var seen = 0u;
      for (var k = 0u; k < 40u; k++) {
        pm_atomic_add_u32(a, k);
        seen += pm_load_u32(a) & 0xffu;
        pm_atomic_max_u32(2u * 4096u + id.x, seen);
      }
      pm_store_u32(6u * 4096u + id.x * 17u, seen);
    }`,
    grid: [4, 1, 1],
    model: (w) => {
      for (let id = 0; id < 32; id++) {
        let seen = 0;
        for (let k = 0; k < 40; k++) {
          w[P + id] = at(w, P + id) + k;
          seen += at(w, P + id) & 0xff;
          w[2 * P + id] = Math.max(at(w, 2 * P + id), seen);
        }
        w[6 * P + id * 17] = seen;
      }
    },
  });
});

test("atomics with results apply exactly once, and a run that is repeated gets the same results", async () => {
  const kernel = await compileSvmKernel(
    gpu(),
    // Each invocation takes slots of a queue, and writes into them what it finds in memory that may be missing.
    `@compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3u) {
      let before = pm_load_u32(2u * 4096u + id.x);
      let old = pm_atomic_add_u32(2u * 4096u + id.x, 5u);
      for (var k = 0u; k < 3u; k++) {
        let slot = pm_atomic_add_u32(4096u, 1u);
        pm_store_u32(5u * 4096u + slot, k * 10000u + pm_load_u32((3u + k % 2u) * 4096u + id.x));
      }
      let swap = pm_atomic_compare_exchange_i32(2u * 4096u + 1000u + id.x, i32(1000u + id.x), -7);
      if (before != old || !swap.exchanged || swap.old_value != i32(1000u + id.x)) {
        pm_atomic_exchange_u32(4096u + 1u, 999u);
      }
    }`,
  );
  for (const seed of [1, 2, 3, 4]) {
    const host = new SvmHost(gpu(), { pages: 8, random: seededRandom(seed) });
    try {
      host.words.forEach((_, i) => {
        host.words[i] = i === P || i === P + 1 || i >= 5 * P ? 0 : i % P;
      });
      host.makeResident(0.3);
      const { fatal, rounds } = await host.run(kernel, { grid: [8, 1, 1], evict: seed > 2 ? 0.4 : 0 });
      expect(fatal).toBeUndefined();
      expect(rounds).toBeGreaterThan(1);
      const words = await host.settle();
      expect([...words.subarray(P, P + 2)]).toEqual([512 * 3, 0]);
      const wanted = Array.from({ length: 512 * 3 }, (_, i) => Math.floor(i / 512) * 10_000 + (i % 512));
      expect([...words.subarray(5 * P, 5 * P + 512 * 3)].sort((a, b) => a - b)).toEqual(wanted);
      expect([...words.subarray(2 * P, 2 * P + 512)]).toEqual(Array.from({ length: 512 }, (_, i) => i + 5));
      expect(new Set(words.subarray(2 * P + 1000, 2 * P + 1512))).toEqual(new Set([2 ** 32 - 7]));
    } finally {
      host.destroy();
    }
  }
});

test("workgroups with barriers and shared memory store only when none of them had a fault", async () => {
  await checkSvm(gpu(), {
    wgsl: `var<workgroup> part: array<u32, 64>;
    @compute @workgroup_size(64) fn main(
      @builtin(global_invocation_id) id: vec3u, @builtin(local_invocation_index) li: u32, @builtin(workgroup_id) wg: vec3u) {
      part[li] = pm_load_u32(2u * 4096u + id.x * 20u);
      workgroupBarrier();
      for (var step = 32u; step > 0u; step /= 2u) {
        if (li < step) { part[li] += part[li + step]; }
        workgroupBarrier();
      }
      let a = 4096u + id.x;
      pm_store_u32(a, pm_load_u32(a) + part[0]);
      if (li == 3u) { pm_atomic_add_u32(7u * 4096u + wg.x % 3u, part[0]); }
    }`,
    grid: [12, 1, 1],
    model: (w) => {
      for (let wg = 0; wg < 12; wg++) {
        let sum = 0;
        for (let li = 0; li < 64; li++) {
          sum = (sum + at(w, 2 * P + (wg * 64 + li) * 20)) >>> 0;
        }
        for (let li = 0; li < 64; li++) {
          w[P + wg * 64 + li] = at(w, P + wg * 64 + li) + sum;
        }
        w[7 * P + (wg % 3)] = at(w, 7 * P + (wg % 3)) + sum;
      }
    },
  });
});

test("a loop with a barrier whose end depends on missing memory ends", async () => {
  await checkSvm(gpu(), {
    wgsl: `var<workgroup> go: u32;
    @compute @workgroup_size(32) fn main(@builtin(local_invocation_index) li: u32, @builtin(workgroup_id) wg: vec3u) {
      var n = 0u;
      loop {
        if (li == 0u) { go = pm_load_u32(3u * 4096u + wg.x * 700u + n); }
        let more = workgroupUniformLoad(&go);
        if (more == 1u) { break; }
        n += 1u - min(more, 1u) + 1u;
        workgroupBarrier();
      }
      pm_store_u32(4096u + wg.x * 32u + li, n);
    }`,
    grid: [8, 1, 1],
    options: { fuel: 64 },
    // Twos step by one, up to a one; what is missing reads as zero, and never ends.
    initial: (i) => ((i - 3 * P) % 700 === 9 ? 1 : 2),
    model: (w) => {
      for (let wg = 0; wg < 8; wg++) {
        for (let li = 0; li < 32; li++) {
          w[P + wg * 32 + li] = 9;
        }
      }
    },
  });
});

test("early returns, nested loops, switches and helper functions", async () => {
  const word = (w: Uint32Array, i: number) => at(w, 2 * P + i);
  const deep = (w: Uint32Array, i: number): number => {
    let sum = 0;
    for (let a = 0; a < 3; a++) {
      for (let b = 1; b <= 3; b++) {
        if (b === 2) {
          continue;
        }
        for (let turn = 1; ; turn++) {
          sum = (sum + word(w, (i * 7 + a * P + b) % 12_000)) >>> 0;
          if (sum % 2 === 0 || turn > 2) {
            break;
          }
        }
      }
    }
    return sum % 3 === 0 ? sum : (sum * 2) >>> 0;
  };
  await checkSvm(gpu(), {
    wgsl: `struct Params { n: u32, base: u32 }
    @group(0) @binding(0) var<uniform> params: Params;
    var<private> calls: u32 = 3u;
    fn word(i: u32) -> u32 { calls++; return pm_load_u32(params.base + i); }
    fn tries(i: u32) -> u32 {
      calls = 0u;
      loop {
        if (word(i + calls * 5000u) % 8u == 1u) { return calls; }
        if (calls >= 3u) { break; }
      }
      return 77u;
    }
    fn deep(i: u32) -> u32 {
      var sum = 0u;
      for (var a = 0u; a < 3u; a++) {
        var b = 0u;
        while (b < 3u) {
          b++;
          if (b == 2u) { continue; }
          var turn = 0u;
          loop {
            sum += word((i * 7u + a * 4096u + b) % 12000u);
            continuing { turn++; break if sum % 2u == 0u || turn > 2u; }
          }
        }
      }
      switch sum % 3u { case 0u: { return sum; } case 1u, 2u: { return sum * 2u; } default: {} }
      return 0u;
    }
    @compute @workgroup_size(8, 2) fn main(@builtin(global_invocation_id) id: vec3u) {
      let i = id.x + 16u * id.y;
      if (i >= params.n) { return; }
      let out = 4096u + i;
      if (word(i) % 4u == 0u) { pm_store_u32(out, 1u); return; }
      pm_store_u32(out, deep(i) + tries(i));
    }`,
    params: { n: 100, base: 2 * P },
    grid: [2, 4, 1],
    model: (w) => {
      for (let i = 0; i < 100; i++) {
        const tries = [0, 1, 2].find((t) => word(w, i + t * 5000) % 8 === 1);
        w[P + i] = word(w, i) % 4 === 0 ? 1 : deep(w, i) + (tries === undefined ? 77 : tries + 1);
      }
    },
  });
});

test("a spin loop over missing memory ends, and goes on when the memory has come", async () => {
  const results = await checkSvm(gpu(), {
    wgsl: `@compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3u) {
      var spins = 0u;
      while (pm_load_u32(3u * 4096u + id.x) == 0u) { spins++; }
      pm_store_u32(4096u + id.x, spins + 1u);
    }`,
    grid: [4, 1, 1],
    initial: (i) => (i >= 3 * P && i < 4 * P ? 1 : 0),
    options: { fuel: 300 },
    residency: 0,
    model: (w) => w.fill(1, P, P + 256),
  });
  expect(results.filter(({ rounds }) => rounds > 1).length).toBeGreaterThan(0);
});

test("a quick round asks for a page of each invocation, and for no more once a loop was to go on", async () => {
  const kernel = await compileSvmKernel(
    gpu(),
    `@compute @workgroup_size(4) fn main(@builtin(global_invocation_id) id: vec3u) {
      var sum = 0u;
      for (var k = 0u; k < 3u; k++) { sum += pm_load_u32((1u + id.x + 4u * k) * 4096u); }
      pm_store_u32(13u * 4096u + id.x, sum);
    }`,
  );
  const host = new SvmHost(gpu(), { pages: 16, random: seededRandom(1) });
  try {
    host.words.fill(1);
    const { firstFaults, fatal } = await host.run(kernel, { grid: [1, 1, 1], pipeline: "quick" });
    expect(fatal).toBeUndefined();
    expect(new Set(firstFaults)).toEqual(new Set([1, 2, 3, 4, -13]));
    expect([...(await host.settle()).subarray(13 * P, 13 * P + 5)]).toEqual([3, 3, 3, 3, 1]);
  } finally {
    host.destroy();
  }
});
