export { CONFORMANCE_TESTS, conformance } from "./conformance.ts";
export type { ConformanceDevice, ConformanceDriver, ConformanceOptions, TestFunction } from "./driver.ts";
export type { GpuTrouble } from "./fake-gpu/calls.ts";
export type { FakeDispatch, FakeKernel } from "./fake-gpu/commands.ts";
export { FakeGpu, type FakeGpuOptions } from "./fake-gpu/gpu.ts";
export { failEachAllocation, withoutLeaks } from "./leaks.ts";
export { drawEntries, drawMaps } from "./pages.ts";
