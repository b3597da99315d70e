import { expect, test } from "vitest";
import { ledgerCounts } from "../../base/index.ts";
import { openTestGpu, useTestGpu } from "../../testing/gpu.ts";
import { createGpuBuffer } from "./gpu-buffer.ts";
import { BufferUsage } from "./usage.ts";

const gpu = useTestGpu("buffers");
const usage = BufferUsage.Storage | BufferUsage.CopyDst;

test("a buffer is counted until it is destroyed, however often that is", async () => {
  const before = ledgerCounts()["gpu buffer"] ?? 0;
  const buffer = await createGpuBuffer(gpu(), { label: "words", bytes: 64, usage });
  expect(ledgerCounts()["gpu buffer"]).toBe(before + 1);
  expect(buffer.buffer.size).toBe(64);
  buffer.destroy();
  buffer.destroy();
  expect(ledgerCounts()["gpu buffer"] ?? 0).toBe(before);
});

test("EINVAL: a size over the adapter's limit, zero, or not in words, says the numbers", async () => {
  const max = gpu().limits.maxBufferSize;
  // The limit itself may be no multiple of 4.
  const over = max - (max % 4) + 4;
  await expect(createGpuBuffer(gpu(), { label: "words", bytes: over, usage })).rejects.toMatchObject({
    code: "EINVAL",
    why: `words needs ${over} bytes, a buffer of this adapter holds ${max}: bind a smaller range`,
  });
  for (const bytes of [0, -4, 3, 1.5, Number.NaN]) {
    await expect(createGpuBuffer(gpu(), { label: "words", bytes, usage })).rejects.toMatchObject({ code: "EINVAL" });
  }
});

test("EINVAL: a usage that WebGPU does not allow has the GPU's reason", async () => {
  const bad = BufferUsage.MapRead | BufferUsage.Storage;
  await expect(createGpuBuffer(gpu(), { label: "words", bytes: 64, usage: bad })).rejects.toMatchObject({
    code: "EINVAL",
    why: expect.stringContaining("the GPU refuses words: "),
  });
});

test("ENOMEM: a GPU that runs out of memory says so, and nothing leaks", async () => {
  const error = new Error("no memory");
  const scopes: unknown[] = [{ message: "" }, null];
  const poor = {
    limits: gpu().limits,
    lost: gpu().lost,
    device: {
      pushErrorScope: () => undefined,
      popErrorScope: () => Promise.resolve(scopes.shift() ?? null),
      createBuffer: () => {
        throw error;
      },
    },
  };
  await expect(createGpuBuffer(poor as never, { label: "words", bytes: 64, usage })).rejects.toMatchObject({
    code: "ENOMEM",
    why: expect.stringContaining("64 bytes of words"),
    cause: error,
  });
});

test("ENODEV: a lost device", async () => {
  const lost = await openTestGpu("lost");
  const making = createGpuBuffer(lost.gpu, { label: "words", bytes: 64, usage });
  lost.end();
  await expect(making).rejects.toMatchObject({ code: "ENODEV" });
  await expect(createGpuBuffer(lost.gpu, { label: "words", bytes: 64, usage })).rejects.toMatchObject({
    code: "ENODEV",
  });
});
