/** The WebGPU driver over the fake device, in every kind of trouble at every call. */
import { describe, expect, test } from "vitest";
import { KernelError, PAGE_SIZE } from "../../base/index.ts";
import { type WebGpuDevice, WebGpuDriver } from "../../drivers/webgpu/index.ts";
import { AddressSpace, type Mapping, PhysicalMemory, validateMm } from "../../mm/index.ts";
import { SoftwareMmu } from "../../platform/software/cpu-mmu.ts";
import { type FakeDispatch, FakeGpu, type GpuTrouble, withoutLeaks } from "../index.ts";

const WGSL = /* wgsl */ `
@group(0) @binding(0) var<storage, read_write> data: array<u32>;
@compute @workgroup_size(1) fn increment() { data[0] += 1u; }`;

const BASE = 2 ** 41;
const kernels = {
  increment: ({ words }: FakeDispatch) =>
    words(0)
      .subarray(0, 1)
      .forEach((word, _, data) => void data.fill(word + 1)),
};

interface Run {
  readonly gpu: FakeGpu;
  /** What the CPU reads in the end, or the code of the error that it got instead. */
  readonly read: number | string;
  readonly errors: readonly string[];
}

/** Writes, increments twice on the device, reads: with trouble at one call. */
async function run(call: number, trouble: GpuTrouble): Promise<Run> {
  return withoutLeaks(async () => {
    const gpu = new FakeGpu({ kernels });
    gpu.trouble(call, trouble);
    const mm = AddressSpace.create({ memory: new PhysicalMemory(new SoftwareMmu()) });
    const driver = new WebGpuDriver();
    const errors: string[] = [];
    const attempt = async <T>(body: () => T | Promise<T>): Promise<T | undefined> => {
      try {
        return await body();
      } catch (error) {
        if (!(error instanceof KernelError)) {
          throw error;
        }
        errors.push(error.code);
        return undefined;
      }
    };
    const map: Mapping = await mm.mmap({ addr: BASE, length: 2 * PAGE_SIZE, fixed: true });
    await map.write(0, Uint8Array.of(40));
    const device = await attempt<WebGpuDevice>(() => driver.open({ gpu: gpu.device }));
    const kernel = device && (await attempt(() => device.kernel(WGSL)));
    for (let i = 0; i < 2 && kernel !== undefined; i++) {
      await attempt(() => kernel.dispatch({ bind: { data: map }, workgroups: 1 }));
    }
    const read = () => attempt(() => map.read(0, 4));
    // What failed for want of memory has lost nothing, and may be tried again.
    const bytes = (await read()) ?? (errors.at(-1) === "ENOMEM" ? await read() : undefined);
    validateMm(mm);
    await mm[Symbol.asyncDispose]();
    await attempt(() => driver.unload());
    gpu.device.destroy();
    expect(gpu.refused).toEqual([]);
    return { gpu, read: bytes?.[0] ?? errors.at(-1) ?? "nothing", errors };
  });
}

test("without trouble the device's writes arrive", async () => {
  const { read, errors, gpu } = await run(-1, "lost");
  expect([read, errors]).toEqual([42, []]);
  expect(gpu.calls.names.length).toBeGreaterThan(10);
  expect(gpu.bytesInUse).toBe(0);
});

test("two runs make the same calls in the same order", async () => {
  expect((await run(-1, "slow")).gpu.calls.names).toEqual((await run(-1, "slow")).gpu.calls.names);
});

describe("trouble at any call", () => {
  test("slow: nothing changes but the time", async () => {
    const { names } = (await run(-1, "slow")).gpu.calls;
    for (const [call, name] of names.entries()) {
      const { read, errors } = await run(call, "slow");
      expect([name, read, errors]).toEqual([name, 42, []]);
    }
  });

  test("out of memory: ENOMEM or a way round it, and the bytes are right", async () => {
    const { names } = (await run(-1, "slow")).gpu.calls;
    for (const [call, name] of names.entries()) {
      const { read, errors } = await run(call, "out-of-memory");
      expect(
        errors.every((code) => code === "ENOMEM"),
        `${name}: ${errors}`,
      ).toBe(true);
      // Each dispatch was done or was not.
      expect([40, 41, 42], name).toContain(read);
    }
  });

  test("lost: ENODEV from then on, and a page that only the device had is an error, never old bytes", async () => {
    const { names } = (await run(-1, "slow")).gpu.calls;
    for (const [call, name] of names.entries()) {
      const { read, errors, gpu } = await run(call, "lost");
      expect(gpu.isLost).toBe(true);
      expect(
        errors.every((code) => ["ENODEV", "EHWPOISON"].includes(code)),
        `${name} (${call}): ${errors}`,
      ).toBe(true);
      expect([40, 42, "EHWPOISON"], `${name} (${call})`).toContain(read);
    }
  });
});

test("writeBuffer takes a part of a typed array, in its elements", () => {
  const gpu = new FakeGpu();
  const buffer = gpu.device.createBuffer({ size: 12, usage: 8 });
  gpu.device.queue.writeBuffer(buffer, 4, Uint32Array.of(1, 2, 3, 4), 1, 2);
  const [made] = gpu.buffers;
  expect([...new Uint32Array(made.bytes.buffer)]).toEqual([0, 2, 3]);
  expect(gpu.refused).toEqual([]);
});
