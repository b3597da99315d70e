/** What happens to a dispatch while its rounds run: its memory changes, its space or its device goes, its caller gives up. */
import { describe, expect, test } from "vitest";
import { KernelError, PAGE_SIZE } from "../../../base/index.ts";
import { AddressSpace, Mapping, MemoryObject, validateMm } from "../../../mm/index.ts";
import { Machine, wordsOf } from "../../../testing/machine.ts";
import { SVM_COPY, SVM_GREEDY, SVM_INCREMENT, SVM_PAGE, svmMachine } from "../../../testing/svm-kernels.ts";

const PAGES = 64;
const WORDS = (PAGES * SVM_PAGE) / 4;

/** A dispatch over eight times the pool: it takes tens of rounds. */
async function longDispatch(m: Machine) {
  const data = await m.mm.mmap({ length: PAGES * SVM_PAGE, name: "data" });
  const kernel = await m.device.kernel(SVM_INCREMENT);
  const params = { data: data.svmAddress, words: WORDS };
  const run = (signal?: AbortSignal) =>
    kernel.dispatch({ mm: m.mm, params, workgroups: WORDS / 64, signal, timeoutMs: 20_000 });
  return { data, kernel, run };
}

/** Resolves when the device has submitted so often since. */
async function submissions(m: Machine, count: number): Promise<void> {
  const first = m.device.transfer.stats.submits;
  while (m.device.transfer.stats.submits < first + count) {
    await new Promise((resolve) => setImmediate(resolve));
  }
}

const messageOf = (work: Promise<unknown>): Promise<string> => work.then(() => "done", String);

const codeOf = (work: Promise<unknown>): Promise<string> =>
  work.then(
    () => "done",
    (error: unknown) => {
      if (error instanceof KernelError) {
        return error.code;
      }
      throw error;
    },
  );

describe("while rounds run", () => {
  test("an aborted dispatch ends with EINTR, and the words it wrote are whole", async () => {
    await using m = await svmMachine(8);
    const { data, run } = await longDispatch(m);
    const abort = new AbortController();
    const running = codeOf(run(abort.signal));
    await submissions(m, 6);
    abort.abort();
    expect(await running).toBe("EINTR");
    const words = await wordsOf(data);
    expect(words.every((word) => word <= 1)).toBe(true);
    await run();
    expect((await wordsOf(data)).findIndex((word, i) => word !== words[i] + 1)).toBe(-1);
    validateMm(m.mm);
  });

  test("an abort in every gap between submissions leaves no page marked that was not brought", async () => {
    await using m = await svmMachine(8);
    const { data, run } = await longDispatch(m);
    await data.write(0, new Uint32Array(WORDS).fill(100));
    let low = 100;
    for (let gap = 1; gap <= 12; gap++) {
      const abort = new AbortController();
      const running = codeOf(run(abort.signal));
      await submissions(m, gap).then(() => abort.abort());
      await running;
      const words = await wordsOf(data);
      const least = words.reduce((a, b) => Math.min(a, b));
      expect(least).toBeGreaterThanOrEqual(low);
      expect(Math.max(...words.subarray(0, 65536))).toBeLessThanOrEqual(100 + gap);
      low = least;
    }
    validateMm(m.mm);
  });

  test("memory that is unmapped is an address error that names where the kernel was going", async () => {
    await using m = await svmMachine(8);
    const { data, run } = await longDispatch(m);
    const outcome = messageOf(run());
    await submissions(m, 4);
    await m.mm.munmap(data.start + 48 * SVM_PAGE, 16 * SVM_PAGE);
    expect(await outcome).toMatch(/EFAULT.*main, workgroup \d+, invocation \d+.*outside every mapping/);
    validateMm(m.mm);
    await expect(run()).rejects.toMatchObject({ code: "EFAULT" });
    const words = new Uint32Array((await data.read(0, 48 * SVM_PAGE)).buffer);
    expect(words.every((word) => word <= 2)).toBe(true);
  });

  test("memory that becomes read-only is an error that names the mapping, and nothing is written after that", async () => {
    await using m = await svmMachine(8);
    const { data, run } = await longDispatch(m);
    const outcome = messageOf(run());
    await submissions(m, 4);
    await m.mm.mprotect(data.start, data.length, "r");
    const words = await wordsOf(data);
    expect(await outcome).toMatch(/EPERM: main.*in data, which is mapped read-only/);
    expect((await wordsOf(data)).findIndex((word, i) => word !== words[i])).toBe(-1);
    await m.mm.mprotect(data.start, data.length, "rw");
    await run();
    expect((await wordsOf(data)).findIndex((word, i) => word !== words[i] + 1)).toBe(-1);
  });

  test("CPU writes between rounds are never lost", async () => {
    await using m = await svmMachine(8);
    const { data, run } = await longDispatch(m);
    const running = run();
    let bumps = 0;
    let over = false;
    void running.finally(() => {
      over = true;
    });
    while (!over) {
      const place = ((bumps * 7) % PAGES) * SVM_PAGE;
      using lease = await data.lease("rw", { offset: place, length: 4 });
      lease.u32[0] += 1000;
      bumps++;
      await new Promise((resolve) => setImmediate(resolve));
    }
    await running;
    const words = await wordsOf(data);
    let total = 0;
    for (let page = 0; page < PAGES; page++) {
      expect(words[page * 4096] % 1000).toBe(1);
      total += Math.floor(words[page * 4096] / 1000);
    }
    expect(total).toBe(bumps);
    expect(words.every((word, i) => i % 4096 === 0 || word === 1)).toBe(true);
  });

  test("a fork between rounds sees each word before or after, and no later change", async () => {
    await using m = await svmMachine(8);
    const { data, run } = await longDispatch(m);
    const running = run();
    await submissions(m, 5);
    await using child = await m.mm.fork();
    const theirs = new Mapping(child, data.start, data.length, "data");
    const early = await wordsOf(theirs);
    await running;
    await run();
    expect(early.every((word) => word <= 1)).toBe(true);
    expect((await wordsOf(theirs)).findIndex((word, i) => word !== early[i])).toBe(-1);
    expect(new Set(await wordsOf(data))).toEqual(new Set([2]));
  });

  test("pages that are given up read as zeros and are counted from there", async () => {
    await using m = await svmMachine(8);
    const { data, run } = await longDispatch(m);
    await data.write(0, new Uint32Array(WORDS).fill(50));
    const running = run();
    await submissions(m, 5);
    await m.mm.madvise(data.start, data.length, "dontneed");
    await running;
    const words = await wordsOf(data);
    expect([...new Set(words)].every((word) => word === 0 || word === 1)).toBe(true);
    validateMm(m.mm);
  });

  test("the space may exit: it does when the dispatch is over", async () => {
    await using m = await svmMachine(8);
    const mm = AddressSpace.create({ memory: m.memory });
    const data = await mm.mmap({ length: PAGES * SVM_PAGE });
    const kernel = await m.device.kernel(SVM_INCREMENT);
    const params = { data: data.svmAddress, words: WORDS };
    const running = kernel.dispatch({ mm, params, workgroups: WORDS / 64 });
    await submissions(m, 3);
    await mm[Symbol.asyncDispose]();
    expect((await running).evictions).toBeGreaterThan(0);
    await expect(kernel.dispatch({ mm, params, workgroups: 1 })).rejects.toMatchObject({ code: "ESRCH" });
    const { data: next, run } = await longDispatch(m);
    await run();
    expect(new Set(await wordsOf(next))).toEqual(new Set([1]));
  });

  test("the driver may be unloaded: what was written is at home", async () => {
    const m = await svmMachine(8);
    const { data, run } = await longDispatch(m);
    const running = codeOf(run());
    await submissions(m, 3);
    await m.driver.unload();
    expect(["done", "ENODEV"]).toContain(await running);
    const words = await wordsOf(data);
    expect(words.every((word) => word <= 1)).toBe(true);
    await expect(run()).rejects.toMatchObject({ code: "ENODEV" });
    await m[Symbol.asyncDispose]();
  });

  test("a device that is lost ends it with ENODEV; only what it alone had is lost", async () => {
    await using m = new Machine();
    const { gpu } = await m.adopt({ deviceMemory: 9 * SVM_PAGE });
    const { data, run } = await longDispatch(m);
    await data.write(0, new Uint32Array(WORDS).fill(9));
    const running = codeOf(run());
    await submissions(m, 5);
    gpu.destroy();
    expect(await running).toBe("ENODEV");
    let lost = 0;
    for (let page = 0; page < PAGES; page++) {
      const outcome = await data.read(page * SVM_PAGE, 4).then(
        (bytes) => new Uint32Array(bytes.buffer)[0],
        (error: KernelError) => error.code,
      );
      expect([9, 10, "EHWPOISON"]).toContain(outcome);
      lost += outcome === "EHWPOISON" ? 1 : 0;
    }
    expect(lost).toBeLessThanOrEqual(8);
    validateMm(m.mm);
  });

  test("what is mapped during the dispatch can be reached", async () => {
    await using m = await svmMachine(8);
    const data = await m.mm.mmap({ length: PAGES * SVM_PAGE });
    const kernel = await m.device.kernel(SVM_INCREMENT);
    await m.mm.munmap(data.start + 48 * SVM_PAGE, 8 * SVM_PAGE);
    const running = kernel.dispatch({
      mm: m.mm,
      params: { data: data.svmAddress, words: WORDS },
      workgroups: WORDS / 64,
    });
    await submissions(m, 2);
    const again = await m.mm.mmap({ addr: data.start + 48 * SVM_PAGE, length: 8 * SVM_PAGE, fixed: true });
    // Far above all else: the running dispatch's buffers are not made for it.
    await m.mm.mmap({ addr: data.start + 4096 * SVM_PAGE, length: SVM_PAGE, fixed: true });
    await running;
    expect(new Set(await wordsOf(again))).toEqual(new Set([1]));
    expect(new Set(new Uint32Array((await data.read(56 * SVM_PAGE)).buffer))).toEqual(new Set([1]));
  });
});

describe("what cannot make progress ends with an error", () => {
  test("one workgroup with barriers that needs more than the pool, at once and with the numbers", async () => {
    await using m = await svmMachine(8);
    const data = await m.mm.mmap({ length: PAGES * SVM_PAGE });
    const out = await m.mm.mmap({ length: 4 });
    const kernel = await m.device.kernel(SVM_GREEDY.replace("var sum", "workgroupBarrier(); var sum"));
    const run = (pages: number) =>
      kernel.dispatch({
        mm: m.mm,
        params: { data: data.svmAddress, pages, out: out.svmAddress },
        workgroups: 1,
      });
    await expect(run(PAGES)).rejects.toThrow(
      /ENOMEM: one workgroup \(it has barriers.* needs at least \d+ device pages.*pool holds 8/,
    );
    await run(7);
    expect((await wordsOf(out))[0]).toBe(0);
  });

  test("one page at two addresses, read through one and written through the other by one invocation", async () => {
    await using m = await svmMachine(8);
    const object = new MemoryObject(m.memory, { pages: 4 });
    const a = await m.mm.mmap({ length: SVM_PAGE, object, shared: true });
    const b = await m.mm.mmap({ length: SVM_PAGE, object, shared: true });
    const kernel = await m.device.kernel(SVM_COPY);
    const params = { src: a.svmAddress, dst: b.svmAddress + 1, words: 1 };
    await expect(kernel.dispatch({ mm: m.mm, params, workgroups: 1, timeoutMs: 50 })).rejects.toThrow(
      /EBUSY.*two addresses/,
    );
    await a.write(0, new Uint32Array([5]));
    expect((await wordsOf(b))[0]).toBe(5);
    validateMm(m.mm);
    await object.put();
  });

  test("a lease that is never disposed of, with its mapping's name", async () => {
    await using m = await svmMachine(8);
    const { data, kernel } = await longDispatch(m);
    using _lease = await data.lease("r", { offset: 5 * SVM_PAGE, length: 4 });
    const params = { data: data.svmAddress, words: WORDS };
    await expect(kernel.dispatch({ mm: m.mm, params, workgroups: WORDS / 64, timeoutMs: 30 })).rejects.toThrow(
      /EBUSY.*lease on data/,
    );
  });
});

describe("a guess of the prefetcher", () => {
  test("waits for no lease and fails for no page", async () => {
    await using m = await svmMachine(64);
    const data = await m.mm.mmap({ length: 8 * SVM_PAGE, name: "data" });
    await data.write(0, new Uint8Array(data.length).fill(1));
    const kernel = await m.device.kernel(SVM_INCREMENT);
    // Pages 1, 3, 5 and 7 are wanted; those between them are not, however dense they are asked for.
    const leases = await Promise.all(
      [0, 2, 4, 6].map((page) => data.lease("rw", { offset: page * SVM_PAGE, length: 4 })),
    );
    for (let round = 0; round < 2; round++) {
      for (const page of [1, 3, 5, 7]) {
        const params = { data: data.svmAddress + page * 4096, words: 64 };
        await kernel.dispatch({ mm: m.mm, params, workgroups: 1, timeoutMs: 0 });
      }
    }
    for (const lease of leases) {
      lease[Symbol.dispose]();
    }
    expect((await wordsOf(data))[4096]).toBe(0x0101_0103);
  });

  test("what lies past the end of its object is no memory", async () => {
    await using m = await svmMachine(8);
    const object = new MemoryObject(m.memory, { pages: 5 });
    const data = await m.mm.mmap({ length: 4 * SVM_PAGE, object, shared: true, name: "short" });
    const kernel = await m.device.kernel(SVM_INCREMENT);
    const run = (words: number) =>
      kernel.dispatch({ mm: m.mm, params: { data: data.svmAddress, words }, workgroups: Math.ceil(words / 64) });
    await run((5 * PAGE_SIZE) / 4);
    await expect(run((6 * PAGE_SIZE) / 4)).rejects.toMatchObject({ code: "EFAULT" });
    await object.put();
  });
});
