/** Kernels that follow pointers and write variables of their own: each write once, however often they are run again. */
import { expect, test } from "vitest";
import { validateMm } from "../../../mm/index.ts";
import { wordsOf } from "../../../testing/machine.ts";
import { SVM_PAGE, svmMachine } from "../../../testing/svm-kernels.ts";

const HEAD = /* wgsl */ `
struct Params { data: u32, count: u32 }
@group(0) @binding(0) var<uniform> params: Params;`;
const EACH = /* wgsl */ `@compute @workgroup_size(32) fn main(@builtin(global_invocation_id) id: vec3u) {
  let i = id.x;
  if (i >= params.count) { return; }`;

const COUNT = 512;
const PAGES = 48;
/** Where invocation i finds its words: all over the data. */
const spread = (i: number, n: number) => (i * 1237 + n * 40_009) % (PAGES * 4096);
const LOOK = "pm_load_u32(params.data + (i * 1237u + n * 40009u) % (48u * 4096u))";

async function setUp(frames: number | undefined) {
  const m = await svmMachine(frames);
  const data = await m.mm.mmap({ length: PAGES * SVM_PAGE, name: "data" });
  const out = await m.mm.mmap({ length: COUNT * 16, name: "out" });
  const words = new Uint32Array(PAGES * 4096).map((_, i) => Math.imul(i, 2654435761) >>> 7);
  const before = new Uint32Array(COUNT * 4).map((_, i) => i * 3);
  await data.write(0, words);
  await out.write(0, before);
  const params = { data: data.svmAddress, count: COUNT };
  return { m, data, out, words, before, params, [Symbol.asyncDispose]: () => m[Symbol.asyncDispose]() };
}

interface Case {
  readonly wgsl: string;
  /** What the words of `out` become. */
  readonly model: (out: Uint32Array, look: (i: number, n: number) => number) => void;
  /** Words whose order is anybody's: compared as sets from here on. */
  readonly unordered?: number;
}

const CASES: Record<string, Case> = {
  store: {
    wgsl: `@group(0) @binding(1) var<storage, read_write> out: array<u32>;
      ${EACH} var n = 0u; let first = ${LOOK}; n = 1u; out[i] = first + ${LOOK}; }`,
    model: (out, look) => {
      for (let i = 0; i < COUNT; i++) out[i] = look(i, 0) + look(i, 1);
    },
  },
  "read-modify-write": {
    wgsl: `@group(0) @binding(1) var<storage, read_write> out: array<u32>;
      ${EACH} var n = 0u;
        out[i] += 7u; // at once, before anything can be missing
        out[COUNT + i] = out[COUNT + i] * 3u + ${LOOK};
        out[2u * COUNT + i]++; n = 2u; out[3u * COUNT + i] ^= ${LOOK}; }
      const COUNT = ${COUNT}u;`,
    model: (out, look) => {
      for (let i = 0; i < COUNT; i++) {
        out[i] += 7;
        out[COUNT + i] = out[COUNT + i] * 3 + look(i, 0);
        out[2 * COUNT + i]++;
        out[3 * COUNT + i] ^= look(i, 2);
      }
    },
  },
  "read at an index that another name of a function gives": {
    wgsl: `import pagemirror::svm::pm_load_u32 as look;
      @group(0) @binding(1) var<storage, read_write> out: array<u32>;
      ${EACH} let n = 6u; out[i] = out[look(params.data) - look(params.data) + COUNT + i] + ${LOOK.replace("pm_load_u32", "look")}; }
      const COUNT = ${COUNT}u;`,
    model: (out, look) => {
      for (let i = 0; i < COUNT; i++) out[i] = out[COUNT + i] + look(i, 6);
    },
  },
  "structures, vectors and nested arrays": {
    wgsl: `struct Cell { pair: vec2u, rest: array<u32, 2> }
      @group(0) @binding(1) var<storage, read_write> out: array<Cell>;
      fn put(i: u32, value: u32) { (out[i]).rest[value & 1u] = value; out[i].pair.y = value + 1u; }
      ${EACH} for (var n = 0u; n < 2u; n++) { out[i].pair = vec2u(${LOOK}, n); }
        let n = 5u; put(i, ${LOOK}); }`,
    model: (out, look) => {
      for (let i = 0; i < COUNT; i++) {
        const value = look(i, 5);
        out[i * 4] = look(i, 1);
        out[i * 4 + 1] = value + 1;
        out[i * 4 + 2 + (value & 1)] = value;
      }
    },
  },
  "atomics without results": {
    wgsl: `@group(0) @binding(1) var<storage, read_write> out: array<atomic<u32>>;
      ${EACH} let n = 3u; let word = ${LOOK};
        atomicAdd(&out[0], 1u); _ = atomicAdd(&out[1u + word % 16u], word); atomicMax(&(out)[17], word);
        atomicStore(&out[32u + i], ${LOOK.replace("n *", "9u *")}); }`,
    model: (out, look) => {
      for (let i = 0; i < COUNT; i++) {
        const word = look(i, 3);
        out[0]++;
        out[1 + (word % 16)] += word;
        out[17] = Math.max(out[17], word);
        out[32 + i] = look(i, 9);
      }
    },
  },
  "an append queue": {
    wgsl: `struct Queue { tail: atomic<u32>, low: atomic<i32>, items: array<u32> }
      @group(0) @binding(1) var<storage, read_write> out: Queue;
      ${EACH} var n = 0u;
        let low = atomicMin(&out.low, -i32(i));
        let place = atomicAdd(&out.tail, 1u);
        n = 4u; // may be missing, now that the place is taken
        out.items[place] = ${LOOK} + u32(low > 0) * 0u; }`,
    model: (out, look) => {
      const tail = out[0];
      out[0] += COUNT;
      new Int32Array(out.buffer)[1] = 1 - COUNT;
      for (let i = 0; i < COUNT; i++) out[2 + tail + i] = look(i, 4);
    },
    unordered: 2,
  },
  "more stores than the log holds, in memory and in a variable": {
    wgsl: `@group(0) @binding(1) var<storage, read_write> out: array<u32>;
      ${EACH} for (var n = 0u; n < 40u; n++) {
          pm_store_u32(params.data + 40u * 4096u + (i % 8u) * 4096u + (i / 8u) * 40u + n, i + n);
          if (n % 10u == 0u) { out[i * 4u + n / 10u] = (i * 40u) ^ n; }
        } }`,
    model: (out) => {
      for (let i = 0; i < COUNT; i++) for (let n = 0; n < 4; n++) out[i * 4 + n] = (i * 40) ^ (n * 10);
    },
  },
  "barriers, workgroup memory and atomics with results": {
    wgsl: `struct Sums { count: atomic<u32>, groups: array<u32> }
      @group(0) @binding(1) var<storage, read_write> out: Sums;
      var<workgroup> sum: atomic<u32>;
      var<workgroup> turn: u32;
      @compute @workgroup_size(32) fn main(@builtin(global_invocation_id) id: vec3u, @builtin(workgroup_id) wg: vec3u, @builtin(local_invocation_index) lane: u32) {
        let i = id.x; let n = 1u;
        if (lane == 0u) { turn = atomicAdd(&out.count, 2u); }
        atomicAdd(&sum, ${LOOK} & 0xffffu);
        workgroupBarrier();
        if (lane == 31u) { out.groups[wg.x] = atomicLoad(&sum) + (turn & 1u); }
      }`,
    model: (out, look) => {
      for (let wg = 0; wg < COUNT / 32; wg++) {
        let sum = out[0] & 1;
        for (let lane = 0; lane < 32; lane++) sum += look(wg * 32 + lane, 1) & 0xffff;
        out[1 + wg] = sum;
      }
      out[0] += (COUNT / 32) * 2;
    },
  },
};

const afterImports = (wgsl: string) => wgsl.replace(/^(import .*\n)?/, `$1${HEAD}`);

test.each(Object.keys(CASES))(
  "%s: each write once, over memory that is half there and in a pool that is too small",
  async (name) => {
    const { wgsl, model, unordered } = CASES[name];
    // The pool holds all; a part; hardly what an invocation needs.
    for (const frames of [undefined, 24, 12]) {
      await using s = await setUp(frames);
      const kernel = await s.m.device.kernel(afterImports(wgsl), { name });
      const expected = s.before.slice();
      const words = s.words.slice();
      const run = () =>
        kernel.dispatch({
          mm: s.m.mm,
          bind: { out: s.out },
          params: s.params,
          workgroups: COUNT / 32,
          timeoutMs: 10_000,
        });
      await s.m.device.prefetch(s.data.range(0, (PAGES / 2) * SVM_PAGE));
      await run();
      model(expected, (i, n) => words[spread(i, n)]);
      const found = await wordsOf(s.out);
      const sorted = (list: Uint32Array) =>
        unordered === undefined ? [...list] : [...list.subarray(0, unordered), ...list.slice(unordered).sort()];
      expect(sorted(found)).toEqual(sorted(expected));
      validateMm(s.m.mm);
    }
  },
);

test("what is written through a variable and read by the CPU and the next dispatch is one memory", async () => {
  await using s = await setUp(16);
  const kernel = await s.m.device.kernel(HEAD + CASES.store.wgsl.replace("out[i] =", "out[i] +="));
  const run = () => kernel.dispatch({ mm: s.m.mm, bind: { out: s.out }, params: s.params, workgroups: COUNT / 32 });
  const { pagesMigrated } = await run();
  expect(pagesMigrated).toBe(2);
  await s.out.write(0, Uint32Array.of(1000));
  await run();
  const found = await wordsOf(s.out);
  const once = (i: number) => s.words[spread(i, 0)] + s.words[spread(i, 1)];
  expect(found[0]).toBe(1000 + once(0));
  expect(found[1]).toBe((3 + 2 * once(1)) >>> 0);
});

test("dispatches that write one range side by side lose nothing", async () => {
  await using s = await setUp(12);
  const kernel = await s.m.device.kernel(
    `${HEAD} @group(0) @binding(1) var<storage, read_write> out: array<atomic<u32>>;
    ${EACH} let n = 1u; atomicAdd(&out[i], ${LOOK}); }`,
  );
  const run = () =>
    kernel.dispatch({ mm: s.m.mm, bind: { out: s.out }, params: s.params, workgroups: COUNT / 32, timeoutMs: 20_000 });
  const running = [run(), run(), run()];
  await s.out.write(4 * COUNT, Uint32Array.of(77));
  await Promise.all(running);
  const expected = s.before.slice();
  for (let i = 0; i < COUNT; i++) {
    expected[i] += 3 * s.words[spread(i, 1)];
  }
  expected[COUNT] = 77;
  expect(await wordsOf(s.out)).toEqual(expected);
});

test("over memory that is all there the kernel runs once, without checks, and other memory may be bound", async () => {
  await using s = await setUp(undefined);
  const kernel = await s.m.device.kernel(HEAD + CASES.store.wgsl);
  await s.m.device.prefetch(s.data);
  const stats = await kernel.dispatch({ mm: s.m.mm, bind: { out: s.out }, params: s.params, workgroups: COUNT / 32 });
  expect(stats).toMatchObject({ rounds: 1, deviceFaults: 0 });
  expect((await wordsOf(s.out))[5]).toBe(s.words[spread(5, 0)] + s.words[spread(5, 1)]);
});

test("a run that reads where it has stored fails the dispatch, and nothing of it is written", async () => {
  await using s = await setUp(16);
  const kernel = await s.m.device.kernel(
    `${HEAD} @group(0) @binding(1) var<storage, read_write> out: array<u32>;
    ${EACH} var n = 0u; out[i] = out[i] + ${LOOK}; n = 1u; out[i] = out[i] + ${LOOK}; }`,
  );
  await expect(
    kernel.dispatch({ mm: s.m.mm, bind: { out: s.out }, params: s.params, workgroups: COUNT / 32 }),
  ).rejects.toThrow(
    /ENOTSUP.*reads out at index \d+, where it has stored before.*resume points do not apply: main has no loop/,
  );
  expect(await wordsOf(s.out)).toEqual(s.before);
});

test("memory behind a written variable cannot be reached by a pointer, too", async () => {
  await using s = await setUp(16);
  const kernel = await s.m.device.kernel(HEAD + CASES.store.wgsl);
  for (const resident of [false, true]) {
    if (resident) {
      await s.m.device.prefetch(s.data);
    }
    await expect(
      kernel.dispatch({
        mm: s.m.mm,
        bind: { out: s.out },
        params: { ...s.params, data: s.out.svmAddress },
        workgroups: 1,
      }),
    ).rejects.toThrow(/EINVAL.*reads through a pointer from memory that out \(out\) is bound to and written through/);
  }
  expect(await wordsOf(s.out)).toEqual(s.before);
});

test("a variable over read-only memory is refused", async () => {
  await using s = await setUp(16);
  const kernel = await s.m.device.kernel(HEAD + CASES.store.wgsl);
  await s.m.mm.mprotect(s.out.start, s.out.length, "r");
  await expect(
    kernel.dispatch({ mm: s.m.mm, bind: { out: s.out }, params: s.params, workgroups: 1 }),
  ).rejects.toMatchObject({ code: "EACCES" });
});

const VARIABLE = "@group(0) @binding(1) var<storage, read_write> out: array<u32>;";
const ATOMIC = "@group(0) @binding(1) var<storage, read_write> out: array<atomic<u32>>;";
const refused: readonly (readonly [string, string, RegExp])[] = [
  ["an address", `${VARIABLE} ${EACH} let p = &out[i]; *p = pm_load_u32(i); }`, /the address of out/],
  [
    "a compare-exchange",
    `${ATOMIC} ${EACH} _ = atomicCompareExchangeWeak(&out[i], 0u, pm_load_u32(i)); }`,
    /atomicCompareExchangeWeak/,
  ],
  [
    "a write in the head of a loop",
    `${VARIABLE} ${EACH} for (var n = pm_load_u32(i); n > 0u; out[n] = 1u) { n--; } }`,
    /head of a loop/,
  ],
  [
    "a write of what the workgroup does together",
    `${VARIABLE} var<workgroup> all: u32; ${EACH.replace("if (i >= params.count) { return; }", "")} all = pm_load_u32(i); out[i] = workgroupUniformLoad(&all); }`,
    /let first/,
  ],
  [
    "values handed on in the variable",
    `${VARIABLE} @compute @workgroup_size(32) fn main(@builtin(local_invocation_index) i: u32) { out[i] = pm_load_u32(i); storageBarrier(); pm_store_u32(params.data, out[31u - i] + params.count); }`,
    /storageBarrier: out is read and stored to/,
  ],
  [
    "a member that is read and stored to",
    `struct S { a: u32, b: u32 } @group(0) @binding(1) var<storage, read_write> out: S; ${EACH} out.a = out.a + pm_load_u32(i); }`,
    /out\.a is read and stored to/,
  ],
  ["a name that hides it", `${VARIABLE} ${EACH} out[i] = 1u; let out = pm_load_u32(i); }`, /hides the variable out/],
];

test.each(refused)("%s is refused when the kernel is made", async (_what, wgsl, message) => {
  await using m = await svmMachine(8);
  await expect(m.device.kernel(HEAD + wgsl)).rejects.toThrow(message);
  await expect(m.device.kernel(HEAD + wgsl)).rejects.toMatchObject({ code: "ENOTSUP" });
});
