/** Streams through memory larger than the pool: the next slice is begun while one runs. */
import { afterEach, describe, expect, test, vi } from "vitest";
import { listenToTrace, PAGE_SIZE, type TraceEvent } from "../../../base/index.ts";
import { type Mapping, validateMm } from "../../../mm/index.ts";
import { lockdepDetached } from "../../../sync/index.ts";
import { Machine, wordsOf } from "../../../testing/machine.ts";
import { seededRandom } from "../../../testing/seeded-random.ts";
import { SVM_INCREMENT, SVM_PAGE, svmMachine } from "../../../testing/svm-kernels.ts";
import { ControlBuffers } from "./control.ts";
import { pageOfAddr } from "./page-entry.ts";
import { Prefetcher } from "./prefetch.ts";
import type { Demand } from "./service.ts";
import { FrameClaim, newTally } from "./work.ts";

const PAGES = 192;
const POOL = 32;
/** Invocations of a workgroup, each of which sums its part of the workgroup's page. */
const LANES = 16;
const NOBODY = 0xffff_ffff;

/** Workgroup i sums a part of device page i; an invocation of workgroup `greedy` reads all pages besides. */
const STREAM = /* wgsl */ `
struct Params { data: u32, sums: u32, pages: u32, greedy: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@compute @workgroup_size(${LANES}) fn main(@builtin(workgroup_id) id: vec3u, @builtin(local_invocation_index) lane: u32) {
  var sum = 0u;
  for (var i = 0u; i < 16u; i++) { sum += pm_load_u32(params.data + id.x * 4096u + lane * 256u + i * 16u); }
  if (id.x == params.greedy && lane == 3u) {
    for (var page = 0u; page < params.pages; page++) { sum += pm_load_u32(params.data + page * 4096u); }
  }
  pm_store_u32(params.sums + id.x * ${LANES}u + lane, sum);
}`;

function sumsOf(words: Uint32Array, greedy = NOBODY): Uint32Array {
  const sums = new Uint32Array((words.length / 4096) * LANES);
  for (let word = 0; word < words.length; word += 16) {
    sums[Math.floor(word / 256)] += words[word];
  }
  if (greedy !== NOBODY) {
    for (let word = 0; word < words.length; word += 4096) {
      sums[greedy * LANES + 3] += words[word];
    }
  }
  return sums;
}

async function stream(m: Machine) {
  const data = await m.mm.mmap({ length: PAGES * SVM_PAGE, name: "data" });
  await data.write(
    0,
    new Uint8Array(new Uint32Array(data.length / 4).map((_, i) => Math.imul(i, 77_773) >>> 9).buffer),
  );
  const sums = await m.mm.mmap({ length: PAGES * LANES * 4, name: "sums" });
  const kernel = await m.device.kernel(STREAM);
  const run = (options: { greedy?: number; workgroups?: number; signal?: AbortSignal } = {}) => {
    const { greedy = NOBODY, workgroups = PAGES, signal } = options;
    const params = { data: data.svmAddress, sums: sums.svmAddress, pages: PAGES, greedy };
    return kernel.dispatch({ mm: m.mm, params, workgroups, signal, timeoutMs: 20_000 });
  };
  const check = async (greedy = NOBODY) => {
    const expected = sumsOf(await wordsOf(data), greedy);
    expect((await wordsOf(sums)).findIndex((sum, i) => sum !== expected[i])).toBe(-1);
    validateMm(m.mm);
  };
  return { data, sums, run, check };
}

const turn = () => new Promise((resolve) => setImmediate(resolve));

/** Keeps reports back until another round is submitted, or is not for a while, and calls `meanwhile`. Tells how many at most. */
function holdReports(meanwhile: (inFlight: number) => unknown = () => undefined) {
  const read = ControlBuffers.prototype.read;
  const seen = { inFlight: 0, most: 0 };
  vi.spyOn(ControlBuffers.prototype, "read").mockImplementation(async function (this: ControlBuffers, count) {
    seen.inFlight++;
    seen.most = Math.max(seen.most, seen.inFlight);
    try {
      await meanwhile(seen.inFlight);
      const others = seen.inFlight;
      for (let turns = 0; turns < 40 && seen.inFlight === others; turns++) {
        await turn();
      }
      return await read.call(this, count);
    } finally {
      seen.inFlight--;
    }
  });
  return seen;
}

afterEach(() => {
  vi.restoreAllMocks();
});

describe("a stream", () => {
  test("has two slices under way, and brings each page once", async () => {
    await using m = await svmMachine(POOL);
    const { run, check, data } = await stream(m);
    const seen = holdReports();
    const { bytesToDevice, rounds } = await run();
    expect(seen.most).toBe(2);
    expect(bytesToDevice).toBeLessThanOrEqual(data.length + 2 * SVM_PAGE);
    expect(rounds).toBeLessThan(PAGES / 6);
    await check();
  });

  test("tells whoever listens of each frame that goes, also of those that the slice ahead takes over", async () => {
    await using m = await svmMachine(POOL);
    const { run, check } = await stream(m);
    const seen = holdReports();
    let evicted = 0;
    const stop = listenToTrace((event) => {
      evicted += event.name === "gpu.evict" ? (event as TraceEvent<"gpu.evict">).fields.pages : 0;
    });
    const { evictions } = await run();
    stop();
    expect(seen.most).toBe(2);
    expect(evictions).toBeGreaterThan(PAGES - 2 * POOL);
    expect(evicted).toBe((evictions * SVM_PAGE) / PAGE_SIZE);
    await check();
  });

  test("whose kernel uses what an atomic returned has one: its invocations may wait for each other", async () => {
    await using m = await svmMachine(POOL);
    const { data, sums } = await stream(m);
    const kernel = await m.device.kernel(
      STREAM.replace("sum);\n}", "sum); sum = pm_atomic_add_u32(params.sums, 1u + sum - sum); sum += sum; }"),
    );
    const params = { data: data.svmAddress, sums: sums.svmAddress, pages: PAGES, greedy: NOBODY };
    const seen = holdReports();
    await kernel.dispatch({ mm: m.mm, params, workgroups: PAGES });
    expect(seen.most).toBe(1);
  });

  test("is what memory holds, whatever the CPU does to it meanwhile", async () => {
    for (const seed of [1, 2, 3, 4]) {
      await using m = await svmMachine(POOL);
      const { data, run, check } = await stream(m);
      const random = seededRandom(seed);
      const pick = (below: number) => Math.floor(random() * below);
      let last: Promise<unknown> = Promise.resolve();
      const seen = holdReports(() => {
        const offset = pick(PAGES) * SVM_PAGE;
        const length = Math.min(data.length - offset, (1 + pick(24)) * SVM_PAGE);
        const what = pick(4);
        const meddle = async () => {
          if (what === 0) {
            (await data.lease("rw", { offset, length }))[Symbol.dispose]();
          } else if (what === 1) {
            await data.write(offset, new Uint8Array(length).fill(pick(256)));
          } else if (what === 2) {
            await m.mm.madvise(data.start + offset, length, "dontneed");
          } else {
            await m.mm.mprotect(data.start + offset, length, "r");
            await m.mm.mprotect(data.start + offset, length, "rw");
          }
        };
        last = last.then(() => lockdepDetached("meddler", meddle));
        // A change may have to wait for the GPU: half of them are over before the report is read.
        return what & 1 ? undefined : Promise.race([last, turn().then(turn)]);
      });
      await run();
      await last;
      expect(seen.most).toBe(2);
      await run();
      await last;
      // Nobody meddles with this one.
      vi.restoreAllMocks();
      await run();
      await check();
    }
  });

  test("goes on beside other dispatches, which write, in a pool that all share", async () => {
    await using m = await svmMachine(POOL);
    const { run, check } = await stream(m);
    const others: [Mapping, AbortSignal | undefined][] = [];
    for (const pages of [3, 40]) {
      others.push([await m.mm.mmap({ length: pages * SVM_PAGE }), undefined]);
    }
    const increment = await m.device.kernel(SVM_INCREMENT);
    const dispatches = others.map(async ([data]) => {
      const words = data.length / 4;
      for (let again = 0; again < 3; again++) {
        await increment.dispatch({
          mm: m.mm,
          params: { data: data.svmAddress, words },
          workgroups: words / 64,
          timeoutMs: 20_000,
        });
      }
    });
    holdReports();
    await Promise.all([run(), run(), ...dispatches]);
    await check();
    for (const [data] of others) {
      expect(new Set(await wordsOf(data))).toEqual(new Set([3]));
    }
  });

  test("stops for an invocation that needs more than the pool, which goes on from resume points", async () => {
    await using m = await svmMachine(POOL);
    const { run, check } = await stream(m);
    await run();
    // In slices that follow each other: each has other control buffers than the one before.
    for (const greedy of [120, 134]) {
      const seen = holdReports();
      await run({ greedy });
      vi.restoreAllMocks();
      expect(seen.most).toBe(2);
      await check(greedy);
    }
  });
});

describe("with two slices under way", () => {
  test("a slice that leaves all memory is an error, after what came before it", async () => {
    await using m = await svmMachine(POOL);
    const { data, sums, run } = await stream(m);
    await run();
    const expected = await wordsOf(sums);
    await sums.write(0, new Uint8Array(sums.length));
    await m.mm.munmap(data.start + 120 * SVM_PAGE, 72 * SVM_PAGE);
    holdReports();
    await expect(run()).rejects.toMatchObject({ code: "EFAULT" });
    const found = await wordsOf(sums);
    expect(found.findIndex((sum, i) => sum !== 0 && sum !== expected[i])).toBe(-1);
    expect(found.subarray(0, 100 * LANES)).toEqual(expected.subarray(0, 100 * LANES));
    await run({ workgroups: 120 });
  });

  test("an abort leaves nothing under way", async () => {
    await using m = await svmMachine(POOL);
    const { run, check } = await stream(m);
    const abort = new AbortController();
    const seen = holdReports((inFlight) => inFlight > 1 && abort.abort());
    await expect(run({ signal: abort.signal })).rejects.toMatchObject({ code: "EINTR" });
    expect(seen).toEqual({ inFlight: 0, most: 2 });
    await run();
    await check();
  });

  test("a device that is lost ends the dispatch with ENODEV, and nothing that the host has is lost", async () => {
    await using m = new Machine();
    const { gpu } = await m.adopt({ deviceMemory: (POOL + 1) * SVM_PAGE });
    const { data, run } = await stream(m);
    const before = await wordsOf(data);
    const seen = holdReports((inFlight) => inFlight > 1 && gpu.destroy());
    await expect(run()).rejects.toMatchObject({ code: "ENODEV" });
    expect(seen.inFlight).toBe(0);
    expect((await wordsOf(data)).findIndex((word, i) => word !== before[i])).toBe(-1);
    validateMm(m.mm);
  });
});

/** The table of a space whose mapping the CPU has filled; the mapping's first device page. */
async function tableWith(m: Awaited<ReturnType<typeof svmMachine>>, data: Mapping) {
  await data.write(0, new Uint8Array(data.length).fill(1));
  await m.device.kernel(STREAM);
  const { svm } = m.device;
  const { table, uses } = await svm.tableOf(await m.device.mirrorOf(m.mm), "test");
  return { svm, table, uses, first: pageOfAddr(data.start) };
}

test("frames are given up for what comes next only when nobody needs them, and all of them or none", async () => {
  await using m = await svmMachine(8);
  const data = await m.mm.mmap({ length: 24 * SVM_PAGE });
  const { svm, table, uses, first } = await tableWith(m, data);
  using _uses = uses;
  const pages = (from: number, to: number, write = false) =>
    Array.from({ length: to - from }, (_, i) => ({ page: first + from + i, write }));
  const workOf = () => ({ op: "test", timeoutMs: 1000, claim: new FrameClaim(), tally: newTally() });
  const bring = async (from: number, to: number, write: boolean) => {
    const work = workOf();
    const placed = await svm.placer.place(table, pages(from, to, write), [], work);
    await (await svm.submit(table, placed, work, () => {})).finished;
    return work;
  };
  await svm.placer.grow(8, false, undefined);
  const clean = await bring(0, 4, false);
  const written = await bring(4, 6, true);
  const running = await bring(6, 8, false);
  clean.claim.clear();
  written.claim.clear();
  await m.device.advise(data.range(0, SVM_PAGE), "preferred-location");
  const ahead = workOf();
  expect(svm.placer.placeAhead(table, pages(8, 12), pages(0, 8), ahead)).toBe(false);
  expect(pages(0, 8).every(({ page }) => table.frameAt(page) !== undefined)).toBe(true);
  expect(pages(8, 12).some(({ page }) => table.frameAt(page) !== undefined)).toBe(false);
  expect(svm.placer.placeAhead(table, pages(8, 11), pages(0, 8), ahead)).toBe(true);
  const left = pages(0, 8).filter(({ page }) => table.frameAt(page) !== undefined);
  expect(left.map(({ page }) => page - first)).toEqual([0, 4, 5, 6, 7]);
  running.claim.clear();
  using _busy = await table.mirror.update.lock();
  expect(svm.placer.placeAhead(table, pages(12, 13), pages(6, 8), ahead)).toBe(false);
});

test("behind pages that were written the next ones are brought to be written, not those before", async () => {
  await using m = await svmMachine(16);
  const data = await m.mm.mmap({ length: 12 * SVM_PAGE });
  const { svm, table, uses, first } = await tableWith(m, data);
  using _uses = uses;
  const work = { op: "test", timeoutMs: 1000, claim: new FrameClaim(), tally: newTally() };
  const bring = async (demands: readonly Demand[], prefetch: readonly Demand[]) => {
    const placed = await svm.placer.place(table, demands, prefetch, work);
    await (await svm.submit(table, placed, work, () => {})).finished;
  };
  const demand = (page: number, write: boolean) => ({ page: first + page, write });
  await svm.placer.grow(16, false, undefined);
  await bring(
    [3, 5, 6].map((page) => demand(page, false)),
    [],
  );
  await bring([demand(4, true)], []);
  const faulted = [demand(5, true)];
  const prefetcher = new Prefetcher();
  expect(prefetcher.choose(table, faulted).some(({ page, write }) => write && page < first + 5)).toBe(false);
  await bring(faulted, prefetcher.choose(table, faulted));
  expect([3, 4, 5, 6].map((page) => table.isResident(first + page, true))).toEqual([false, true, true, true]);
});
