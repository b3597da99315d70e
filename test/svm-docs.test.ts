/** Each kernel of docs/svm.md does what the text around it says, over memory that does not fit the device at once. */
import { expect, test } from "vitest";
import { addrOfSvm } from "../src/mm/index.ts";
import { type Machine, openMachine, wordsOf } from "../src/testing/machine.ts";
import { allBlocks } from "./support/doc-blocks.ts";

const kernels = allBlocks().filter(({ document, language }) => document.endsWith("svm.md") && language === "wgsl");
const DEVICE_MEMORY = 256 * 1024;
const PAGE_WORDS = 4096;

/** A mapping of `words` words, filled by index. */
async function filled({ mm }: Machine, words: number, value: (i: number) => number) {
  const data = await mm.mmap({ length: 4 * words });
  using lease = await data.lease("rw");
  lease.u32.set(Uint32Array.from({ length: words }, (_, i) => value(i)));
  return data;
}

/** What each kernel is run over and has to do, by a piece of its text. */
const PROGRAMS: Readonly<Record<string, (m: Machine, wgsl: string) => Promise<void>>> = {
  "adds up a list of rows": async (m, wgsl) => {
    const rows = await m.mm.mmap({ length: 4 * 64 * PAGE_WORDS });
    {
      using lease = await rows.lease("rw");
      for (let row = 0; row < 64; row++) {
        lease.f32.fill(row, row * PAGE_WORDS, row * PAGE_WORDS + 32);
      }
    }
    // The rows in another order than they lie.
    const list = await filled(m, 64, (i) => rows.svmAddress + ((i * 7) % 64) * PAGE_WORDS);
    const sums = await m.mm.mmap({ length: 4 * 64 });
    const params = { list: list.svmAddress, length: 64, sums: sums.svmAddress };
    await (await m.device.kernel(wgsl)).dispatch({ mm: m.mm, params, workgroups: 1 });
    using result = await sums.lease("r");
    expect([...result.f32]).toEqual(Array.from({ length: 64 }, (_, i) => 32 * ((i * 7) % 64)));
  },
  "import pagemirror::svm": async (m, wgsl) => {
    const data = await m.mm.mmap({ addr: addrOfSvm(4096), length: 4 * 2 * PAGE_WORDS, fixed: true });
    await data.write(
      4 * 4096,
      Uint32Array.from({ length: 64 }, (_, i) => 10 * i),
    );
    await (await m.device.kernel(wgsl)).dispatch({ mm: m.mm, workgroups: 1 });
    expect([...(await wordsOf(data)).subarray(0, 64)]).toEqual(Array.from({ length: 64 }, (_, i) => 10 * i + 1));
  },
  "fn copy()": async (m, wgsl) => {
    const words = 10 * PAGE_WORDS + 3;
    const source = await filled(m, words, (i) => i * 3);
    const goal = await m.mm.mmap({ length: 4 * words });
    const params = { source: source.svmAddress, goal: goal.svmAddress, words };
    await (await m.device.kernel(wgsl)).dispatch({ mm: m.mm, params, workgroups: 1 });
    expect(await wordsOf(goal)).toEqual(await wordsOf(source));
  },
  "fn collect(": async (m, wgsl) => {
    const words = 16 * PAGE_WORDS;
    const values = await filled(m, words, (i) => (i % 100 === 7 ? 1 : 2 * i));
    const queue = await m.mm.mmap({ length: 4 * words });
    const tail = await m.mm.mmap({ length: 8 });
    const params = { values: values.svmAddress, queue: queue.svmAddress, tail: tail.svmAddress };
    await (await m.device.kernel(wgsl)).dispatch({ mm: m.mm, params, workgroups: words / 64 });
    const odd = Array.from({ length: words }, (_, i) => i).filter((i) => i % 100 === 7);
    expect([...(await wordsOf(tail)).subarray(0, 2)]).toEqual([odd.length, 1]);
    expect([...(await wordsOf(queue)).subarray(0, odd.length)].sort((a, b) => a - b)).toEqual(odd);
  },
  "fn sum_of(": async (m, wgsl) => {
    const words = 64 * PAGE_WORDS;
    const data = await filled(m, words, (i) => i % 5);
    const result = await m.mm.mmap({ length: 4 });
    const params = { data: data.svmAddress, words, result: result.svmAddress };
    await (await m.device.kernel(wgsl)).dispatch({ mm: m.mm, params, workgroups: 1 });
    const all = await wordsOf(data);
    const sum = (from: number, to: number) => all.subarray(from, to).reduce((a, b) => a + b, 0);
    expect((await wordsOf(result))[0]).toBe(sum(0, words / 2) * 3 + sum(words / 2, words));
  },
  "fn search(": async (m, wgsl) => {
    const count = 20 * PAGE_WORDS;
    const values = await filled(m, count, (i) => i % 1000);
    const found = await m.mm.mmap({ length: 16 * 1024 });
    const params = { values: values.svmAddress, count };
    const workgroups = Math.ceil(count / 64);
    await (await m.device.kernel(wgsl)).dispatch({ mm: m.mm, params, bind: { found }, workgroups });
    const zeros = Array.from({ length: Math.ceil(count / 1000) }, (_, i) => values.svmAddress + 1000 * i);
    const [length = 0, ...places] = await wordsOf(found);
    expect(length).toBe(zeros.length);
    expect(places.slice(0, length).sort((a, b) => a - b)).toEqual(zeros);
  },
};

test("every kernel of docs/svm.md has its run here", () => {
  const without = kernels.filter(({ text }) => !Object.keys(PROGRAMS).some((piece) => text.includes(piece)));
  expect(without.map(({ where }) => where)).toEqual([]);
  expect(kernels).toHaveLength(Object.keys(PROGRAMS).length);
});

test.each(Object.entries(PROGRAMS))("the kernel with `%s`", async (piece, run) => {
  const kernel = kernels.find(({ text }) => text.includes(piece));
  await using machine = await openMachine({ deviceMemory: DEVICE_MEMORY });
  await run(machine, kernel?.text ?? "");
});
