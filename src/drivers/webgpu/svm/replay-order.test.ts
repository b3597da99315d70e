/** Workgroups that run again after their invocations have changed words by atomics: each load finds what its first run found. */
import { expect, test } from "vitest";
import { AddressSpace } from "../../../mm/index.ts";
import { useTestGpu } from "../../../testing/gpu.ts";
import { Machine } from "../../../testing/machine.ts";
import { checkSvm } from "../../../testing/svm-check.ts";
import { SVM_PAGE } from "../../../testing/svm-kernels.ts";

const gpu = useTestGpu("svm replay order");

const P = 4096;
const at = (words: Uint32Array, i: number): number => words[i] ?? 0;

/** Each invocation loads a word of its own in a page that may be missing: the workgroup runs again after all that came before. */
const MISS = "sum += pm_load_u32(5u * 4096u + (id.x % 3u) * 4096u + id.x);";
const missed = (w: Uint32Array, id: number) => at(w, 5 * P + (id % 3) * P + id);

const HEAD = `var<workgroup> tile: array<u32, 16>;
@compute @workgroup_size(16) fn main(@builtin(global_invocation_id) id: vec3u, @builtin(local_invocation_index) li: u32) {
  let first = id.x - li;
  let next = first + (li + 1u) % 16u;
  var sum = 0u;`;

test("a plain load finds the word as it was before another invocation of the workgroup changed it after a barrier", async () => {
  for (const barrier of [
    "storageBarrier();",
    "workgroupBarrier();",
    "tile[li] = li; _ = workgroupUniformLoad(&tile[3]);",
  ]) {
    const results = await checkSvm(gpu(), {
      wgsl: `${HEAD}
        sum = pm_load_u32(4096u + next);
        ${barrier}
        sum += 3u * pm_atomic_add_u32(4096u + id.x, 1000u);
        ${MISS}
        pm_store_u32(2u * 4096u + id.x, sum);
      }`,
      grid: [6, 1, 1],
      model: (w) => {
        const before = w.slice();
        for (let id = 0; id < 96; id++) {
          const next = id - (id % 16) + ((id + 1) % 16);
          w[2 * P + id] = at(before, P + next) + 3 * at(before, P + id) + missed(w, id);
          w[P + id] = at(before, P + id) + 1000;
        }
      },
    });
    expect(Math.max(...results.map(({ rounds }) => rounds))).toBeGreaterThan(1);
  }
});

test("vectors and spans find the words as they were, each at its own barrier", async () => {
  await checkSvm(gpu(), {
    wgsl: `${HEAD}
      let vector = pm_load_vec4u(4096u + first + (li % 13u));
      let span = pm_span(4096u + first, 16u);
      let there = pm_span_load_vec4u(span, (li + 2u) % 13u);
      sum = vector.x + 3u * vector.y + 5u * vector.z + 7u * vector.w + 11u * there.x + 13u * there.w;
      storageBarrier();
      let old = pm_atomic_exchange_u32(4096u + next, sum);
      storageBarrier();
      sum += 17u * pm_span_load_u32(span, (li + 5u) % 16u) + old;
      storageBarrier();
      sum += pm_atomic_sub_u32(4096u + first + (li + 7u) % 16u, 3u);
      ${MISS}
      storageBarrier();
      sum += 19u * pm_load_u32(4096u + id.x);
      pm_store_u32(2u * 4096u + id.x, sum);
    }`,
    grid: [6, 1, 1],
    model: (w) => {
      for (let first = 0; first < 96; first += 16) {
        const lanes = Array.from({ length: 16 }, (_, li) => li);
        const word = (i: number) => at(w, P + first + (i % 16));
        const sums = lanes.map((li) => {
          const [x, y, z, v] = [0, 1, 2, 3].map((k) => word((li % 13) + k));
          const there = (li + 2) % 13;
          return (x + 3 * y + 5 * z + 7 * v + 11 * word(there) + 13 * word(there + 3)) >>> 0;
        });
        const olds = lanes.map((li) => word(li + 1));
        lanes.forEach((li) => {
          w[P + first + ((li + 1) % 16)] = sums[li];
        });
        const after = lanes.map((li) => sums[li] + 17 * word(li + 5) + olds[li]);
        lanes.forEach((li) => {
          after[li] += word(li + 7) + missed(w, first + li);
        });
        lanes.forEach((li) => {
          w[P + first + li] = word(li) - 3;
        });
        lanes.forEach((li) => {
          w[2 * P + first + li] = after[li] + 19 * word(li);
        });
      }
    },
  });
});

test("where many invocations change one word between two barriers, loads before find none of it and those after all", async () => {
  await checkSvm(gpu(), {
    wgsl: `${HEAD}
      let word = 4096u + first;
      for (var turn = 0u; turn < 4u; turn++) {
        sum = sum * 5u + pm_load_u32(word);
        storageBarrier();
        let mine = pm_atomic_add_u32(word, 1u);
        let other = pm_atomic_xor_u32(word + 1u, 1u << li);
        pm_atomic_add_u32(word + 2u, (mine - mine) + (other & 0u) + turn);
        storageBarrier();
        sum += 3u * pm_load_u32(word + (turn + li) % 3u);
        if (turn % 2u == 1u) { ${MISS} }
        storageBarrier();
      }
      pm_store_u32(2u * 4096u + id.x, sum);
    }`,
    grid: [6, 1, 1],
    model: (w) => {
      for (let first = 0; first < 96; first += 16) {
        const sums = new Uint32Array(16);
        const word = P + first;
        for (let turn = 0; turn < 4; turn++) {
          sums.forEach((sum, li) => {
            sums[li] = Math.imul(sum, 5) + at(w, word);
          });
          w[word] = at(w, word) + 16;
          w[word + 1] = at(w, word + 1) ^ 0xffff;
          w[word + 2] = at(w, word + 2) + 16 * turn;
          sums.forEach((sum, li) => {
            sums[li] = sum + 3 * at(w, word + ((turn + li) % 3)) + (turn % 2 === 1 ? missed(w, first + li) : 0);
          });
        }
        w.set(sums, 2 * P + first);
      }
    },
  });
});

test("an invocation loads what it and others changed before, between and after its own atomics", async () => {
  await checkSvm(gpu(), {
    wgsl: `${HEAD}
      sum = pm_load_u32(4096u + id.x);
      sum += 3u * pm_atomic_add_u32(4096u + id.x, 5u);
      sum += 7u * pm_load_u32(4096u + id.x);
      sum += 11u * pm_atomic_max_u32(4096u + id.x, 1u << 20u);
      sum += 13u * pm_load_u32(4096u + id.x);
      workgroupBarrier();
      sum += 17u * pm_atomic_compare_exchange_u32(4096u + next, 1u << 20u, li).old_value;
      ${MISS}
      pm_store_u32(2u * 4096u + id.x, sum);
    }`,
    grid: [6, 1, 1],
    initial: (i) => i % 1000,
    model: (w) => {
      for (let id = 0; id < 96; id++) {
        const n = at(w, P + id);
        const top = 2 ** 20;
        w[2 * P + id] = n + 3 * n + 7 * (n + 5) + 11 * (n + 5) + 13 * top + 17 * top + missed(w, id);
        w[P + id] = (id + 15) % 16;
      }
    },
  });
});

test("the second run of a workgroup that stores more than can be kept back loads what the first one loaded", async () => {
  await checkSvm(gpu(), {
    wgsl: `${HEAD}
      sum = pm_load_u32(4096u + next);
      workgroupBarrier();
      sum += pm_atomic_add_u32(4096u + id.x, 1000u);
      ${MISS}
      for (var k = 0u; k < 40u; k++) { pm_store_u32(2u * 4096u + id.x * 40u + k, sum + k); }
    }`,
    grid: [6, 1, 1],
    model: (w) => {
      const before = w.slice();
      for (let id = 0; id < 96; id++) {
        const sum = at(before, P + id - (id % 16) + ((id + 1) % 16)) + at(before, P + id) + missed(w, id);
        w[P + id] = at(before, P + id) + 1000;
        for (let k = 0; k < 40; k++) {
          w[2 * P + id * 40 + k] = sum + k;
        }
      }
    },
  });
});

test("a replay log that becomes longer keeps the order", async () => {
  await checkSvm(gpu(), {
    wgsl: `${HEAD}
      for (var k = 0u; k < 20u; k++) {
        sum += pm_load_u32(4096u + first + (li + k) % 16u);
        storageBarrier();
        sum += 3u * pm_atomic_add_u32(4096u + first + (li * 5u + k) % 16u, k + 1u);
        storageBarrier();
      }
      ${MISS}
      pm_store_u32(2u * 4096u + id.x, sum);
    }`,
    grid: [6, 1, 1],
    model: (w) => {
      for (let first = 0; first < 96; first += 16) {
        const sums = new Uint32Array(16);
        for (let k = 0; k < 20; k++) {
          sums.forEach((sum, li) => {
            const other = at(w, P + first + ((li * 5 + k) % 16));
            sums[li] = sum + at(w, P + first + ((li + k) % 16)) + 3 * other;
          });
          sums.forEach((_, li) => {
            const a = P + first + ((li * 5 + k) % 16);
            w[a] = at(w, a) + k + 1;
          });
        }
        sums.forEach((sum, li) => {
          w[2 * P + first + li] = sum + missed(w, first + li);
        });
      }
    },
    options: { replayCapacity: 3 },
  });
});

test("after storageBarrier loads find other invocations' atomics, even if nobody uses a result and nothing is stored", async () => {
  await checkSvm(gpu(), {
    wgsl: `${HEAD}
      pm_atomic_add_u32(4096u + first, li);
      storageBarrier();
      sum = pm_load_u32(4096u + first);
      ${MISS}
      pm_atomic_max_u32(2u * 4096u + id.x, sum);
    }`,
    grid: [6, 1, 1],
    initial: (i) => i % 1000,
    model: (w) => {
      for (let first = 0; first < 96; first += 16) {
        w[P + first] = at(w, P + first) + 120;
        for (let id = first; id < first + 16; id++) {
          w[2 * P + id] = Math.max(at(w, 2 * P + id), at(w, P + first) + missed(w, id));
        }
      }
    },
  });
});

test("rounds with a small pool keep the order of every workgroup", async () => {
  await using machine = new Machine();
  const device = await machine.open({ deviceMemory: 25 * SVM_PAGE });
  await using mm = AddressSpace.create({ memory: machine.memory });
  // Too large to come with the first round.
  const data = await mm.mmap({ length: 64 * SVM_PAGE });
  const words = await mm.mmap({ length: SVM_PAGE });
  const seen = await mm.mmap({ length: SVM_PAGE });
  const far = (id: number) => ((id * 37) % 64) * P + id;
  const filled = new Uint32Array(64 * P).map((_, i) => i * 7);
  await data.write(0, filled);
  await words.write(
    0,
    new Uint32Array(P).map((_, i) => i * 3),
  );
  const kernel = await device.kernel(`struct Params { data: u32, words: u32, seen: u32 }
    @group(0) @binding(0) var<uniform> params: Params;
    ${HEAD}
      sum = pm_load_u32(params.words + next);
      storageBarrier();
      sum += 3u * pm_atomic_add_u32(params.words + id.x, 1000u);
      storageBarrier();
      sum += pm_load_u32(params.data + ((id.x * 37u) % 64u) * 4096u + id.x);
      pm_store_u32(params.seen + id.x, sum);
    }`);
  await kernel.dispatch({
    mm,
    params: { data: data.svmAddress, words: words.svmAddress, seen: seen.svmAddress },
    workgroups: 40,
    timeoutMs: 10_000,
  });
  const found = new Uint32Array((await seen.read()).buffer);
  for (let id = 0; id < 640; id++) {
    const next = id - (id % 16) + ((id + 1) % 16);
    expect(found[id], `invocation ${id}`).toBe(next * 3 + 9 * id + filled[far(id)]);
  }
});
