/** Invocations that go on from the heads of their loops: what they store and change by atomics happens once. */
import { expect, test } from "vitest";
import { wordsOf } from "../../../testing/machine.ts";
import { SVM_PAGE, svmMachine } from "../../../testing/svm-kernels.ts";
import { checkResume, FRAMES, ONE, PAGES, WORDS } from "../../../testing/svm-resume.ts";

test("words that are read, changed and stored change once, also where few of them wait in the log", async () => {
  await checkResume({
    wgsl: `${ONE} {
      var carry = 1u;
      for (var i = 0u; i < params.words; i += 32u) {
        let x = pm_load_u32(params.data + i) + carry;
        pm_store_u32(params.data + i, x);
        pm_store_u32(params.data + i + 1u, pm_load_u32(params.data + i) ^ 1u);
        carry = x % 7u;
      }
    }`,
    model: (data) => {
      let carry = 1;
      for (let i = 0; i < data.length; i += 32) {
        const x = ((data[i] ?? 0) + carry) >>> 0;
        data[i] = x;
        data[i + 1] = (x ^ 1) >>> 0;
        carry = x % 7;
      }
    },
  });
});

test("more stores between two points than the log holds are made by going back once", async () => {
  await checkResume({
    wgsl: `
fn fill(a: u32, x: u32) -> bool {
  for (var k = 0u; k < 50u; k++) { pm_store_u32(a + k * 80u, x + k); }
  return x > 0u;
}
${ONE} {
  var turns = 0u;
  for (var page = 0u; page * 4096u < params.words; page++) {
    let x = pm_load_u32(params.data + page * 4096u + 1u);
    if (fill(params.data + page * 4096u, x | 1u)) { turns += x % 5u; }
    pm_atomic_add_u32(params.out + 1u, 1u);
  }
  pm_store_u32(params.out, turns);
}`,
    model: (data, out) => {
      let turns = 0;
      for (let page = 0; page < PAGES; page++) {
        const x = data[page * 4096 + 1] ?? 0;
        for (let k = 0; k < 50; k++) {
          data[page * 4096 + k * 80] = ((x | 1) >>> 0) + k;
        }
        turns += x % 5;
        out[1] = (out[1] ?? 0) + 1;
      }
      out[0] = turns;
    },
  });
});

test("atomics apply once, whether their results are used or not", async () => {
  for (const used of [false, true]) {
    const add = used
      ? "tickets ^= pm_atomic_add_u32(params.out + x % 8u, x) * 3u;"
      : "pm_atomic_add_u32(params.out + x % 8u, x);";
    await checkResume({
      wgsl: `${ONE} {
        var tickets = 0u;
        for (var i = 0u; i < params.words; i += 1024u) {
          let x = pm_load_u32(params.data + i) % 1000u;
          ${add}
          pm_atomic_max_u32(params.data + i + 5u, x);
        }
        pm_store_u32(params.out + 8u, tickets);
      }`,
      model: (data, out) => {
        let tickets = 0;
        for (let i = 0; i < data.length; i += 1024) {
          const x = (data[i] ?? 0) % 1000;
          const old = out[x % 8] ?? 0;
          out[x % 8] = old + x;
          data[i + 5] = Math.max(data[i + 5] ?? 0, x);
          tickets = used ? (tickets ^ Math.imul(old, 3)) >>> 0 : 0;
        }
        out[8] = tickets;
      },
    });
  }
});

const STORES_MUCH = `
struct Params { data: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@compute @workgroup_size(8) fn main(@builtin(global_invocation_id) id: vec3u) {
  let own = params.data + id.x * 100u;
  BARRIER
  for (var k = 1u; k < 100u; k++) {
    pm_store_u32(own + k, pm_load_u32(own + k) + pm_load_u32(own + k - 1u));
  }
  pm_store_u32(own, pm_load_u32(own + 50u));
}`;

test("invocations that store more than can be kept back and read it again commit it on the way", async () => {
  await using m = await svmMachine(FRAMES);
  const data = await m.mm.mmap({ length: 2 * SVM_PAGE });
  const words = new Uint32Array(48 * 100).map((_, i) => i % 11);
  await data.write(0, words);
  const kernel = await m.device.kernel(STORES_MUCH.replace("BARRIER", ""));
  const dispatch = () => kernel.dispatch({ mm: m.mm, params: { data: data.svmAddress }, workgroups: 6 });
  for (let times = 0; times < 2; times++) {
    await dispatch();
    for (let own = 0; own < words.length; own += 100) {
      for (let k = 1; k < 100; k++) {
        words[own + k] += words[own + k - 1];
      }
      words[own] = words[own + 50];
    }
    expect([...(await wordsOf(data)).slice(0, words.length)]).toEqual([...words]);
  }
  const together = await m.device.kernel(STORES_MUCH.replace("BARRIER", "workgroupBarrier();"));
  await expect(together.dispatch({ mm: m.mm, params: { data: data.svmAddress }, workgroups: 6 })).rejects.toThrow(
    /ENOTSUP: main, .*stores more words.*resume points do not apply: it has barriers/,
  );
});

test("what a pool full of pages has recorded can be gone through again", async () => {
  const step = 7 * 4096;
  await checkResume({
    // Each page leads to another, which nobody knows before the atomic has been applied.
    wgsl: `${ONE} {
      var at = 0u;
      for (var n = 1u; n <= 32u; n++) { at = pm_atomic_add_u32(params.data + at, n); }
    }`,
    initial: (i) => (i % 4096 === 0 ? (i + step) % WORDS : i),
    model: (data) => {
      for (let n = 1; n <= 32; n++) {
        data[((n - 1) * step) % WORDS] += n;
      }
    },
  });
});
