/** One budget: the pool, the extents of bind mode, and many spaces. */
import { describe, expect, test } from "vitest";
import { AddressSpace, validateMm } from "../../../mm/index.ts";
import { INCREMENT, increment, Machine, wordsOf } from "../../../testing/machine.ts";
import { SVM_INCREMENT, SVM_PAGE, SVM_SUM, svmMachine } from "../../../testing/svm-kernels.ts";

const WORDS = SVM_PAGE / 4;

describe("the pool and bind mode", () => {
  test("a bind dispatch gets the memory that the pool holds, and the pool gets it back", async () => {
    await using m = await svmMachine(15);
    const data = await m.mm.mmap({ length: 32 * SVM_PAGE });
    const words = data.length / 4;
    const svm = await m.device.kernel(SVM_INCREMENT);
    const bind = await m.device.kernel(INCREMENT);
    const used = () => m.device.stats().deviceMemory.used;
    const bound = await m.mm.mmap({ length: 12 * SVM_PAGE });
    for (let round = 1; round <= 3; round++) {
      await svm.dispatch({ mm: m.mm, params: { data: data.svmAddress, words }, workgroups: words / 64 });
      expect(used()).toBeLessThanOrEqual(16 * SVM_PAGE);
      await increment(bind, bound);
      expect(used()).toBeLessThanOrEqual(16 * SVM_PAGE);
    }
    expect(new Set(await wordsOf(data))).toEqual(new Set([3]));
    expect(new Set(await wordsOf(bound))).toEqual(new Set([3]));
    validateMm(m.mm);
  });

  test("a bind dispatch over the whole budget empties the pool; one over more fails and says so", async () => {
    await using m = await svmMachine(7);
    const data = await m.mm.mmap({ length: 8 * SVM_PAGE });
    const words = data.length / 4;
    const svm = await m.device.kernel(SVM_INCREMENT);
    const bind = await m.device.kernel(INCREMENT);
    await svm.dispatch({ mm: m.mm, params: { data: data.svmAddress, words }, workgroups: words / 64 });
    await increment(bind, data);
    expect(new Set(await wordsOf(data))).toEqual(new Set([2]));
    const larger = await m.mm.mmap({ length: 9 * SVM_PAGE });
    await expect(increment(bind, larger)).rejects.toThrow(/ENOMEM.*over the budget/);
  });

  test.each([4, 5, 6, 7])(
    "a pool that comes back smaller still finds frames to give up, after %d pages",
    async (pages) => {
      await using m = await svmMachine(3);
      const data = await m.mm.mmap({ length: pages * SVM_PAGE });
      const bound = await m.mm.mmap({ length: 2 * SVM_PAGE });
      const out = await m.mm.mmap({ length: 4 });
      const words = pages * WORDS;
      const sum = await m.device.kernel(SVM_SUM);
      // Clean frames: the hand of the clock stops in the middle.
      await sum.dispatch({
        mm: m.mm,
        params: { data: data.svmAddress, words, out: out.svmAddress },
        workgroups: words / 64,
      });
      await increment(await m.device.kernel(INCREMENT), bound);
      const svm = await m.device.kernel(SVM_INCREMENT);
      for (let page = 0; page < 3; page++) {
        const params = { data: data.svmAddress + page * WORDS, words: 1 };
        await svm.dispatch({ mm: m.mm, params, workgroups: 1 });
      }
      const after = await wordsOf(data);
      expect([after[0], after[WORDS], after[2 * WORDS]]).toEqual([1, 1, 1]);
    },
  );

  test("the pool grows with what is mapped, keeps what it holds, and never allocates over the cap on the way", async () => {
    await using m = await svmMachine(63);
    const svm = await m.device.kernel(SVM_INCREMENT);
    const mappings = [];
    for (let i = 0; i < 6; i++) {
      const data = await m.mm.mmap({ length: 2 ** i * SVM_PAGE });
      mappings.push(data);
      for (const each of mappings) {
        const words = each.length / 4;
        await svm.dispatch({ mm: m.mm, params: { data: each.svmAddress, words }, workgroups: words / 64 });
      }
      const { used, limit } = m.device.stats().deviceMemory;
      expect(used).toBeLessThanOrEqual(limit);
    }
    for (const [i, each] of mappings.entries()) {
      expect(new Set(await wordsOf(each))).toEqual(new Set([6 - i]));
    }
  });

  test("a budget that holds no page is refused with the numbers", async () => {
    await using m = new Machine();
    await m.open({ deviceMemory: SVM_PAGE });
    const data = await m.mm.mmap({ length: SVM_PAGE });
    const svm = await m.device.kernel(SVM_INCREMENT);
    await expect(
      svm.dispatch({ mm: m.mm, params: { data: data.svmAddress, words: 1 }, workgroups: 1 }),
    ).rejects.toThrow(/ENOMEM.*16384 bytes.*at least 32768/);
  });
});

describe("many spaces", () => {
  test("two address spaces thrash one pool and lose nothing", async () => {
    await using m = await svmMachine(8);
    const spaces = [m.mm, m.space()];
    const svm = await m.device.kernel(SVM_INCREMENT);
    const datas = await Promise.all(spaces.map((mm) => mm.mmap({ length: 12 * SVM_PAGE })));
    const words = 12 * WORDS;
    for (let round = 0; round < 3; round++) {
      await Promise.all(
        datas.map((data) =>
          svm.dispatch({ mm: data.mm, params: { data: data.svmAddress, words }, workgroups: words / 64 }),
        ),
      );
    }
    for (const data of datas) {
      expect(new Set(await wordsOf(data))).toEqual(new Set([3]));
      validateMm(data.mm);
    }
  });

  test("spaces that come and go leave neither frames nor names of frames behind", async () => {
    await using m = await svmMachine(8);
    const svm = await m.device.kernel(SVM_INCREMENT);
    for (let i = 0; i < 4; i++) {
      const mm = AddressSpace.create({ memory: m.memory });
      const data = await mm.mmap({ length: 6 * SVM_PAGE });
      const words = data.length / 4;
      await svm.dispatch({ mm, params: { data: data.svmAddress, words }, workgroups: words / 64 });
      if (i % 2 === 0) {
        expect((await wordsOf(data))[0]).toBe(1);
      }
      await mm[Symbol.asyncDispose]();
    }
    const data = await m.mm.mmap({ length: 8 * SVM_PAGE });
    const words = data.length / 4;
    await svm.dispatch({ mm: m.mm, params: { data: data.svmAddress, words }, workgroups: words / 64 });
    expect(new Set(await wordsOf(data))).toEqual(new Set([1]));
  });
});
