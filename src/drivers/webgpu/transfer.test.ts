import fc from "fast-check";
import { expect, test, vi } from "vitest";
import { useTestGpu } from "../../testing/gpu.ts";
import { contents, pattern, runOf, SMALL, storage } from "../../testing/transfers.ts";
import { TransferEngine } from "./transfer.ts";
import type { UploadRun } from "./transfer-batch.ts";

const gpu = useTestGpu("transfer");

test("any runs arrive byte for byte, whatever their sizes, neighbours and pace", async () => {
  const target = await storage(gpu(), 1024);
  const run = fc.record({ gap: fc.nat(6), words: fc.nat(60), later: fc.boolean() });
  await fc.assert(
    fc.asyncProperty(fc.array(run, { maxLength: 12 }), fc.nat(255), async (runs, seed) => {
      const engine = new TransferEngine(gpu(), SMALL);
      try {
        const expected = new Uint8Array(1024);
        const uploads: UploadRun[] = [];
        let offset = 0;
        for (const { gap, words, later } of runs) {
          offset += gap * 4;
          const bytes = Math.min(words * 4, 1024 - offset);
          if (bytes < 0) {
            break;
          }
          const data = pattern(bytes, seed + offset);
          expected.set(data, offset);
          uploads.push(runOf(target, offset, data, later));
          offset += bytes;
        }
        const batch = engine.begin();
        batch.clear(target.buffer, 0, 1024);
        await batch.upload(uploads);
        await batch.submit();
        expect(await contents(engine, target)).toEqual(expected);
        const pieces: Uint8Array[] = uploads.map((upload) => new Uint8Array(upload.bytes));
        await engine.readback(
          uploads.map(({ buffer, offset: from, bytes }, i) => ({
            buffer,
            offset: from,
            bytes,
            take: (src, at) => pieces[i]?.set(src, at),
          })),
        );
        uploads.forEach((upload, i) => {
          expect(pieces[i]).toEqual(expected.slice(upload.offset, upload.offset + upload.bytes));
        });
        // Four chunks to upload, two to read back.
        expect(engine.stagingBytes).toBeLessThanOrEqual(6 * 64);
      } finally {
        engine.destroy();
      }
    }),
    { numRuns: 60 },
  );
  target.destroy();
});

test.each([
  { pages: 128, submits: 1 },
  { pages: 650, submits: 3 },
])(
  "$pages scattered pages and the commands after them go in $submits submits, neighbours in one copy",
  async ({ pages, submits }) => {
    const engine = new TransferEngine(gpu());
    const target = await storage(gpu(), 8 << 20);
    const submit = vi.spyOn(gpu().queue, "submit");
    const page = pattern(4096);
    const runs = Array.from({ length: pages }, (_, i) =>
      runOf(target, Math.floor(i / 2) * 16384 + (i % 2) * 4096, page),
    );
    const batch = engine.begin();
    expect(batch.upload(runs)).toBeUndefined();
    batch.encoder.clearBuffer(target.buffer, 0, 16);
    await batch.submit();
    expect(submit).toHaveBeenCalledTimes(submits);
    submit.mockRestore();
    expect(engine.stats).toEqual({ bytesToDevice: pages * 4096, bytesToHost: 0, copies: pages / 2, submits });
    const bytes = await contents(engine, target);
    expect(bytes.subarray(0, 16)).toEqual(new Uint8Array(16));
    expect(bytes.subarray(16384, 20480)).toEqual(page);
    engine.destroy();
    target.destroy();
  },
);

test("a long upload and readback never hold more than the pool", async () => {
  const engine = new TransferEngine(gpu(), { chunkBytes: 4096, maxChunks: 4 });
  const target = await storage(gpu(), 1 << 20);
  const data = pattern(1 << 20);
  let most = 0;
  const batch = engine.begin();
  await batch.upload([
    {
      ...runOf(target, 0, data),
      fill(dst, at) {
        most = Math.max(most, engine.stagingBytes);
        dst.set(data.subarray(at, at + dst.length));
      },
    },
  ]);
  await batch.submit();
  expect(most).toBeLessThanOrEqual(4 * 4096);
  expect(Buffer.compare(await contents(engine, target), data)).toBe(0);
  expect(engine.stagingBytes).toBeLessThanOrEqual(6 * 4096);
  engine.destroy();
  target.destroy();
});

test("many transfers at once share the pool and keep their bytes apart", async () => {
  const engine = new TransferEngine(gpu(), SMALL);
  const targets = await Promise.all(Array.from({ length: 8 }, () => storage(gpu(), 512)));
  await Promise.all(
    targets.map(async (target, i) => {
      for (let round = 0; round < 4; round++) {
        const data = pattern(512, i * 10 + round);
        const batch = engine.begin();
        await batch.upload([
          runOf(target, 0, data.subarray(0, 200), round % 2 === 0),
          runOf(target, 200, data.subarray(200), true),
        ]);
        await batch.submit();
        expect(await contents(engine, target)).toEqual(data);
      }
    }),
  );
  engine.destroy();
  for (const target of targets) {
    target.destroy();
  }
});

test("readbacks at once make no more staging than the pool has, however many wait for it", async () => {
  const engine = new TransferEngine(gpu(), SMALL);
  const target = await storage(gpu(), 1024);
  const made = vi.spyOn(gpu().device, "createBuffer");
  const reads = Array.from({ length: 12 }, () => contents(engine, target));
  expect(await Promise.all(reads)).toEqual(reads.map(() => new Uint8Array(1024)));
  expect(made).toHaveBeenCalledTimes(2);
  made.mockRestore();
  engine.destroy();
  target.destroy();
});

test("batches that hold all staging and are not submitted do not stop another one", async () => {
  const engine = new TransferEngine(gpu(), SMALL);
  const target = await storage(gpu(), 256);
  const holders = await Promise.all(
    Array.from({ length: 6 }, async (_, i) => {
      const batch = engine.begin();
      await batch.upload([runOf(target, 0, pattern(100, i))]);
      return batch;
    }),
  );
  const batch = engine.begin();
  await batch.upload([runOf(target, 0, pattern(256, 77))]);
  await batch.submit();
  expect(await contents(engine, target)).toEqual(pattern(256, 77));
  for (const holder of holders) {
    holder[Symbol.dispose]();
  }
  await vi.waitFor(() => expect(engine.stagingBytes).toBeLessThanOrEqual(6 * 64));
  expect(engine.stagingBytes).toBeLessThanOrEqual(6 * 64);
  engine.destroy();
  target.destroy();
});

test("a batch that is disposed of uploads nothing and gives its staging back", async () => {
  const engine = new TransferEngine(gpu(), SMALL);
  const target = await storage(gpu(), 64);
  for (let i = 0; i < 20; i++) {
    using batch = engine.begin();
    await batch.upload([runOf(target, 0, pattern(8))]);
  }
  expect(await contents(engine, target)).toEqual(new Uint8Array(64));
  expect(engine.stagingBytes).toBeLessThanOrEqual(2 * 64);
  engine.destroy();
  target.destroy();
});

test("what a fill throws reaches the caller, and the batch can go on", async () => {
  const engine = new TransferEngine(gpu(), SMALL);
  const target = await storage(gpu(), 64);
  const batch = engine.begin();
  const failing = (error: Error, later: boolean): UploadRun => ({
    ...runOf(target, 0, pattern(64)),
    fill: () => {
      if (later) {
        return Promise.reject(error);
      }
      throw error;
    },
  });
  expect(() => batch.upload([failing(new Error("page in"), false)])).toThrow("page in");
  await expect(batch.upload([failing(new Error("page in later"), true)])).rejects.toThrow("page in later");
  await batch.upload([runOf(target, 0, pattern(64, 3))]);
  await batch.submit();
  expect(await contents(engine, target)).toEqual(pattern(64, 3));
  engine.destroy();
  target.destroy();
});

test("what a take throws reaches the caller, and the engine can go on", async () => {
  const engine = new TransferEngine(gpu(), SMALL);
  const target = await storage(gpu(), 512);
  let calls = 0;
  const take = () => {
    calls++;
    throw new Error("no room");
  };
  await expect(engine.readback([{ buffer: target.buffer, offset: 0, bytes: 512, take }])).rejects.toThrow("no room");
  expect(calls).toBe(1);
  expect(await contents(engine, target)).toEqual(new Uint8Array(512));
  expect(calls).toBe(1);
  engine.destroy();
  target.destroy();
});

test("EINTR: a signal ends an upload, a fence and a readback, and the engine can go on", async () => {
  const engine = new TransferEngine(gpu(), SMALL);
  const target = await storage(gpu(), 512);
  const fired = AbortSignal.abort();
  expect(() => engine.begin({ signal: fired, op: "dispatch" }).upload([runOf(target, 0, pattern(64))])).toThrowError(
    expect.objectContaining({ code: "EINTR", op: "dispatch" }),
  );
  const during = new AbortController();
  using batch = engine.begin({ signal: during.signal });
  const uploading = batch.upload([
    {
      ...runOf(target, 0, pattern(512)),
      fill: () =>
        new Promise((resolve) => {
          during.abort();
          resolve();
        }),
    },
  ]);
  await expect(uploading).rejects.toMatchObject({ code: "EINTR" });
  const fence = new AbortController();
  const submitted = engine.begin({ signal: fence.signal });
  await submitted.upload([runOf(target, 0, pattern(512))]);
  const done = gpu().lost.wait(submitted.submit(), "test", { signal: fence.signal });
  fence.abort();
  await expect(done).rejects.toMatchObject({ code: "EINTR" });
  const reading = new AbortController();
  const read = engine.readback(
    [{ buffer: target.buffer, offset: 0, bytes: 512, take: () => expect.fail("taken after the signal") }],
    {
      signal: reading.signal,
    },
  );
  reading.abort();
  await expect(read).rejects.toMatchObject({ code: "EINTR" });
  expect(await contents(engine, target)).toEqual(pattern(512));
  engine.destroy();
  target.destroy();
});

test("I-GPU-2 and I-GPU-3: a batch is used in turn, until its end, in whole words", async () => {
  const engine = new TransferEngine(gpu(), SMALL);
  const target = await storage(gpu(), 64);
  const batch = engine.begin();
  const slow = batch.upload([runOf(target, 0, pattern(64), true)]);
  expect(() => batch.upload([])).toThrow(/^I-GPU-2/);
  expect(() => batch.encoder).toThrow(/^I-GPU-2/);
  expect(() => batch.submit()).toThrow(/^I-GPU-2/);
  await slow;
  expect(() => batch.upload([runOf(target, 2, pattern(4))])).toThrow(/^I-GPU-3/);
  expect(() => batch.upload([runOf(target, 0, pattern(3))])).toThrow(/^I-GPU-3/);
  expect(() => batch.clear(target.buffer, 0, 6)).toThrow(/^I-GPU-3/);
  await expect(
    engine.readback([{ buffer: target.buffer, offset: 1, bytes: 4, take: () => undefined }]),
  ).rejects.toThrow(/^I-GPU-3/);
  await batch.submit();
  expect(() => batch.submit()).toThrow(/^I-GPU-2/);
  expect(() => batch.upload([])).toThrow(/^I-GPU-2/);
  engine.destroy();
  target.destroy();
});
