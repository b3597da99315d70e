/** The kernel that turns the fault bitmaps of a round into a list. */
import { traceNow, traceOn } from "../../../base/index.ts";
import type { GpuHandle } from "../gpu-handle.ts";
import { traceCompile } from "../trace-gpu.ts";
import { ShaderStage } from "../usage.ts";
import { Control, FaultBit, HEADER_TYPE, headerWord } from "./control-layout.ts";

const WORKGROUP = 64;
/** Workgroups that run for however few pages: they share the workgroups of the round, too. */
const LEAST = 16;

const head = (word: number) => headerWord(word, "head");

/**
 * Its bindings are the control buffer and the header. An invocation takes words of the fault bitmaps, 32 pages each, and workgroups that
 * ran: those with a bit set for one of their invocations go to list-out.
 */
const COMPACTION_WGSL = `
@group(0) @binding(0) var<storage, read_write> ctl: array<atomic<u32>>;
@group(0) @binding(1) var<uniform> head: ${HEADER_TYPE};

fn faults(word: u32) {
  let readAt = ${head(Control.ReadBits)} + word;
  let writeAt = ${head(Control.WriteBits)} + word;
  let reads = atomicLoad(&ctl[readAt]);
  let writes = atomicLoad(&ctl[writeAt]);
  var pending = reads | writes;
  if (pending == 0u) { return; }
  let base = ${head(Control.FaultList)};
  let capacity = ${head(Control.FaultCapacity)};
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

fn settle(number: u32, invocations: u32) {
  let fresh = ${head(Control.Mode)} == 0u;
  var workgroup = ${head(Control.First)} + number;
  if (!fresh) { workgroup = atomicLoad(&ctl[${head(Control.ListIn)} + number]); }
  let first = (workgroup - ${head(Control.WindowFirst)}) * invocations;
  let base = ${head(Control.DoneBase)};
  var open = 0u;
  for (var i = first; i < first + invocations; ) {
    let bits = min(32u - (i & 31u), first + invocations - i);
    open += countOneBits(extractBits(atomicLoad(&ctl[base + (i >> 5u)]), i & 31u, bits));
    i += bits;
  }
  if (open == 0u) {
    atomicAdd(&ctl[${Control.Completed}], 1u);
    return;
  }
  let at = atomicAdd(&ctl[${Control.ListOutCount}], 1u);
  atomicStore(&ctl[${head(Control.ListOut)} + at], workgroup);
  if (fresh && open < invocations) { atomicAdd(&ctl[${Control.DoneInvocations}], invocations - open); }
}

@compute @workgroup_size(${WORKGROUP})
fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) grid: vec3u) {
  let step = grid.x * ${WORKGROUP}u;
  for (var word = id.x; word * 32u < ${head(Control.Pages)}; word += step) { faults(word); }
  let invocations = ${head(Control.Invocations)};
  if (invocations == 0u) { return; }
  for (var number = id.x; number < ${head(Control.Count)}; number += step) { settle(number, invocations); }
}
`;

/** The compaction kernel of a device. */
export interface Compaction {
  readonly pipeline: GPUComputePipeline;
  /** Group 0: binding 0 is the control buffer, 1 the header. */
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
  const since = traceNow();
  const label = "pagemirror compaction";
  const layout = device.createBindGroupLayout({
    label,
    entries: [
      { binding: 0, visibility: ShaderStage.Compute, buffer: { type: "storage" } },
      { binding: 1, visibility: ShaderStage.Compute, buffer: { type: "uniform" } },
    ],
  });
  const pipeline = await gpu.lost.wait(
    device.createComputePipelineAsync({
      label,
      layout: device.createPipelineLayout({ label, bindGroupLayouts: [layout] }),
      compute: { module: device.createShaderModule({ label, code: COMPACTION_WGSL }), entryPoint: "main" },
    }),
    label,
  );
  if (traceOn) {
    traceCompile(gpu, label, "compaction", since);
  }
  return { pipeline, layout, workgroupsFor: (pages) => Math.max(LEAST, Math.ceil(pages / (32 * WORKGROUP))) };
}
