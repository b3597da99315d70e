/** Records an svm kernel's passes. */
import { bindVariables } from "../bind-groups.ts";
import type { WebGpuDevice } from "../device.ts";
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
  device: WebGpuDevice,
  compiled: CompiledSvmKernel,
  uniform: GPUBuffer | undefined,
  placed: readonly PlacedRange[],
): (GPUBindGroup | undefined)[] {
  return compiled.groupLayouts.map((_, group) =>
    group === compiled.runtimeGroup ? undefined : bindVariables(device, compiled, group, uniform, placed),
  );
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
  const runtime = svm.device.groups
    .begin()
    .add(0, control.buffer)
    .add(1, svm.pageTableBuffer(table))
    .add(2, svm.pool.handle.buffer)
    .add(3, control.header)
    .end(groupLayouts[runtimeGroup]);
  pass.setBindGroup(runtimeGroup, runtime);
  pass.dispatchWorkgroups(...grid);
  pass.end();
}

/** Records the compaction of a round's report. */
export function encodeCompaction({ svm, control, table, compaction }: RoundBindings, encoder: GPUCommandEncoder): void {
  const { layout, pipeline } = compaction;
  const pass = encoder.beginComputePass({ label: "pagemirror compaction" });
  pass.setPipeline(pipeline);
  pass.setBindGroup(0, svm.device.groups.begin().add(0, control.buffer).add(1, control.header).end(layout));
  pass.dispatchWorkgroups(compaction.workgroupsFor(table.pages));
  pass.end();
}
