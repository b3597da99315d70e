/** The kernel that turns the fault bitmaps of a round into a list. */
import type { GpuHandle } from "../gpu-handle.ts";
import { ShaderStage } from "../usage.ts";
import { Control, FaultBit } from "./control-layout.ts";

const WORKGROUP = 64;

/** Its only binding is the control buffer. An invocation takes one word of each bitmap: 32 pages. */
export const COMPACTION_WGSL = `
@group(0) @binding(0) var<storage, read_write> ctl: array<atomic<u32>>;

@compute @workgroup_size(${WORKGROUP})
fn main(@builtin(global_invocation_id) id: vec3u) {
  let word = id.x;
  if (word * 32u >= atomicLoad(&ctl[${Control.Pages}])) { return; }
  let readAt = atomicLoad(&ctl[${Control.ReadBits}]) + word;
  let writeAt = atomicLoad(&ctl[${Control.WriteBits}]) + word;
  let reads = atomicLoad(&ctl[readAt]);
  let writes = atomicLoad(&ctl[writeAt]);
  var pending = reads | writes;
  if (pending == 0u) { return; }
  let base = atomicLoad(&ctl[${Control.FaultList}]);
  let capacity = atomicLoad(&ctl[${Control.FaultCapacity}]);
  var at = atomicAdd(&ctl[${Control.FaultCount}], countOneBits(pending));
  var listed = 0u;
  // What finds no room keeps its bits, for a later round.
  while (pending != 0u && at < capacity) {
    let bit = countTrailingZeros(pending);
    let mask = 1u << bit;
    let how = select(0u, ${FaultBit.Read}u, (reads & mask) != 0u) | select(0u, ${FaultBit.Write}u, (writes & mask) != 0u);
    atomicStore(&ctl[base + at], ((word * 32u + bit) << ${FaultBit.PageShift}u) | how);
    listed |= mask;
    pending &= ~mask;
    at++;
  }
  atomicStore(&ctl[readAt], reads & ~listed);
  atomicStore(&ctl[writeAt], writes & ~listed);
}
`;

/** The compaction kernel of a device. */
export interface Compaction {
  readonly pipeline: GPUComputePipeline;
  /** Group 0: binding 0 is the control buffer. */
  readonly layout: GPUBindGroupLayout;
  /** How many workgroups to dispatch for a page table of so many pages. */
  workgroupsFor(pages: number): number;
}

const compactions = new WeakMap<GPUDevice, Promise<Compaction>>();

/** The compaction kernel, made once for a device. Errors: ENODEV when the device is lost. */
export function compactionPipeline(gpu: GpuHandle): Promise<Compaction> {
  const { device } = gpu;
  const made = compactions.get(device) ?? make(gpu);
  compactions.set(device, made);
  return made;
}

async function make(gpu: GpuHandle): Promise<Compaction> {
  const { device } = gpu;
  const label = "pagemirror compaction";
  const layout = device.createBindGroupLayout({
    label,
    entries: [{ binding: 0, visibility: ShaderStage.Compute, buffer: { type: "storage" } }],
  });
  const pipeline = await gpu.lost.wait(
    device.createComputePipelineAsync({
      label,
      layout: device.createPipelineLayout({ label, bindGroupLayouts: [layout] }),
      compute: { module: device.createShaderModule({ label, code: COMPACTION_WGSL }), entryPoint: "main" },
    }),
    label,
  );
  return { pipeline, layout, workgroupsFor: (pages) => Math.max(1, Math.ceil(pages / (32 * WORKGROUP))) };
}
