import { expect, test } from "vitest";
import { openTestGpu, useTestGpu } from "../../testing/gpu.ts";
import { contents, pattern, runOf, SMALL, storage, withResolvers } from "../../testing/transfers.ts";
import { TransferEngine } from "./transfer.ts";

const gpu = useTestGpu("transfer");

test.each(["handle", "device"] as const)(
  "ENODEV: a %s destroyed in the middle ends every wait and leaks nothing",
  async (who) => {
    const { gpu: own, end } = await openTestGpu("dies");
    const engine = new TransferEngine(own, SMALL);
    const target = await storage(own, 4096);
    const fill = withResolvers();
    const batch = engine.begin();
    const uploading = batch.upload([{ ...runOf(target, 0, pattern(4096)), fill: () => fill.promise }]);
    const submitted = engine.begin();
    await submitted.upload([runOf(target, 0, pattern(512))]);
    const done = own.lost.wait(submitted.submit(), "test");
    const reading = engine.readback([{ buffer: target.buffer, offset: 0, bytes: 4096, take: () => undefined }]);
    if (who === "handle") {
      own.destroy();
    } else {
      own.device.destroy();
    }
    const outcomes = await Promise.allSettled([done, reading]);
    // A fence that was reached before the device's end may well say so.
    for (const outcome of outcomes.filter((entry) => entry.status === "rejected")) {
      expect(outcome.reason).toMatchObject({ code: "ENODEV" });
    }
    expect(outcomes[1]?.status).toBe("rejected");
    fill.resolve();
    await expect(uploading).rejects.toMatchObject({ code: "ENODEV" });
    expect(() => batch.submit()).toThrowError(/ENODEV/);
    expect(() => engine.begin()).toThrowError(/ENODEV/);
    await expect(engine.readback([])).rejects.toMatchObject({ code: "ENODEV" });
    batch[Symbol.dispose]();
    engine.destroy();
    engine.destroy();
    target.destroy();
    end();
  },
);

test("ENODEV: who waits for staging hears of the device's end", async () => {
  const { gpu: own, end } = await openTestGpu("dies");
  const engine = new TransferEngine(own, SMALL);
  const target = await storage(own, 1 << 16);
  const uploads = Array.from({ length: 6 }, () => engine.begin().upload([runOf(target, 0, pattern(1 << 16))]));
  const reads = Array.from({ length: 6 }, () =>
    engine.readback([{ buffer: target.buffer, offset: 0, bytes: 1 << 16, take: () => undefined }]),
  );
  own.destroy();
  for (const outcome of await Promise.allSettled([...uploads, ...reads])) {
    expect(outcome).toMatchObject({ status: "rejected", reason: { code: "ENODEV" } });
  }
  engine.destroy();
  target.destroy();
  end();
});

test("ENODEV: an engine that was destroyed refuses work", async () => {
  const engine = new TransferEngine(gpu(), SMALL);
  const target = await storage(gpu(), 64);
  const batch = engine.begin();
  await batch.upload([runOf(target, 0, pattern(32))]);
  engine.destroy();
  expect(() => batch.upload([runOf(target, 0, pattern(32))])).toThrowError(/ENODEV: the transfer engine was destroyed/);
  expect(() => batch.submit()).toThrowError(/ENODEV/);
  batch[Symbol.dispose]();
  await expect(contents(engine, target)).rejects.toMatchObject({ code: "ENODEV" });
  target.destroy();
});
