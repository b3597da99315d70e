/** Pages that others take away as fast as they come: whoever has lost some gets all that it needs at once. */
import { describe, expect, test } from "vitest";
import { PAGE_SIZE } from "../../../base/index.ts";
import { type Mapping, MemoryObject } from "../../../mm/index.ts";
import { type Machine, wordsOf } from "../../../testing/machine.ts";
import { TestPager } from "../../../testing/mm.ts";
import { SVM_PAGE, svmMachine } from "../../../testing/svm-kernels.ts";
import type { WebGpuKernel } from "../kernel.ts";
import { pageOfAddr } from "./page-entry.ts";
import { FrameClaim, newTally } from "./work.ts";

/** One invocation follows pointers from page to page. In each turn it adds 1 to a word of one page, and to one of the next. */
const VISIT = /* wgsl */ `
struct Params { data: u32, pages: u32, word: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@compute @workgroup_size(1) fn main() {
  var at = params.data;
  for (var i = 0u; i < params.pages; i++) {
    let next = pm_load_u32(at);
    pm_store_u32(at + params.word, pm_load_u32(at + params.word) + 1u);
    pm_store_u32(next + params.word, pm_load_u32(next + params.word) + 1u);
    at = next;
  }
}`;

const PAGES = 4;
const STRIDE = SVM_PAGE / 4;

/** Pages that lead from one to the next, with one that nobody uses between each two. */
async function ring(m: Machine): Promise<Mapping> {
  const data = await m.mm.mmap({ length: 2 * PAGES * SVM_PAGE });
  for (let i = 0; i < PAGES; i++) {
    await data.write(2 * i * SVM_PAGE, Uint32Array.of(data.svmAddress + 2 * ((i + 1) % PAGES) * STRIDE));
  }
  return data;
}

const visit = (kernel: WebGpuKernel, data: Mapping, word: number, onRound?: () => void) =>
  kernel.dispatch({
    mm: data.mm,
    params: { data: data.svmAddress, pages: PAGES, word },
    workgroups: 1,
    timeoutMs: 3000,
    onRound,
  });

async function visits(data: Mapping, word: number): Promise<number[]> {
  const words = await wordsOf(data);
  return Array.from({ length: PAGES }, (_, i) => words[2 * i * STRIDE + word]);
}

describe("I-GPU-12: a kernel that needs several pages at once", () => {
  // In so few frames it goes on from resume points, and needs two pages for each.
  test.each([20, 3])(
    "is done although the CPU reads them all after each of its rounds, in %i frames",
    async (frames) => {
      await using m = await svmMachine(frames);
      const data = await ring(m);
      const kernel = await m.device.kernel(VISIT);
      let reading: Promise<unknown> | undefined;
      const { rounds } = await visit(kernel, data, 1, () => {
        reading ??= data.read().finally(() => {
          reading = undefined;
        });
      });
      await reading;
      expect(await visits(data, 1)).toEqual([2, 2, 2, 2]);
      expect(rounds).toBeLessThan(4 * PAGES);
    },
  );

  test("is done although one on another device needs the same ones", async () => {
    await using m = await svmMachine(20);
    const other = await m.open({ deviceMemory: 21 * SVM_PAGE });
    const data = await ring(m);
    const kernels = [await m.device.kernel(VISIT), await other.kernel(VISIT)];
    const times = 8;
    const sum = 2 * times;
    await Promise.all(
      kernels.map(async (kernel, i) => {
        for (let t = 0; t < times; t++) {
          await visit(kernel, data, i + 1);
        }
      }),
    );
    expect(await visits(data, 1)).toEqual([sum, sum, sum, sum]);
    expect(await visits(data, 2)).toEqual([sum, sum, sum, sum]);
  });

  test.each([false, true])("gets what was taken away while the rest came before it runs: %s", async (together) => {
    await using m = await svmMachine(20);
    await m.device.kernel(VISIT);
    const pager = new TestPager(new Uint8Array(SVM_PAGE));
    const object = new MemoryObject(m.memory, { pages: SVM_PAGE / PAGE_SIZE, pager });
    const data = await m.mm.mmap({ length: SVM_PAGE });
    await m.mm.mmap({ length: SVM_PAGE });
    const slow = await m.mm.mmap({ length: SVM_PAGE, object, shared: true });
    await object.put();
    pager.delay = async () => {
      pager.delay = undefined;
      await data.write(0, Uint32Array.of(1));
    };
    const { svm } = m.device;
    const { table, uses } = await svm.tableOf(await m.device.mirrorOf(m.mm), "test");
    using _uses = uses;
    const work = { op: "test", timeoutMs: 1000, claim: new FrameClaim(), tally: newTally() };
    const wanted = [data, slow].map(({ start }) => ({ page: pageOfAddr(start), write: false }));
    const demands = await svm.placer.place(table, wanted, [], work);
    let there: boolean[] = [];
    const encode = () => {
      there = wanted.map(({ page }) => table.isResident(page, false));
    };
    await (await svm.submit(table, demands, work, encode, together)).finished;
    expect(there).toEqual([together, true]);
    work.claim.clear();
  });

  test("is not sent back to the start by one on another device that needs the same ones the other way round", async () => {
    await using m = await svmMachine(20);
    const devices = [m.device, await m.open({ deviceMemory: 21 * SVM_PAGE })];
    const data = await m.mm.mmap({ length: 4 * SVM_PAGE });
    const first = pageOfAddr(data.start);
    const tries = devices.map(async (device, i) => {
      await device.kernel(VISIT);
      const { table, uses } = await device.svm.tableOf(await device.mirrorOf(m.mm), "test");
      const wanted = [0, 2].map((page) => ({ page: first + page, write: page === 2 * i }));
      const own = { op: "test", timeoutMs: 1000, claim: new FrameClaim(), tally: newTally() };
      const demands = await device.svm.placer.place(table, wanted, [], own);
      return async () => {
        using _uses = uses;
        let isThere = false;
        const encode = () => {
          isThere = wanted.every(({ page, write }) => table.isResident(page, write));
        };
        await (await device.svm.submit(table, demands, own, encode, true)).finished;
        own.claim.clear();
        return { isThere, restarts: own.tally.restarts };
      };
    });
    const results = await Promise.all((await Promise.all(tries)).map((submit) => submit()));
    expect(results).toEqual([
      { isThere: true, restarts: 0 },
      { isThere: true, restarts: 0 },
    ]);
  });
});
