import { expect, test } from "vitest";
import { takeBugs } from "../../testing/bugs.ts";
import { openTestGpu } from "../../testing/gpu.ts";
import { createGpuBuffer } from "./gpu-buffer.ts";
import { adoptGpuDevice } from "./gpu-handle.ts";
import { BufferUsage } from "./usage.ts";

test("destroying the handle ends its waits with ENODEV at once, and the flag is set", async () => {
  const { gpu, end } = await openTestGpu("ends");
  const waiting = gpu.lost.wait(new Promise(() => undefined), "dispatch");
  end();
  expect(gpu.lost.isLost).toBe(true);
  await expect(waiting).rejects.toMatchObject({
    code: "ENODEV",
    message: 'dispatch: ENODEV: the GPU device "ends" is lost (it was destroyed): open another one',
  });
  end();
});

test("an adopted device that its owner destroys ends the waits, and is not destroyed by letting go of it", async () => {
  const { gpu: owner, end } = await openTestGpu("owner");
  const adopted = adoptGpuDevice(owner.device);
  adopted.destroy();
  const second = adoptGpuDevice(owner.device, "second");
  const buffer = await createGpuBuffer(second, { label: "b", bytes: 16, usage: BufferUsage.Storage });
  const told: string[] = [];
  second.lost.onLost(() => told.push("lost"));
  const waiting = second.lost.wait(new Promise(() => undefined), "dispatch");
  owner.device.destroy();
  await expect(waiting).rejects.toMatchObject({ code: "ENODEV" });
  second.lost.onLost(() => told.push("late"));
  expect(told).toEqual(["lost", "late"]);
  expect(second.lost.reason).toBe("it was destroyed");
  buffer.destroy();
  second.destroy();
  end();
});

test("a wait ends with EINTR when its signal fires, and passes on values and errors otherwise", async () => {
  const { gpu, end } = await openTestGpu("waits");
  const controller = new AbortController();
  const waiting = gpu.lost.wait(new Promise(() => undefined), "dispatch", { signal: controller.signal });
  controller.abort();
  await expect(waiting).rejects.toMatchObject({ code: "EINTR", op: "dispatch" });
  await expect(gpu.lost.wait(Promise.resolve(7), "x", { signal: controller.signal })).rejects.toMatchObject({
    code: "EINTR",
  });
  await expect(gpu.lost.wait(Promise.resolve(7), "x")).resolves.toBe(7);
  await expect(gpu.lost.wait(Promise.reject(new Error("own")), "x")).rejects.toThrow("own");
  end();
  await expect(gpu.lost.wait(Promise.resolve(7), "x")).rejects.toMatchObject({ code: "ENODEV" });
});

test("I-GPU-1: a command that the GPU refuses is a bug of ours and is reported", async () => {
  const { gpu, end } = await openTestGpu("refuses");
  gpu.device.createBuffer({ size: 4, usage: BufferUsage.MapRead | BufferUsage.Storage });
  await gpu.queue.onSubmittedWorkDone();
  await new Promise((resolve) => setImmediate(resolve));
  expect(takeBugs()).toEqual(["I-GPU-1"]);
  end();
});
