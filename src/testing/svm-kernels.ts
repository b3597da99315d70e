/** Kernels that follow pointers, for tests, and what they are run over. */
import { type Machine, type MachineOptions, openMachine } from "./machine.ts";

/** Adds 1 to each of `words` words from `data` on. */
export const SVM_INCREMENT = /* wgsl */ `
struct Params { data: u32, words: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3u) {
  if (id.x < params.words) { pm_store_u32(params.data + id.x, pm_load_u32(params.data + id.x) + 1u); }
}`;

/** `dst[i] = src[i]`. */
export const SVM_COPY = /* wgsl */ `
struct Params { src: u32, dst: u32, words: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3u) {
  if (id.x < params.words) { pm_store_u32(params.dst + id.x, pm_load_u32(params.src + id.x)); }
}`;

/** `out[0] += data[i]` for each word. */
export const SVM_SUM = /* wgsl */ `
struct Params { data: u32, words: u32, out: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3u) {
  if (id.x < params.words) { pm_atomic_add_u32(params.out, pm_load_u32(params.data + id.x)); }
}`;

/** One invocation sums a word of each of `pages` device pages. */
export const SVM_GREEDY = /* wgsl */ `
struct Params { data: u32, pages: u32, out: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@compute @workgroup_size(1) fn main() {
  var sum = 0u;
  for (var i = 0u; i < params.pages; i++) { sum += pm_load_u32(params.data + i * 4096u); }
  pm_store_u32(params.out, sum);
}`;

/** Bytes of a device page of svm mode. */
export const SVM_PAGE = 16_384;

/** A machine whose pool of frames holds `frames` device pages. */
export function svmMachine(frames?: number): Promise<Machine> {
  const options: MachineOptions = frames === undefined ? {} : { deviceMemory: (frames + 1) * SVM_PAGE };
  return openMachine(options);
}
