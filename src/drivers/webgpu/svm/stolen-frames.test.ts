import { expect, test } from "vitest";
import { listenToTrace, type TraceEvent } from "../../../base/index.ts";
import { wordsOf } from "../../../testing/machine.ts";
import { SVM_COPY, SVM_PAGE, svmMachine } from "../../../testing/svm-kernels.ts";
import { pageOfAddr } from "./page-entry.ts";
import { FrameClaim, newTally } from "./work.ts";

test("frames that are taken away between their placing and their uploads are missed, and nothing else is", async () => {
  await using m = await svmMachine(16);
  const data = await m.mm.mmap({ length: 4 * SVM_PAGE });
  const words = data.length / 4;
  await data.write(
    0,
    new Uint32Array(words).map((_, i) => i),
  );
  const out = await m.mm.mmap({ length: data.length });
  const kernel = await m.device.kernel(SVM_COPY);
  const { svm } = m.device;
  {
    const { table, uses } = await svm.tableOf(await m.device.mirrorOf(m.mm), "test");
    using _uses = uses;
    const work = { op: "test", timeoutMs: 1000, claim: new FrameClaim(), tally: newTally() };
    const first = pageOfAddr(data.start);
    const wanted = [0, 1, 2, 3].map((i) => ({ page: first + i, write: false }));
    const placed = await svm.placer.place(table, wanted, [], work);
    await table.evict([first + 1].flatMap((page) => table.frameAt(page) ?? []));
    await (await svm.submit(table, placed, work, () => {})).finished;
    work.claim.clear();
    expect(wanted.map(({ page }) => table.isResident(page, false))).toEqual([true, false, true, true]);
  }
  const params = { src: data.svmAddress, dst: out.svmAddress, words };
  await kernel.dispatch({ mm: m.mm, params, workgroups: words / 64 });
  expect(await wordsOf(out)).toEqual(await wordsOf(data));
});

test("whoever listens hears of the frames that went, once they have, and not of those that stay", async () => {
  await using m = await svmMachine(16);
  const data = await m.mm.mmap({ length: 4 * SVM_PAGE });
  await m.device.prefetch(data, { write: true });
  const { table, uses } = await m.device.svm.tableOf(await m.device.mirrorOf(m.mm), "test");
  using _uses = uses;
  const first = pageOfAddr(data.start);
  const frames = [0, 1, 2, 3].flatMap((i) => table.frameAt(first + i) ?? []);
  const told: { readonly page: number; readonly isThere: boolean }[] = [];
  const stop = listenToTrace((event) => {
    if (event.name === "gpu.evict") {
      const { start, end } = (event as TraceEvent<"gpu.evict">).fields;
      for (let page = pageOfAddr(start); page < pageOfAddr(end); page++) {
        told.push({ page: page - first, isThere: table.frameAt(page) !== undefined });
      }
    }
  });
  const evicting = table.evict(frames);
  frames[1].isServed = true;
  expect(await evicting).toBe(3);
  stop();
  frames[1].isServed = false;
  expect(told).toEqual([0, 2, 3].map((page) => ({ page, isThere: false })));
  expect(table.frameAt(first + 1)).toBe(frames[1]);
});
