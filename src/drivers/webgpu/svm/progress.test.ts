import { expect, test } from "vitest";
import { SVM_INCREMENT, SVM_PAGE, svmMachine } from "../../../testing/svm-kernels.ts";
import type { DispatchProgress } from "../kernel.ts";

test("a dispatch says after each round how far it is, and what the listener throws ends it alone", async () => {
  await using m = await svmMachine(8);
  const data = await m.mm.mmap({ length: 32 * SVM_PAGE });
  const kernel = await m.device.kernel(SVM_INCREMENT);
  const words = data.length / 4;
  const job = { mm: m.mm, params: { data: data.svmAddress, words }, workgroups: words / 64 };
  const seen: DispatchProgress[] = [];
  const stats = await kernel.dispatch({
    ...job,
    onRound: (progress) => {
      seen.push(progress);
      expect(m.device.stats().running).toEqual([progress]);
    },
  });
  expect(seen).toHaveLength(stats.rounds);
  const done = seen.map(({ workgroupsDone }) => workgroupsDone);
  expect(done).toEqual([...done].sort((a, b) => a - b));
  expect(seen.at(-1)).toMatchObject({
    rounds: stats.rounds,
    workgroups: words / 64,
    workgroupsDone: words / 64,
    deviceFaults: stats.deviceFaults,
    bytesToDevice: stats.bytesToDevice,
  });
  const stop = () => {
    throw new Error("enough");
  };
  await expect(kernel.dispatch({ ...job, onRound: stop })).rejects.toThrow("enough");
  expect(m.device.stats().running).toEqual([]);
  await kernel.dispatch(job);
});
