import { expect, test } from "vitest";
import { DeviceLost } from "./lost.ts";
import { QueueNudge } from "./queue-nudge.ts";

function fake(): { readonly device: GPUDevice; readonly queue: GPUQueue; submissions(): number } {
  let count = 0;
  const queue = {
    submit(buffers: Iterable<GPUCommandBuffer>) {
      expect([...buffers]).toEqual([]);
      count++;
    },
  } as GPUQueue;
  return {
    device: { queue, lost: new Promise<never>(() => undefined) } as unknown as GPUDevice,
    queue,
    submissions: () => count,
  };
}

const turn = () => new Promise((resolve) => setTimeout(resolve, 0));

test("while somebody waits for the GPU, empty submissions are sent, and none before or after", async () => {
  const { device, queue, submissions } = fake();
  const lost = new DeviceLost(device, "gpu", new QueueNudge(queue));
  await turn();
  expect(submissions()).toBe(0);
  let finish: () => void = () => undefined;
  const work = new Promise<void>((resolve) => {
    finish = resolve;
  });
  const wait = lost.wait(work, "test");
  while (submissions() < 3) {
    await turn();
  }
  finish();
  await wait;
  const at = submissions();
  for (let i = 0; i < 20; i++) {
    await turn();
  }
  expect(submissions()).toBe(at);
});

test("a wait that is long is not given up, and one that is interrupted ends the submissions", async () => {
  const { device, queue, submissions } = fake();
  const lost = new DeviceLost(device, "gpu", new QueueNudge(queue));
  const interrupt = new AbortController();
  let finish: () => void = () => undefined;
  const work = new Promise<void>((resolve) => {
    finish = resolve;
  });
  const wait = lost.wait(work, "test", { signal: interrupt.signal });
  const short = lost.wait(Promise.resolve(), "test");
  await short;
  const begun = performance.now();
  while (performance.now() - begun < 30) {
    await turn();
  }
  const patient = submissions();
  while (submissions() < patient + 2) {
    await turn();
  }
  interrupt.abort();
  await expect(wait).rejects.toMatchObject({ code: "EINTR" });
  finish();
  for (let i = 0; i < 20; i++) {
    await turn();
  }
  const at = submissions();
  const next = lost.wait(new Promise<void>(() => undefined), "test", { signal: AbortSignal.timeout(30) });
  await expect(next).rejects.toMatchObject({ code: "EINTR" });
  expect(submissions()).toBeGreaterThan(at);
});
