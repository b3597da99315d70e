/** A page fault that goes far holds up nobody who maps memory. */
import { expect, test } from "vitest";
import { PAGE_SIZE } from "../../../base/index.ts";
import { MemoryObject } from "../../../mm/index.ts";
import { wordsOf } from "../../../testing/machine.ts";
import { TestPager } from "../../../testing/mm.ts";
import { SVM_COPY, SVM_PAGE, svmMachine } from "../../../testing/svm-kernels.ts";

/** Its reads never end before what they are of was brought near, which takes until {@link FarPager.come}. */
class FarPager extends TestPager {
  readonly nearBytes = 4 * SVM_PAGE;
  readonly asked: [offset: number, length: number][] = [];
  come: () => void = () => undefined;
  readonly #coming = new Promise<void>((resolve) => {
    this.come = resolve;
  });
  #isNear = false;

  near(offset: number, length: number): Promise<void> | undefined {
    if (this.#isNear) {
      return undefined;
    }
    this.asked.push([offset, length]);
    return this.#coming.then(() => {
      this.#isNear = true;
    });
  }

  override async read(offset: number, dst: Uint8Array): Promise<void> {
    await this.#coming;
    await super.read(offset, dst);
  }
}

test("while bytes come from far away memory is mapped and unmapped, and the kernel then has them", async () => {
  for (const shared of [true, false]) {
    await using m = await svmMachine(8);
    const bytes = new Uint8Array(5 * PAGE_SIZE).map((_, i) => i % 251);
    const pager = new FarPager(bytes);
    const object = new MemoryObject(m.memory, { pages: 5, pager });
    const data = await m.mm.mmap({ length: 5 * PAGE_SIZE, object, shared, name: "far" });
    await object.put();
    const goal = await m.mm.mmap({ length: 5 * PAGE_SIZE });
    const kernel = await m.device.kernel(SVM_COPY);
    const words = (5 * PAGE_SIZE) / 4;
    const params = { src: data.svmAddress, dst: goal.svmAddress, words };
    const running = kernel.dispatch({ mm: m.mm, params, workgroups: words / 64 });
    while (pager.asked.length === 0) {
      await new Promise((resolve) => setImmediate(resolve));
    }
    const other = await m.mm.mmap({ length: PAGE_SIZE });
    await m.mm.munmap(other.start, other.length);
    expect(pager.reads).toBe(0);
    pager.come();
    await running;
    expect(pager.asked).toEqual([[0, 5 * PAGE_SIZE]]);
    expect((await wordsOf(goal)).subarray(0, words)).toEqual(new Uint32Array(bytes.buffer));
  }
});

test("a signal ends the wait, and what is unmapped meanwhile is no longer waited for in vain", async () => {
  await using m = await svmMachine(8);
  const pager = new FarPager(new Uint8Array(2 * SVM_PAGE));
  const object = new MemoryObject(m.memory, { pages: 8, pager });
  const data = await m.mm.mmap({ length: 2 * SVM_PAGE, object, shared: true, name: "far" });
  await object.put();
  const goal = await m.mm.mmap({ length: SVM_PAGE });
  const kernel = await m.device.kernel(SVM_COPY);
  const params = { src: data.svmAddress, dst: goal.svmAddress, words: 64 };
  const abort = new AbortController();
  const aborted = kernel.dispatch({ mm: m.mm, params, workgroups: 1, signal: abort.signal });
  const outcome = expect(aborted).rejects.toMatchObject({ code: "EINTR" });
  while (pager.asked.length === 0) {
    await new Promise((resolve) => setImmediate(resolve));
  }
  abort.abort();
  await outcome;
  const late = expect(kernel.dispatch({ mm: m.mm, params, workgroups: 1 })).rejects.toThrow(/EFAULT.*outside every/);
  while (pager.asked.length === 1) {
    await new Promise((resolve) => setImmediate(resolve));
  }
  await data.munmap();
  pager.come();
  await late;
});
