/** Several dispatches at once on one device: each goes on while others wait, and none sees or hurts another. */
import { describe, expect, test } from "vitest";
import { type AddressSpace, type Mapping, MemoryObject, validateMm } from "../../../mm/index.ts";
import { INCREMENT, increment, type Machine, wordsOf } from "../../../testing/machine.ts";
import { TestPager } from "../../../testing/mm.ts";
import { seededRandom } from "../../../testing/seeded-random.ts";
import { SVM_COPY, SVM_GREEDY, SVM_INCREMENT, SVM_PAGE, svmMachine } from "../../../testing/svm-kernels.ts";
import type { WebGpuKernel } from "../kernel.ts";

const WORDS = SVM_PAGE / 4;

/** A file of ones whose pages come only when the test says so. */
async function slowFile(m: Machine, mm: AddressSpace, devicePages: number) {
  const pager = new TestPager(new Uint8Array(new Uint32Array(devicePages * WORDS).fill(1).buffer));
  const object = new MemoryObject(m.memory, { pages: devicePages * 4, pager });
  const data = await mm.mmap({ length: devicePages * SVM_PAGE, object, shared: true, name: "slow" });
  await object.put();
  let go: () => void = () => undefined;
  let asked: () => void = () => undefined;
  const isAsked = new Promise<void>((resolve) => {
    asked = resolve;
  });
  const gate = new Promise<void>((resolve) => {
    go = resolve;
  });
  pager.delay = () => {
    asked();
    return gate;
  };
  return { data, pager, isAsked, go: () => go() };
}

const addOne = (kernel: WebGpuKernel, data: Mapping, signal?: AbortSignal) =>
  kernel.dispatch({
    mm: data.mm,
    params: { data: data.svmAddress, words: data.length / 4 },
    workgroups: data.length / 256,
    timeoutMs: 20_000,
    signal,
  });

async function expectAll(data: Mapping, word: number): Promise<void> {
  expect(new Set(await wordsOf(data))).toEqual(new Set([word]));
  validateMm(data.mm);
}

describe("while one dispatch waits for a page", () => {
  test("others of the same and of another space run to their end", async () => {
    await using m = await svmMachine(32);
    const kernel = await m.device.kernel(SVM_INCREMENT);
    const copy = await m.device.kernel(SVM_COPY);
    const slow = await slowFile(m, m.mm, 4);
    const pairs: [Mapping, Mapping][] = [];
    for (const mm of [m.mm, m.space()]) {
      pairs.push([await mm.mmap({ length: 12 * SVM_PAGE }), await mm.mmap({ length: 12 * SVM_PAGE })]);
    }
    const waiting = addOne(kernel, slow.data);
    await slow.isAsked;
    for (const [data, to] of pairs) {
      const { mm } = data;
      await addOne(kernel, data);
      await addOne(kernel, data);
      const params = { src: data.svmAddress, dst: to.svmAddress, words: data.length / 4 };
      await copy.dispatch({ mm, params, workgroups: data.length / 256 });
      await expectAll(to, 2);
      await m.device.advise(data, "read-mostly");
      expect(await m.device.prefetch(data)).toBeGreaterThanOrEqual(0);
    }
    slow.go();
    await waiting;
    await expectAll(slow.data, 2);
  });

  test("one that wants the same page waits for it to come, and it comes once", async () => {
    await using m = await svmMachine(32);
    const kernel = await m.device.kernel(SVM_INCREMENT);
    const slow = await slowFile(m, m.mm, 4);
    const first = addOne(kernel, slow.data);
    await slow.isAsked;
    const second = kernel.dispatch({
      mm: m.mm,
      params: { data: slow.data.svmAddress, words: slow.data.length / 4 },
      workgroups: slow.data.length / 256,
      timeoutMs: 1,
    });
    const third = new AbortController();
    const cancelled = addOne(kernel, slow.data, third.signal);
    third.abort();
    await expect(cancelled).rejects.toMatchObject({ code: "EINTR" });
    slow.go();
    await Promise.all([first, second]);
    await expectAll(slow.data, 3);
    expect(slow.pager.reads).toBeLessThanOrEqual(16);
  });

  test("what it brings beside that page does not undo what another wrote there meanwhile", async () => {
    await using m = await svmMachine(32);
    const kernel = await m.device.kernel(SVM_INCREMENT);
    const greedy = await m.device.kernel(SVM_GREEDY);
    const slow = await slowFile(m, m.mm, 4);
    const near = await m.mm.mmap({ addr: slow.data.start - SVM_PAGE, length: SVM_PAGE, fixed: true });
    await near.write(0, new Uint32Array(WORDS).fill(5));
    const out = await m.mm.mmap({ length: 4 });
    const params = { data: near.svmAddress, pages: 5, out: out.svmAddress };
    const waiting = greedy.dispatch({ mm: m.mm, params, workgroups: 1, timeoutMs: 20_000 });
    await slow.isAsked;
    const writing = addOne(kernel, near);
    await Promise.race([writing, new Promise((resolve) => setTimeout(resolve, 300))]);
    slow.go();
    await Promise.all([waiting, writing]);
    await expectAll(near, 6);
  });

  test("a file that cannot be read, and a bad pointer, fail their dispatch alone", async () => {
    await using m = await svmMachine(16);
    const kernel = await m.device.kernel(SVM_INCREMENT);
    const slow = await slowFile(m, m.mm, 4);
    slow.pager.failReads = true;
    const data = await m.mm.mmap({ length: 40 * SVM_PAGE });
    const runs = [addOne(kernel, slow.data), addOne(kernel, data)];
    const wild = kernel.dispatch({ mm: m.mm, params: { data: 2 ** 31, words: 64 }, workgroups: 1 });
    slow.go();
    const [failed, done, lost] = await Promise.allSettled([...runs, wild]);
    expect(failed).toMatchObject({ status: "rejected", reason: { code: "EIO" } });
    expect(lost).toMatchObject({ status: "rejected", reason: { code: "EFAULT" } });
    expect(done.status).toBe("fulfilled");
    await expectAll(data, 1);
    slow.pager.failReads = false;
    slow.pager.delay = undefined;
    await addOne(kernel, slow.data);
    await expectAll(slow.data, 2);
  });

  test("a bind dispatch comes after it, and svm dispatches that come later after that", async () => {
    await using m = await svmMachine(32);
    const kernel = await m.device.kernel(SVM_INCREMENT);
    const bind = await m.device.kernel(INCREMENT);
    const slow = await slowFile(m, m.mm, 4);
    const data = await m.mm.mmap({ length: 2 * SVM_PAGE });
    const order: string[] = [];
    const waiting = addOne(kernel, slow.data).then(() => order.push("svm"));
    await slow.isAsked;
    const bound = increment(bind, data).then(() => order.push("bind"));
    const later = addOne(kernel, data).then(() => order.push("later"));
    slow.go();
    await Promise.all([waiting, bound, later]);
    expect(order).toEqual(["svm", "bind", "later"]);
    await expectAll(data, 2);
  });

  test("memory that is mapped past the end of its page table waits for it", async () => {
    await using m = await svmMachine(32);
    const kernel = await m.device.kernel(SVM_INCREMENT);
    const near = await m.mm.mmap({ length: 2 * SVM_PAGE });
    await addOne(kernel, near);
    const lease = await near.lease("rw", { offset: 0, length: 4096 });
    const waiting = addOne(kernel, near);
    await new Promise((resolve) => setTimeout(resolve, 20));
    const far = await m.mm.mmap({ addr: near.start + 5000 * SVM_PAGE, length: 2 * SVM_PAGE, fixed: true });
    const reached = addOne(kernel, far);
    lease[Symbol.dispose]();
    await Promise.all([waiting, reached]);
    await expectAll(far, 1);
    await expectAll(near, 2);
  });
});

describe("in a pool that does not hold what two need together", () => {
  /** Each needs 9 of 12 frames at once, for several rounds. */
  const GREEDY_PAGES = 8;

  test("they take turns, and both get done, again and again", async () => {
    await using m = await svmMachine(12);
    const kernel = await m.device.kernel(SVM_GREEDY);
    const sum = async (mm: AddressSpace, value: number) => {
      const data = await mm.mmap({ length: GREEDY_PAGES * SVM_PAGE });
      await data.write(0, new Uint32Array(data.length / 4).fill(value));
      const out = await mm.mmap({ length: 4 });
      return async (times: number) => {
        for (let i = 0; i < times; i++) {
          const params = { data: data.svmAddress, pages: GREEDY_PAGES, out: out.svmAddress };
          await kernel.dispatch({ mm, params, workgroups: 1, timeoutMs: 20_000 });
          expect((await wordsOf(out))[0]).toBe(value * GREEDY_PAGES);
          await out.write(0, Uint32Array.of(0));
        }
      };
    };
    const loops = await Promise.all([sum(m.mm, 3), sum(m.mm, 5), sum(m.space(), 7)]);
    await Promise.all(loops.map((loop) => loop(6)));
  }, 60_000);

  test("one that needs the whole pool gets it while another streams through it", async () => {
    await using m = await svmMachine(10);
    const greedy = await m.device.kernel(SVM_GREEDY);
    const kernel = await m.device.kernel(SVM_INCREMENT);
    const data = await m.mm.mmap({ length: 9 * SVM_PAGE });
    await data.write(0, new Uint32Array(data.length / 4).fill(2));
    const out = await m.mm.mmap({ length: 4 });
    const stream = await m.space().mmap({ length: 64 * SVM_PAGE });
    await Promise.all([
      addOne(kernel, stream),
      greedy.dispatch({
        mm: m.mm,
        params: { data: data.svmAddress, pages: 9, out: out.svmAddress },
        workgroups: 1,
        timeoutMs: 20_000,
      }),
    ]);
    expect((await wordsOf(out))[0]).toBe(18);
    await expectAll(stream, 1);
  });

  test("one that is cancelled in its turn, or waiting for it, leaves the pool to the others", async () => {
    await using m = await svmMachine(12);
    const kernel = await m.device.kernel(SVM_GREEDY);
    const slow = await slowFile(m, m.mm, GREEDY_PAGES);
    const out = await m.mm.mmap({ length: 4 });
    const run = (data: Mapping, signal?: AbortSignal) =>
      kernel.dispatch({
        mm: m.mm,
        params: { data: data.svmAddress, pages: GREEDY_PAGES, out: out.svmAddress },
        workgroups: 1,
        timeoutMs: 20_000,
        signal,
      });
    const data = await m.mm.mmap({ length: GREEDY_PAGES * SVM_PAGE });
    await data.write(0, new Uint32Array(data.length / 4).fill(4));
    const abort = new AbortController();
    const stuck = [run(slow.data, abort.signal), run(slow.data, abort.signal)];
    await slow.isAsked;
    stuck.push(run(data, abort.signal));
    abort.abort();
    slow.go();
    for (const result of await Promise.allSettled(stuck)) {
      expect(result).toMatchObject({ status: "rejected", reason: { code: "EINTR" } });
    }
    await run(data);
    expect((await wordsOf(out))[0]).toBe(4 * GREEDY_PAGES);
  });
});

test("any number of dispatches over the same memory, in any pool, add up", async () => {
  const random = seededRandom(11);
  for (const frames of [6, 12, 40]) {
    await using m = await svmMachine(frames);
    const kernel = await m.device.kernel(SVM_INCREMENT);
    const other = m.space();
    const datas = [
      await m.mm.mmap({ length: 10 * SVM_PAGE }),
      await m.mm.mmap({ length: 7 * SVM_PAGE }),
      await other.mmap({ length: 9 * SVM_PAGE }),
    ];
    const times = datas.map(() => 0);
    const running: Promise<unknown>[] = [];
    for (let i = 0; i < 16; i++) {
      const which = Math.floor(random() * datas.length);
      times[which]++;
      running.push(addOne(kernel, datas[which]));
      if (i % 4 === 3) {
        // The CPU changes nothing, but takes pages away while they are used.
        const data = datas[Math.floor(random() * datas.length)];
        const lease = await data.lease("rw", { offset: 0, length: 4096 });
        await new Promise((resolve) => setImmediate(resolve));
        lease[Symbol.dispose]();
      }
    }
    await Promise.all(running);
    for (const [i, data] of datas.entries()) {
      await expectAll(data, times[i]);
    }
    expect(m.device.stats().deviceMemory.used).toBeLessThanOrEqual(m.device.stats().deviceMemory.limit);
  }
}, 120_000);
