/** What the device may do to a page is what the CPU's entry grants, whatever mode brought it. */
import { describe, expect, test } from "vitest";
import { PAGE_SIZE, type VirtAddr } from "../../../base/index.ts";
import { Mapping, validateMm } from "../../../mm/index.ts";
import { INCREMENT, increment, openMachine, SUM, wordsOf } from "../../../testing/machine.ts";
import { SVM_COPY, SVM_INCREMENT, SVM_PAGE, svmMachine } from "../../../testing/svm-kernels.ts";

const WORDS = SVM_PAGE / 4;

describe("after a fork", () => {
  test("a bind dispatch that writes what one read in between leaves the child its bytes", async () => {
    await using m = await openMachine();
    const data = await m.mm.mmap({ length: PAGE_SIZE });
    const sums = await m.mm.mmap({ length: 4 });
    const inc = await m.device.kernel(INCREMENT);
    const sum = await m.device.kernel(SUM);
    await increment(inc, data);
    await using child = await m.mm.fork();
    await sum.dispatch({ bind: { data, sums }, params: { scale: 1 }, workgroups: 16 });
    await increment(inc, data);
    expect((await wordsOf(data))[0]).toBe(2);
    expect((await wordsOf(new Mapping(child, data.start, PAGE_SIZE, "data")))[0]).toBe(1);
  });

  test("an svm dispatch that writes what one read in between leaves the child its bytes", async () => {
    await using m = await svmMachine();
    const data = await m.mm.mmap({ length: SVM_PAGE });
    const copy = await m.mm.mmap({ length: SVM_PAGE });
    const inc = await m.device.kernel(SVM_INCREMENT);
    const read = await m.device.kernel(SVM_COPY);
    const add = () =>
      inc.dispatch({ mm: m.mm, params: { data: data.svmAddress, words: WORDS }, workgroups: WORDS / 64 });
    await add();
    await using child = await m.mm.fork();
    const params = { src: data.svmAddress, dst: copy.svmAddress, words: WORDS };
    await read.dispatch({ mm: m.mm, params, workgroups: WORDS / 64 });
    await add();
    expect((await wordsOf(data))[0]).toBe(2);
    expect((await wordsOf(copy))[0]).toBe(1);
    expect((await wordsOf(new Mapping(child, data.start, SVM_PAGE, "data")))[0]).toBe(1);
    validateMm(m.mm);
  });
});

describe("memory that bind and svm kernels share", () => {
  test("what an svm kernel writes, a bind kernel reads, and the other way round, again and again", async () => {
    await using m = await openMachine();
    const data = await m.mm.mmap({ length: 2 * SVM_PAGE });
    const sums = await m.mm.mmap({ length: 4 });
    const copy = await m.mm.mmap({ length: 2 * SVM_PAGE });
    const svm = await m.device.kernel(SVM_INCREMENT);
    const svmCopy = await m.device.kernel(SVM_COPY);
    const bind = await m.device.kernel(INCREMENT);
    const sum = await m.device.kernel(SUM);
    const words = data.length / 4;
    let value = 0;
    let total = 0;
    const addAll = async () => {
      await sum.dispatch({ bind: { data, sums }, params: { scale: 1 }, workgroups: words / 64 });
      total += value * words;
      expect((await wordsOf(sums))[0]).toBe(total);
    };
    const copyAll = async () => {
      const params = { src: data.svmAddress, dst: copy.svmAddress, words };
      await svmCopy.dispatch({ mm: m.mm, params, workgroups: words / 64 });
      expect(new Set(await wordsOf(copy))).toEqual(new Set([value]));
    };
    for (let round = 0; round < 3; round++) {
      await svm.dispatch({ mm: m.mm, params: { data: data.svmAddress, words }, workgroups: words / 64 });
      value++;
      await addAll();
      await copyAll();
      await increment(bind, data);
      value++;
      await copyAll();
      await addAll();
      validateMm(m.mm);
    }
    expect(new Set(await wordsOf(data))).toEqual(new Set([value]));
  });
});

describe("permissions that change", () => {
  test("a page that was mapped read-only meanwhile is not written, and is again when it may be", async () => {
    await using m = await svmMachine();
    const data = await m.mm.mmap({ length: SVM_PAGE, name: "data" });
    const copy = await m.mm.mmap({ length: SVM_PAGE });
    const inc = await m.device.kernel(SVM_INCREMENT);
    const read = await m.device.kernel(SVM_COPY);
    const params = { data: data.svmAddress, words: WORDS };
    const add = () => inc.dispatch({ mm: m.mm, params, workgroups: WORDS / 64 });
    await add();
    await m.mm.mprotect(data.start, data.length, "r");
    await read.dispatch({
      mm: m.mm,
      params: { src: data.svmAddress, dst: copy.svmAddress, words: WORDS },
      workgroups: WORDS / 64,
    });
    await expect(add()).rejects.toMatchObject({ code: "EPERM" });
    await using child = await m.mm.fork();
    await m.mm.mprotect(data.start, data.length, "rw");
    await add();
    expect((await wordsOf(data))[7]).toBe(2);
    expect((await wordsOf(copy))[7]).toBe(1);
    expect((await wordsOf(new Mapping(child, data.start as VirtAddr, SVM_PAGE, "data")))[7]).toBe(1);
  });
});

test("a page that is sealed while the device is asked for it to write is brought to be read: EPERM where the kernel writes", async () => {
  await using m = await svmMachine();
  const data = await m.mm.mmap({ length: SVM_PAGE, name: "data" });
  const kernel = await m.device.kernel(SVM_INCREMENT);
  await data.write(0, new Uint8Array(SVM_PAGE).fill(7));
  let sealed: Promise<void> | undefined;
  const dispatched = kernel.dispatch({
    mm: m.mm,
    params: { data: data.svmAddress, words: WORDS },
    workgroups: WORDS / 64,
    timeoutMs: 500,
    onRound: () => {
      sealed ??= m.mm.mprotect(data.start, SVM_PAGE, "r");
    },
  });
  await expect(dispatched).rejects.toMatchObject({ code: "EPERM" });
  await sealed;
  expect((await wordsOf(data))[0]).toBe(0x07070707);
  validateMm(m.mm);
});
