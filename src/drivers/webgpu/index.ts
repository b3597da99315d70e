export type { BindTarget } from "./bind-plan.ts";
export type { CompileOptions, Workgroups } from "./compile.ts";
export { WebGpuDevice, type WebGpuDeviceOptions, type WebGpuDeviceStats } from "./device.ts";
export { WebGpuDriver, type WebGpuOpenOptions } from "./driver.ts";
export type { GpuHandle } from "./gpu-handle.ts";
export type { DispatchOptions, WebGpuKernel } from "./kernel.ts";
export type { ParamValue, ParamValues } from "./params.ts";
export type { BindingKind, KernelBinding, KernelReflection } from "./reflect.ts";
export type { DispatchStats } from "./submit.ts";
