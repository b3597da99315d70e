/** One GPU device for a test file. */
import { afterAll, beforeAll } from "vitest";
import { type GpuHandle, openGpuDevice } from "../drivers/webgpu/gpu-handle.ts";
import type { AdapterReport } from "../platform/adapter.ts";
import { openDawn } from "../platform/node/dawn.ts";

/** A device of its own, for tests that destroy it. Call `end` in any case. */
export interface TestGpu {
  readonly gpu: GpuHandle;
  readonly adapter: AdapterReport;
  end(): void;
}

/** Opens a device on the adapter that a user gets here. */
export async function openTestGpu(label: string): Promise<TestGpu> {
  const opened = await openDawn();
  const gpu = await openGpuDevice(opened.adapter, label, opened);
  return {
    gpu,
    adapter: opened.report,
    end() {
      gpu.destroy();
      opened.close();
    },
  };
}

/** Opens a device before the file's tests and destroys it after them. Call it at the top of the file. */
export function useTestGpu(label: string): () => GpuHandle {
  let opened: TestGpu | undefined;
  beforeAll(async () => {
    opened = await openTestGpu(label);
  });
  afterAll(() => opened?.end());
  return () => {
    if (opened === undefined) {
      throw new Error("the test device is there only while tests run");
    }
    return opened.gpu;
  };
}
