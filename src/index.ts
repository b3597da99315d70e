/** PageMirror: shared virtual memory for JavaScript and WebGPU, in the design of Linux HMM. */
export * from "./base/index.ts";
export * from "./drivers/webgpu/index.ts";
export * from "./hmm/index.ts";
export * from "./mm/index.ts";
export * from "./mmu-notifier/index.ts";
export * from "./platform/http/index.ts";
export { SoftwareMmu } from "./platform/software/cpu-mmu.ts";
