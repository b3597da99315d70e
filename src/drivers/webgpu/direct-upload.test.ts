import fc from "fast-check";
import { expect, test, vi } from "vitest";
import { useTestGpu } from "../../testing/gpu.ts";
import { contents, pattern, runOf, SMALL, storage } from "../../testing/transfers.ts";
import { DirectUploads } from "./direct-upload.ts";
import type { OwnedBuffer } from "./gpu-buffer.ts";
import { TransferEngine } from "./transfer.ts";
import type { UploadRun } from "./transfer-batch.ts";

const gpu = useTestGpu("direct uploads");

/** What the adapter of the tests has; hardware may have none. */
function direct(): DirectUploads {
  const { direct: found } = gpu();
  if (found === undefined) {
    throw new Error("these tests need an adapter that is a program");
  }
  return found;
}

function shared(data: Uint8Array): Uint8Array {
  const copy = new Uint8Array(new SharedArrayBuffer(data.length));
  copy.set(data);
  return copy;
}

/** Bytes [at, at + bytes) of an array, to the same place of a buffer. */
function part(target: OwnedBuffer, array: Uint8Array, at: number, bytes: number, idle = true): UploadRun {
  const notAsked = () => {
    throw new Error("a run with a source is filled");
  };
  return { buffer: target.buffer, offset: at, bytes, fill: notAsked, source: array, sourceOffset: at, idle };
}

test("runs out of shared and plain arrays arrive without staging and without a submission", async () => {
  const target = await storage(gpu(), 512);
  await fc.assert(
    fc.asyncProperty(
      fc.array(fc.record({ gap: fc.nat(6), words: fc.nat(20), plain: fc.boolean() }), { maxLength: 12 }),
      fc.nat(255),
      async (runs, seed) => {
        const engine = new TransferEngine(gpu(), SMALL);
        const data = pattern(512, seed);
        const arrays = [shared(data), data];
        const before = await contents(engine, target);
        const uploads: UploadRun[] = [];
        let at = 0;
        for (const { gap, words, plain } of runs) {
          at = Math.min(512, at + gap * 4);
          const bytes = Math.min(words * 4, 512 - at);
          uploads.push(part(target, arrays[Number(plain)], at, bytes));
          before.set(data.subarray(at, at + bytes), at);
          at += bytes;
        }
        const { submits } = engine.stats;
        {
          using batch = engine.begin();
          await batch.upload(uploads);
        }
        expect([engine.stats.submits, await contents(engine, target)]).toEqual([submits, before]);
        // What was read back is all the staging there is.
        expect(engine.stagingBytes).toBeLessThanOrEqual(2 * SMALL.chunkBytes);
        engine.destroy();
      },
    ),
    { numRuns: 40 },
  );
  target.destroy();
});

test("what was recorded before an upload comes before it, and what is recorded after it comes after", async () => {
  const engine = new TransferEngine(gpu(), SMALL);
  const target = await storage(gpu(), 64);
  const [first, second] = [pattern(64, 1), pattern(64, 2)];
  const batch = engine.begin();
  await batch.upload([part(target, first, 0, 64)]);
  batch.clear(target.buffer, 0, 32);
  await batch.upload([part(target, second, 16, 8)]);
  await batch.upload([runOf(target, 40, second.subarray(40, 48))]);
  await batch.upload([part(target, first, 44, 4)]);
  await batch.submit();
  const expected = Uint8Array.from(first);
  expected.fill(0, 0, 32);
  expected.set(second.subarray(16, 24), 16);
  expected.set(second.subarray(40, 44), 40);
  expect(await contents(engine, target)).toEqual(expected);
  target.destroy();
  engine.destroy();
});

test("a kernel that was submitted before reads the old bytes, one after it the new ones", async () => {
  const { device, queue } = gpu();
  const engine = new TransferEngine(gpu());
  const [target, seen] = [await storage(gpu(), 4096), await storage(gpu(), 8)];
  const code = `@group(0) @binding(0) var<storage, read> data: array<u32>;
    @group(0) @binding(1) var<storage, read_write> seen: array<u32>;
    @compute @workgroup_size(1) fn main() {
      var sum = 0u;
      for (var i = 0u; i < 200000u; i++) { sum += data[i % 1024u]; }
      seen[data[0] - 1u] = sum / 200000u;
    }`;
  const pipeline = await device.createComputePipelineAsync({
    layout: "auto",
    compute: { module: device.createShaderModule({ code }) },
  });
  const entries = [target, seen].map(({ buffer }, binding) => ({ binding, resource: { buffer } }));
  const group = device.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries });
  for (const value of [1, 2]) {
    using batch = engine.begin();
    await batch.upload([
      part(target, shared(new Uint8Array(new Uint32Array(1024).fill(value).buffer)), 0, 4096, false),
    ]);
    const encoder = device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    pass.setPipeline(pipeline);
    pass.setBindGroup(0, group);
    pass.dispatchWorkgroups(1);
    pass.end();
    queue.submit([encoder.finish()]);
  }
  expect([...new Uint32Array((await contents(engine, seen)).buffer)]).toEqual([1, 2]);
  target.destroy();
  seen.destroy();
  engine.destroy();
});

test("only so much is taken as Dawn need not keep for the GPU", async () => {
  const [quiet, written] = [await storage(gpu(), 4096), await storage(gpu(), 4096)];
  const data = new Uint8Array(4096);
  const uploads = direct();
  uploads.noteGpuWrite(written.buffer);
  expect(uploads.takes([part(quiet, data, 0, 4096)], 0)).toBe(true);
  expect(uploads.takes([part(quiet, data, 0, 8, false)], 4)).toBe(false);
  expect(uploads.takes([part(written, data, 0, 4), part(quiet, data, 0, 4096)], 4)).toBe(true);
  expect(uploads.takes([part(written, data, 0, 4), part(written, data, 8, 4)], 4)).toBe(false);
  expect(uploads.takes([part(quiet, data, 0, 4), runOf(quiet, 8, data.subarray(0, 4))], 4096)).toBe(false);
  quiet.destroy();
  written.destroy();
});

test("memory that has no view is staged", async () => {
  const target = await storage(gpu(), 8);
  const uploads = new DirectUploads(gpu().queue, { unshared: () => undefined });
  expect(uploads.takes([part(target, shared(pattern(8)), 0, 8)], 8)).toBe(false);
  target.destroy();
});

test("a long upload gives way between its pieces, and ends when its batch is disposed of", async () => {
  const target = await storage(gpu(), 1024);
  const data = pattern(1024);
  const runs = [part(target, data, 0, 500), part(target, data, 500, 524)];
  const turn = vi.fn(() => Promise.resolve());
  await direct().write(runs, 256, turn);
  expect(turn).toHaveBeenCalledTimes(3);
  const engine = new TransferEngine(gpu(), SMALL);
  expect(await contents(engine, target)).toEqual(data);

  const batch = engine.begin();
  const uploading = batch.upload([part(target, data, 0, 1024)]);
  expect(uploading).toBeInstanceOf(Promise);
  batch[Symbol.dispose]();
  await expect(uploading).rejects.toThrow("I-GPU-2");
  target.destroy();
  engine.destroy();
});
