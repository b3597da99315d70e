/**
 * Plain arrays under load: threads that read and write at random, two services whose kernels rewrite the same memory in both
 * modes, a heap that grows under all of them, forks, leases, prefetches and evictions. Every value is checked.
 * `PAGEMIRROR_STRESS_SECONDS` makes it longer, `PAGEMIRROR_STRESS_SEED` makes it another one.
 */
import { expect, test } from "vitest";
import { listenToTrace, PAGE_SIZE } from "../src/base/index.ts";
import { openShared, probeUserfaultfd } from "../src/node.ts";
import { PlainThread } from "../src/testing/plain-thread.ts";

const report = probeUserfaultfd();
if (!report.works) {
  console.warn(`plain arrays under load are skipped: ${report.why}`);
}
const SECONDS = Number(process.env.PAGEMIRROR_STRESS_SECONDS ?? 3);
const SEED = Number(process.env.PAGEMIRROR_STRESS_SEED ?? 1);
const THREADS = 4;
const PAGES = 256;
const WASM_PAGE = 65_536;
const HEAP_MAXIMUM = 40;
const HEAP_PAGES = (HEAP_MAXIMUM * WASM_PAGE) / PAGE_SIZE;
const WORDS = PAGE_SIZE / 4;
/** Words of each page: 0 to 3 of the threads, then those of bind and of svm kernels and of leases. */
const BOUND = 8;
const SVM = 9;
const LEASED = 10;

/** Adds 1 to word 8 of each page, and leaves the rest alone. */
const BUMP = /* wgsl */ `
@group(0) @binding(0) var<storage, read_write> data: array<u32>;
@compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3u) {
  if (id.x * ${WORDS}u + ${BOUND}u < arrayLength(&data)) { data[id.x * ${WORDS}u + ${BOUND}u] += 1u; }
}`;

/** Adds 1 to word 9 of some pages. */
const SVM_BUMP = /* wgsl */ `
struct Params { first: u32, count: u32, stride: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3u) {
  if (id.x < params.count) {
    let at = params.first + id.x * params.stride * ${WORDS}u + ${SVM}u;
    pm_store_u32(at, pm_load_u32(at) + 1u);
  }
}`;

/** Copies words 0 to 3 of each page to a table: what plain arrays wrote must be what the kernel reads. */
const GATHER = /* wgsl */ `
@group(0) @binding(0) var<storage, read> data: array<u32>;
@group(0) @binding(1) var<storage, read_write> seen: array<u32>;
@compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3u) {
  if (id.x * ${WORDS}u + 8u < arrayLength(&data)) {
    for (var t = 0u; t < 4u; t++) { seen[id.x * 4u + t] = data[id.x * ${WORDS}u + t]; }
  }
}`;

/** Thread `me` alone writes word `me` of each page, counting up: its own words are exact, others' never go back. Thread 0 lets heaps grow. */
const USER = `
const { me, threads, views, ms } = args;
const watched = threads + 3;
const own = views.map(({ pages }) => new Uint32Array(pages));
const last = views.map(({ pages }) => new Uint32Array(pages * watched));
const wordsOf = (view) => view.memory ? new Uint32Array(view.memory.buffer)
  : (view.words ??= new Uint32Array(view.buffer, view.byteOffset, view.pages * ${WORDS}));
const wrong = [];
let seed = args.seed * 7919 + me, counter = 0;
const random = (n) => { seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0; return Math.floor(seed / 2 ** 32 * n); };
const end = Date.now() + ms;
while (Date.now() < end && wrong.length < 5) {
  const v = random(views.length);
  const u32 = wordsOf(views[v]);
  for (let i = 0, at = random(u32.length / ${WORDS}); i < 50; i++) {
    const page = random(4) === 0 ? (at + i) % (u32.length / ${WORDS}) : random(u32.length / ${WORDS});
    const base = page * ${WORDS};
    if (random(2) === 0) {
      const was = Atomics.load(u32, base + me);
      if (was !== own[v][page]) wrong.push(["own", v, page, was, own[v][page]]);
      own[v][page] = ++counter;
      u32[base + me] = counter;
    } else {
      const other = random(watched), slot = page * watched + other;
      const now = Atomics.load(u32, base + (other < threads ? other : ${BOUND} + other - threads));
      if (now < last[v][slot]) wrong.push(["back", v, page, other, now, last[v][slot]]);
      last[v][slot] = now;
    }
  }
  if (views[v].memory && me === 0 && u32.length / ${WORDS} < views[v].pages && random(200) === 0) views[v].memory.grow(1);
  if (random(20) === 0) await new Promise((resolve) => setTimeout(resolve, 1));
}
return { wrong, own };`;

interface UserResult {
  readonly wrong: readonly unknown[];
  readonly own: readonly Uint32Array[];
}

let seed = SEED;
const random = (n: number) => {
  seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
  return Math.floor((seed / 2 ** 32) * n);
};

/** A service, its memory, and what each page must hold. */
async function openModel() {
  const faultAround = [64, 1, 512][SEED % 3];
  const pm = await openShared({ mmu: "userfaultfd", deviceMemory: 3 * 2 ** 20, faultAround });
  const memory = new WebAssembly.Memory({ initial: 3, maximum: HEAP_MAXIMUM, shared: true });
  const counts = () => [new Uint32Array(PAGES), new Uint32Array(HEAP_PAGES)] as const;
  return {
    pm,
    memory,
    data: await pm.mm.mmap({ length: PAGES * PAGE_SIZE, name: "data" }),
    heap: await pm.mm.adopt(memory, { maximum: HEAP_PAGES * PAGE_SIZE }),
    seen: await pm.mm.mmap({ length: PAGES * 16, name: "seen" }),
    bump: await pm.device.kernel(BUMP),
    svmBump: await pm.device.kernel(SVM_BUMP),
    gather: await pm.device.kernel(GATHER),
    bound: counts(),
    svm: counts(),
    leased: counts(),
  };
}
type Model = Awaited<ReturnType<typeof openModel>>;

const ACTIONS = [
  "bind",
  "bind",
  "beyond",
  "svm",
  "svm",
  "prefetch",
  "lease",
  "read",
  "gather",
  "fork",
  "passing",
] as const;

/** Does one thing at random with one range of the model's memory, and notes what that makes of it. */
async function act(model: Model): Promise<void> {
  const { pm, data, heap, seen, bound, svm, leased } = model;
  const which = random(2);
  const mapping = which === 0 ? data : heap;
  const pages = which === 0 ? PAGES : model.memory.buffer.byteLength / PAGE_SIZE;
  const count = 1 + random(Math.min(96, pages));
  const first = random(pages - count + 1);
  const range = mapping.range(first * PAGE_SIZE, count * PAGE_SIZE);
  const timeoutMs = 30_000;
  const bump = async (from: number, n: number) => {
    const target = mapping.range(from * PAGE_SIZE, n * PAGE_SIZE);
    await model.bump.dispatch({ bind: { data: target }, workgroups: Math.ceil(n / 64), timeoutMs });
    for (let p = from; p < from + n; p++) {
      bound[which][p]++;
    }
  };
  switch (ACTIONS[random(ACTIONS.length)]) {
    case "bind":
      return await bump(first, count);
    case "beyond":
      // What a kernel writes behind the heap's end is there when the heap has grown.
      return await bump(first, (which === 0 ? PAGES : HEAP_PAGES) - first);
    case "svm": {
      const stride = 1 + random(3);
      const params = { first: mapping.svmAddress + first * WORDS, count: Math.ceil(count / stride), stride };
      await model.svmBump.dispatch({ mm: pm.mm, params, workgroups: 2, timeoutMs });
      for (let p = first; p < first + count; p += stride) {
        svm[which][p]++;
      }
      return;
    }
    case "prefetch":
      return void (await pm.device.prefetch(range, { write: random(2) === 0, timeoutMs }));
    case "lease": {
      const options = { offset: first * PAGE_SIZE, length: count * PAGE_SIZE, longTerm: random(2) === 0 };
      using lease = await mapping.lease("rw", options);
      const { u32 } = lease;
      for (let p = 0; p < u32.length / WORDS; p++) {
        expect(u32[p * WORDS + LEASED]).toBe(leased[which][first + p]);
        u32[p * WORDS + LEASED] = ++leased[which][first + p];
      }
      return;
    }
    case "read": {
      const u32 = new Uint32Array((await mapping.read(first * PAGE_SIZE, count * PAGE_SIZE)).slice().buffer);
      for (let p = 0; p < count; p++) {
        const now = [u32[p * WORDS + BOUND], u32[p * WORDS + SVM]];
        expect(now).toEqual([bound[which][first + p], svm[which][first + p]]);
      }
      return;
    }
    case "gather": {
      // What was written before the dispatch is what the kernel reads, or something newer.
      const before = Array.from({ length: PAGES }, (_, p) => data.u32.slice(p * WORDS, p * WORDS + THREADS));
      await model.gather.dispatch({ bind: { data, seen }, workgroups: PAGES / 64, timeoutMs });
      for (let p = 0; p < PAGES; p++) {
        for (let t = 0; t < THREADS; t++) {
          const now = seen.u32[p * THREADS + t];
          expect(before[p][t] <= now && now <= data.u32[p * WORDS + t]).toBe(true);
        }
      }
      return;
    }
    case "fork": {
      const child = await pm.mm.fork();
      const copy = await child.mapping(data.start, data.length);
      const before = bound[0].slice();
      await model.bump.dispatch({ bind: { data }, workgroups: PAGES / 64, timeoutMs });
      for (let p = 0; p < PAGES; p++) {
        bound[0][p]++;
      }
      for (let p = first % 37; p < PAGES; p += 37) {
        expect(copy.u32[p * WORDS + BOUND]).toBe(before[p]);
        copy.u32[p * WORDS + BOUND] = 0;
      }
      return await child[Symbol.asyncDispose]();
    }
    default: {
      const passing = await pm.mm.mmap({ length: count * PAGE_SIZE });
      passing.u32[0] = first;
      await passing.mprotect(random(2) === 0 ? "r" : "rw");
      expect(passing.u32[0]).toBe(first);
      await passing.munmap();
    }
  }
}

/** All that the model says, of all pages. */
async function checkAll(model: Model, own: readonly (readonly Uint32Array[])[]): Promise<void> {
  const { pm, memory, data, heap, seen, bound, svm, leased } = model;
  await model.gather.dispatch({ bind: { data, seen }, workgroups: PAGES / 64, timeoutMs: 30_000 });
  memory.grow(HEAP_MAXIMUM - memory.buffer.byteLength / WASM_PAGE);
  for (const [which, { u32 }] of [data, heap].entries()) {
    for (let p = 0; p < u32.length / WORDS; p++) {
      const threads = own[which].map((words) => words[p]);
      const expected = [...threads, bound[which][p], svm[which][p], leased[which][p]];
      const at = p * WORDS;
      expect([...u32.subarray(at, at + 4), ...u32.subarray(at + BOUND, at + LEASED + 1)]).toEqual(expected);
      if (which === 0) {
        expect([...seen.u32.subarray(p * 4, p * 4 + 4)]).toEqual(threads);
      }
    }
  }
  expect(pm.faultErrorCount).toBe(0);
}

test.skipIf(!report.works)(
  "four threads, two services and kernels of both modes on the same memory, which grows, is copied and evicted",
  async () => {
    const stopTrace = SEED % 2 === 0 ? listenToTrace(() => undefined) : () => undefined;
    const models = [await openModel(), await openModel()];
    const threads = Array.from({ length: THREADS }, () => new PlainThread());
    const views = models.flatMap(({ data: { buffer, byteOffset }, memory }) => [
      { buffer, byteOffset, pages: PAGES },
      { memory, pages: HEAP_PAGES },
    ]);
    const args = { threads: THREADS, views, ms: SECONDS * 1000, seed: SEED };
    let running = true;
    const users = Promise.all(threads.map((thread, me) => thread.run<UserResult>(USER, { ...args, me }))).finally(
      () => {
        running = false;
      },
    );
    const actions = await Promise.all(
      models.map(async (model) => {
        let done = 0;
        for (; running; done++) {
          await act(model);
        }
        return done;
      }),
    );
    const results = await users;
    expect(results.map(({ wrong }) => wrong)).toEqual([[], [], [], []]);
    for (const [i, model] of models.entries()) {
      await checkAll(
        model,
        [0, 1].map((which) => results.map(({ own }) => own[2 * i + which])),
      );
      await model.pm.close();
    }
    expect(Math.min(...actions)).toBeGreaterThan(3);
    for (const thread of threads) {
      await thread[Symbol.asyncDispose]();
    }
    stopTrace();
  },
  (SECONDS + 60) * 1000,
);
