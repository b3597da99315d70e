/** Invocations that go on from the heads of their loops, and write variables of their own. */
import { expect, test } from "vitest";
import { validateMm } from "../../../mm/index.ts";
import { wordsOf } from "../../../testing/machine.ts";
import { noise } from "../../../testing/svm-check.ts";
import { svmMachine } from "../../../testing/svm-kernels.ts";

const PAGES = 80;
const WORDS = PAGES * 4096;
const OUT = 64;

interface Case {
  readonly wgsl: string;
  readonly model: (data: Uint32Array, out: Uint32Array) => void;
  readonly workgroups?: number;
}

const ONE = "@compute @workgroup_size(1) fn main()";
const ARRAY = "@group(0) @binding(1) var<storage, read_write> out: array<u32>;";

const CASES: Record<string, Case> = {
  "a word that each turn adds to": {
    wgsl: `${ARRAY} ${ONE} {
      for (var i = 0u; i < params.words; i += 1024u) { out[3] += pm_load_u32(params.data + i); out[4] = i; }
      out[5]++;
    }`,
    model: (data, out) => {
      for (let i = 0; i < data.length; i += 1024) {
        out[3] += data[i];
        out[4] = i;
      }
      out[5]++;
    },
  },
  "values that calls return, stored in loops of several functions": {
    wgsl: `${ARRAY}
    fn part(first: u32, place: u32) -> u32 {
      var sum = 0u;
      for (var i = first; i < first + 10u * 4096u; i += 2048u) {
        sum += pm_load_u32(params.data + i) % 97u;
        out[place + 1u] = out[place + 2u] ^ sum;
      }
      return sum;
    }
    ${ONE} {
      var all = 1u;
      for (var k = 0u; k < 8u; k++) {
        if (k % 3u != 2u) {
          out[k * 4u] = part(k * 10u * 4096u, k * 4u) + all; all += out[40u + k];
        } else { out[41u + (all % 2u)] -= k; }
      }
      out[63] = all;
    }`,
    model: (data, out) => {
      let all = 1;
      for (let k = 0; k < 8; k++) {
        if (k % 3 === 2) {
          out[41 + (all % 2)] -= k;
          continue;
        }
        let sum = 0;
        for (let i = k * 40960; i < (k + 1) * 40960; i += 2048) {
          sum += data[i] % 97;
          out[k * 4 + 1] = out[k * 4 + 2] ^ sum;
        }
        out[k * 4] = sum + all;
        all = (all + out[40 + k]) >>> 0;
      }
      out[63] = all;
    },
  },
  "structures, and memory that is stored to as well": {
    wgsl: `struct Cell { pair: vec2u, rest: array<u32, 2> }
    @group(0) @binding(1) var<storage, read_write> out: array<Cell>;
    ${ONE} {
      for (var i = 0u; i < params.words; i += 1500u) {
        let x = pm_load_u32(params.data + i);
        (out[i % 8u]).rest[x & 1u] = x; out[i % 8u].pair = vec2u(i, out[8u + i % 8u].pair.y);
        for (var n = 0u; n < 40u; n++) { pm_store_u32(params.data + i + n, x + n); }
      }
    }`,
    model: (data, out) => {
      for (let i = 0; i < data.length; i += 1500) {
        const x = data[i];
        const at = (i % 8) * 4;
        out[at + 2 + (x & 1)] = x;
        out[at] = i;
        out[at + 1] = out[(8 + (i % 8)) * 4 + 1];
        for (let n = 0; n < 40; n++) data[i + n] = x + n;
      }
    },
  },
  "atomics without results": {
    wgsl: `@group(0) @binding(1) var<storage, read_write> out: array<atomic<u32>>;
    ${ONE} {
      for (var i = 0u; i < params.words; i += 900u) {
        let x = pm_load_u32(params.data + i);
        atomicAdd(&out[x % 16u], 1u); _ = atomicMax(&out[16u + (x & 3u)], x);
        pm_atomic_add_u32(params.data + 5u, 1u);
      }
    }`,
    model: (data, out) => {
      for (let i = 0; i < data.length; i += 900) {
        const x = data[i];
        out[x % 16]++;
        out[16 + (x & 3)] = Math.max(out[16 + (x & 3)], x);
        data[5]++;
      }
    },
  },
  "a queue that each turn appends to, by several invocations": {
    wgsl: `struct Queue { tail: atomic<u32>, sums: array<u32> }
    @group(0) @binding(1) var<storage, read_write> out: Queue;
    @compute @workgroup_size(2) fn main(@builtin(global_invocation_id) id: vec3u) {
      var sum = 0u;
      for (var i = id.x * 512u; i < params.words; i += 4096u) {
        if (pm_load_u32(params.data + i) % 5u == 1u) { sum += atomicAdd(&out.tail, 1u) * 0u + 1u; }
        sum ^= pm_atomic_add_u32(params.data + 4096u + id.x, 3u) << 8u;
      }
      out.sums[8u + id.x] = sum;
    }`,
    model: (data, out) => {
      for (let id = 0; id < 4; id++) {
        let sum = 0;
        for (let i = id * 512; i < data.length; i += 4096) {
          if (data[i] % 5 === 1) {
            out[0]++;
            sum++;
          }
          sum = (sum ^ (data[4096 + id] << 8)) >>> 0;
          data[4096 + id] += 3;
        }
        out[9 + id] = sum;
      }
    },
    workgroups: 2,
  },
};

test.each(Object.keys(CASES))("%s: each write once, in a pool that holds a part of what one needs", async (name) => {
  const { wgsl, model, workgroups = 1 } = CASES[name];
  await using m = await svmMachine(8);
  const data = await m.mm.mmap({ length: WORDS * 4, name: "data" });
  const out = await m.mm.mmap({ length: OUT * 4, name: "out" });
  const words = new Uint32Array(WORDS).map((_, i) => noise(i));
  const expected = new Uint32Array(OUT).map((_, i) => i * 5);
  await data.write(0, words);
  await out.write(0, expected);
  const kernel = await m.device.kernel(
    `struct Params { data: u32, words: u32 }\n@group(0) @binding(0) var<uniform> params: Params;\n${wgsl}`,
  );
  const params = { data: data.svmAddress, words: WORDS };
  for (let times = 0; times < 2; times++) {
    await kernel.dispatch({ mm: m.mm, bind: { out }, params, workgroups, timeoutMs: 10_000 });
    model(words, expected);
    expect([...(await wordsOf(out)).subarray(0, OUT)]).toEqual([...expected]);
    expect((await wordsOf(data)).findIndex((word, i) => word !== words[i])).toBe(-1);
  }
  validateMm(m.mm);
});

test("a read of what was stored in the same turn is refused still, and said so", async () => {
  await using m = await svmMachine(8);
  const data = await m.mm.mmap({ length: WORDS * 4 });
  const out = await m.mm.mmap({ length: 64 });
  const kernel = await m.device.kernel(`struct Params { data: u32 }
    @group(0) @binding(0) var<uniform> params: Params;
    ${ARRAY} ${ONE} { for (var i = 0u; i < 9u; i++) { out[1] += pm_load_u32(params.data); out[1] *= 2u; } }`);
  const run = () => kernel.dispatch({ mm: m.mm, bind: { out }, params: { data: data.svmAddress }, workgroups: 1 });
  await expect(run()).rejects.toThrow(/ENOTSUP.*reads out at index 1, where it has stored before: keep the value/);
});
