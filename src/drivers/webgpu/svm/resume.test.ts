/** Invocations that need many times the pool, and go on from the heads of their loops. */
import { test } from "vitest";
import { noise } from "../../../testing/svm-check.ts";
import { checkResume, FRAMES, ONE, PAGES, sumOf } from "../../../testing/svm-resume.ts";

for (const [form, loop] of [
  ["for", "for (var i = 0u; i < params.words; i += 64u) { total += pm_load_u32(params.data + i); }"],
  ["while", "var i = 0u; while (i < params.words) { total += pm_load_u32(params.data + i); i += 64u; }"],
  [
    "loop",
    "var i = 0u; loop { if (i >= params.words) { break; } total += pm_load_u32(params.data + i); continuing { i += 64u; } }",
  ],
] as const) {
  test(`one invocation sums 16 times the pool in a ${form} loop`, async () => {
    await checkResume({
      wgsl: `@compute @workgroup_size(1) fn main() { var total = 0u; ${loop} pm_store_u32(params.out, total); }`,
      model: (data, out) => {
        out[0] = sumOf(data, 64);
      },
    });
  });
}

test("a nested loop goes on inside, with break, continue and an early return", async () => {
  await checkResume({
    wgsl: `${ONE} {
      var total = 0u;
      for (var turn = 0u; turn < 3u; turn++) {
        let bias = turn * 7u;
        if (turn == 1u) { total ^= bias; continue; }
        var i = turn;
        while (true) {
          if (i >= params.words) { break; }
          let x = pm_load_u32(params.data + i);
          i += 512u;
          if (x % 3u == 0u) { continue; }
          if (turn == 2u && i > params.words - 9000u) {
            pm_store_u32(params.out + 1u, i);
            pm_store_u32(params.out, total);
            return;
          }
          total += x + bias;
        }
        pm_store_u32(params.out + 2u + turn, total);
      }
      pm_store_u32(params.out, 1u);
    }`,
    model: (data, out) => {
      let total = 0;
      for (let turn = 0; turn < 3; turn++) {
        const bias = turn * 7;
        if (turn === 1) {
          total = (total ^ bias) >>> 0;
          continue;
        }
        for (let i = turn; i < data.length; ) {
          const x = data[i] ?? 0;
          i += 512;
          if (x % 3 === 0) {
            continue;
          }
          if (turn === 2 && i > data.length - 9000) {
            out[1] = i;
            out[0] = total;
            return;
          }
          total = (total + x + bias) >>> 0;
        }
        out[2 + turn] = total;
      }
    },
  });
});

test("variables of all types live on: vectors, matrices, arrays, structs, private ones, and those behind pointers", async () => {
  await checkResume({
    wgsl: `
const SLOTS = 2u + 1u;
alias Seen = array<u32, SLOTS>;
struct State { at: vec2u, flags: vec2<bool>, seen: Seen, f: f32, m: mat2x3f }
var<private> calls = 5u;
fn note(p: ptr<function, u32>, x: u32) { calls++; *p += x; }
${ONE} {
  const STEP = 256u;
  var s = State(vec2u(1u, 2u), vec2(true, false), Seen(7u, 8u, 9u), 0.5, mat2x3f());
  var behind = 3u;
  let p = &behind;
  var signed = -4;
  var done = false;
  let scale = vec3(1, 2, 3) * 2;
  let both = select(s.at, s.at.yx, s.flags);
  for (var i = 0u; i < params.words; i += STEP) {
    let x = pm_load_u32(params.data + i) % 16u;
    note(p, x);
    note(&behind, 1u);
    s.at = s.at.yx + both;
    s.flags = !s.flags;
    s.seen[x % SLOTS] += x;
    s.f += f32(x % 2u);
    s.m[1][2] += f32(x % 4u);
    signed -= scale.y;
    done = done || x == 15u;
  }
  pm_store_u32(params.out, behind);
  pm_store_u32(params.out + 1u, calls);
  pm_store_vec4u(params.out + 2u, vec4u(s.at, u32(s.flags.x), u32(done)));
  pm_store_vec4u(params.out + 6u, vec4u(s.seen[0], s.seen[1], s.seen[2], u32(s.f)));
  pm_store_u32(params.out + 10u, u32(s.m[1][2]));
  pm_store_i32(params.out + 11u, signed);
}`,
    model: (data, out) => {
      let behind = 3;
      let calls = 5;
      let at = [1, 2];
      let flags = [true, false];
      const seen = [7, 8, 9];
      let f = 0.5;
      let m = 0;
      let signed = -4;
      let done = false;
      const both = [2, 2];
      both[0] = 2;
      both[1] = 2;
      for (let i = 0; i < data.length; i += 256) {
        const x = (data[i] ?? 0) % 16;
        behind += x + 1;
        calls += 2;
        at = [((at[1] ?? 0) + 2) >>> 0, ((at[0] ?? 0) + 2) >>> 0];
        flags = flags.map((flag) => !flag);
        seen[x % 3] = (seen[x % 3] ?? 0) + x;
        f += x % 2;
        m += x % 4;
        signed -= 4;
        done ||= x === 15;
      }
      out.set([behind, calls, ...at, Number(flags[0]), Number(done), ...seen, Math.floor(f), m, signed]);
    },
  });
});

test("a list is walked through pages in any order", async () => {
  const next = (page: number) => (page * 37 + 11) % PAGES;
  await checkResume({
    initial: (i) => (i % 4096 === 0 ? next(i / 4096) : noise(i)),
    wgsl: `${ONE} {
      var page = 0u;
      var sum = 0u;
      loop {
        sum += pm_load_u32(params.data + page * 4096u + 1u);
        page = pm_load_u32(params.data + page * 4096u);
        continuing { break if page == 0u; }
      }
      pm_store_u32(params.out, sum);
    }`,
    model: (data, out) => {
      let page = 0;
      do {
        out[0] = (out[0] ?? 0) + (data[page * 4096 + 1] ?? 0);
        page = next(page);
      } while (page !== 0);
    },
  });
});

test("spans and copies go on: what they name is looked up again", async () => {
  await checkResume({
    wgsl: `${ONE} {
      var done = 0u;
      let half = params.words / 2u;
      while (done < half) {
        let source = pm_span(params.data + done, half - done);
        let goal = pm_span(params.data + half + done, source.words);
        for (var i = 0u; i < goal.words; i += 16u) {
          pm_span_store_vec4u(goal, i, pm_span_load_vec4u(source, i) + 1u);
        }
        done += goal.words;
      }
    }`,
    model: (data) => {
      const half = data.length / 2;
      for (let i = 0; i < half; i += 16) {
        for (let k = 0; k < 4; k++) {
          data[half + i + k] = (data[i + k] ?? 0) + 1;
        }
      }
    },
  });
});

test("functions that are called as statements go on inside, in whatever branch", async () => {
  await checkResume({
    wgsl: `
fn part(first: u32, end: u32) -> u32 {
  var sum = 0u;
  for (var i = first; i < end; i += 128u) {
    let x = pm_load_u32(params.data + i);
    if (x == 1u) { return sum; }
    sum += x;
  }
  return sum;
}
fn twice(first: u32, end: u32) -> u32 {
  let middle = (first + end) / 2u;
  var sum = part(first, middle);
  sum ^= 5u;
  return part(middle, end) + sum;
}
fn leave(a: u32, x: u32) { for (var k = 0u; k < 2u; k++) { pm_store_u32(a + k, x + k); } }
${ONE} {
  let quarter = params.words / 4u;
  for (var n = 0u; n < 4u; n++) {
    var sum = 0u;
    if (part(0u, quarter) % 2u == 7u) { return; }
    switch n {
      case 0u, 3u: { sum = twice(n * quarter, (n + 1u) * quarter); }
      case 1u: {
        if (params.words < 5u) { sum = 1u; } else if (params.words > 6u) { sum += part(quarter, 2u * quarter); }
      }
      default: { sum = 9u; }
    }
    leave(params.out + n * 2u, sum);
  }
}`,
    model: (data, out) => {
      const quarter = data.length / 4;
      const part = (first: number, end: number) => sumOf(data.subarray(first, end), 128);
      const twice = (first: number, end: number) => {
        const middle = (first + end) / 2;
        return (part(middle, end) + ((part(first, middle) ^ 5) >>> 0)) >>> 0;
      };
      const sums = [twice(0, quarter), part(quarter, 2 * quarter), 9, twice(3 * quarter, 4 * quarter)];
      sums.forEach((x, n) => {
        out.set([x, x + 1], n * 2);
      });
    },
  });
});

test.each([
  { size: 1, workgroups: 5, frames: FRAMES },
  { size: 4, workgroups: 3, frames: FRAMES },
  { size: 4, workgroups: 3, frames: 24 },
])(
  "each of many invocations needs more than the pool: $workgroups workgroups of $size in $frames frames",
  async ({ size, workgroups, frames }) => {
    await checkResume({
      workgroups,
      frames,
      wgsl: `@compute @workgroup_size(${size}) fn main(@builtin(global_invocation_id) id: vec3u) {
      var sum = 0u;
      for (var i = id.x; i < params.words; i += 2048u) {
        sum += pm_load_u32(params.data + i);
        pm_atomic_add_u32(params.data + i + 1024u, id.x + 1u);
      }
      pm_store_u32(params.out + id.x, sum);
    }`,
      model: (data, out) => {
        for (let id = 0; id < size * workgroups; id++) {
          for (let i = id; i < data.length; i += 2048) {
            out[id] = (out[id] ?? 0) + (data[i] ?? 0);
            data[i + 1024] = (data[i + 1024] ?? 0) + id + 1;
          }
        }
      },
    });
  },
);

test("invocations that fit run as ever beside one that does not", async () => {
  await checkResume({
    workgroups: 40,
    outWords: 40,
    wgsl: `@compute @workgroup_size(1) fn main(@builtin(workgroup_id) id: vec3u) {
      var sum = 0u;
      for (var i = id.x * 4096u; i < select((id.x + 1u) * 4096u, params.words, id.x == 7u); i += 512u) { sum += pm_load_u32(params.data + i); }
      pm_store_u32(params.out + id.x, sum);
    }`,
    model: (data, out) => {
      for (let id = 0; id < 40; id++) {
        out[id] = sumOf(data.subarray(id * 4096, id === 7 ? data.length : (id + 1) * 4096), 512);
      }
    },
  });
});
