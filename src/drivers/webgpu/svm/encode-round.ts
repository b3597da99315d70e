/** Records an svm kernel's passes. */
import type { GpuHandle } from "../gpu-handle.ts";
import type { PlacedRange } from "../place.ts";
import type { Compaction } from "./compaction.ts";
import type { CompiledSvmKernel } from "./compile-svm.ts";
import type { ControlBuffers } from "./control.ts";
import type { SvmDevice } from "./svm-device.ts";
import type { SvmTable } from "./svm-table.ts";

/** What all rounds of a dispatch bind. */
export interface RoundBindings {
  readonly svm: SvmDevice;
  readonly control: ControlBuffers;
  readonly table: SvmTable;
  /** The user's, by number. */
  readonly groups: readonly (GPUBindGroup | undefined)[];
  readonly compaction: Compaction;
}

/** The bind groups of the kernel's own variables. */
export function userGroups(
  { device, groups }: SvmDevice,
  { groupLayouts, runtimeGroup, reflection }: CompiledSvmKernel,
  uniform: GPUBuffer | undefined,
  placed: readonly PlacedRange[],
): (GPUBindGroup | undefined)[] {
  return groupLayouts.map((layout, group) => {
    const wanted = reflection.bindings.filter((binding) => binding.group === group);
    if (group === runtimeGroup || wanted.length === 0) {
      return undefined;
    }
    if (uniform !== undefined && wanted.length === 1 && wanted[0].binding === 0 && wanted[0].kind === "uniform") {
      return groups.of(layout, [uniform]);
    }
    const entries = wanted.flatMap((variable) => {
      const { binding } = variable;
      const range = placed.find(({ bound }) => bound.binding === variable);
      if (range !== undefined) {
        return { binding, resource: boundResource(range) };
      }
      return uniform === undefined ? [] : { binding, resource: { buffer: uniform } };
    });
    return device.gpu.device.createBindGroup({ label: layout.label, layout, entries });
  });
}

function boundResource({ bound, extent }: PlacedRange): GPUBindingResource {
  const offset = extent.bufferOffset + (bound.start - extent.start);
  return { buffer: extent.buffer.buffer, offset, size: bound.bytes };
}

/** A grid of at least `count` workgroups, each dimension within the limit. */
export function physicalGrid(gpu: GpuHandle, count: number): readonly [number, number, number] {
  const x = Math.min(count, gpu.limits.maxComputeWorkgroupsPerDimension);
  return [x, Math.ceil(count / x), 1];
}

/** Records a run of one of the kernel's pipelines. */
export function encodeKernel(
  { svm, control, table, groups }: RoundBindings,
  { groupLayouts, runtimeGroup }: CompiledSvmKernel,
  encoder: GPUCommandEncoder,
  pipeline: GPUComputePipeline,
  grid: readonly [number, number, number],
): void {
  const pass = encoder.beginComputePass({ label: pipeline.label });
  pass.setPipeline(pipeline);
  groups.forEach((group, index) => {
    if (group !== undefined) {
      pass.setBindGroup(index, group);
    }
  });
  const buffers = [control.buffer, svm.pageTableBuffer(table), svm.pool.handle.buffer, control.header];
  pass.setBindGroup(runtimeGroup, svm.groups.of(groupLayouts[runtimeGroup], buffers));
  pass.dispatchWorkgroups(...grid);
  pass.end();
}

/** Records the compaction of a round's report. */
export function encodeCompaction({ svm, control, table, compaction }: RoundBindings, encoder: GPUCommandEncoder): void {
  const { layout, pipeline } = compaction;
  const pass = encoder.beginComputePass({ label: "pagemirror compaction" });
  pass.setPipeline(pipeline);
  pass.setBindGroup(0, svm.groups.of(layout, [control.buffer, control.header]));
  pass.dispatchWorkgroups(compaction.workgroupsFor(table.pages));
  pass.end();
}
