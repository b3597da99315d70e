/** The last step of a dispatch: the checks and the submission, with nothing in between. */
import type { Retry } from "./gather.ts";
import type { BindKernel, BoundBuffer } from "./kernel.ts";
import type { PlacedRange } from "./place.ts";
import type { RangeAttempt } from "./range-attempt.ts";
import type { DispatchJob, Submitted } from "./submit.ts";
import type { TransferBatch } from "./transfer-batch.ts";

/**
 * In one run to completion: an invalidation comes either before the checks, which see it, or after the fence, for which
 * it waits. Uploads are submitted even when the dispatch is not: what they brought stays.
 *
 * Locks: the mirror's update lock.
 * @throws KernelError ENODEV, EINTR; no page is marked and nothing was submitted then
 */
export function commit(
  job: DispatchJob,
  tried: RangeAttempt,
  placed: readonly PlacedRange[],
  batch: TransferBatch,
): Submitted | Retry {
  const { fences } = job.kernel.device;
  let finished: Promise<void>;
  const { complete, undo } = tried.commit();
  try {
    if (complete) {
      encodeDispatch(job, placed, batch.encoder);
    }
    finished = batch.submit();
  } catch (error) {
    undo();
    throw error;
  }
  const pagesMigrated = tried.submitted(fences.record(finished));
  return complete
    ? { finished, pagesMigrated }
    : { wait: () => Promise.resolve(true), why: "its memory is being changed all the time" };
}

/** Records the pass. */
export function encodeDispatch(job: DispatchJob, placed: readonly PlacedRange[], encoder: GPUCommandEncoder): void {
  const { kernel, uniform, workgroups } = job;
  const { compiled, device } = kernel;
  const groups = new Map<number, BoundBuffer[]>();
  for (const binding of compiled.reflection.bindings) {
    const entries = groups.get(binding.group) ?? [];
    groups.set(binding.group, entries);
    const range = placed.find((p) => p.bound.binding === binding);
    if (range !== undefined) {
      const { bound, extent } = range;
      if (bound.write) {
        device.gpu.direct?.noteGpuWrite(extent.buffer.buffer);
      }
      const offset = extent.bufferOffset + (bound.start - extent.start);
      entries.push({
        binding: binding.binding,
        resource: { buffer: extent.buffer.buffer, offset, size: bound.bytes },
      });
    } else if (uniform !== undefined) {
      entries.push({ binding: binding.binding, resource: { buffer: uniform.buffer } });
    }
  }
  const pass = encoder.beginComputePass({ label: kernel.name });
  pass.setPipeline(compiled.pipeline);
  for (const [group, entries] of groups) {
    pass.setBindGroup(group, bindGroup(kernel, group, entries));
  }
  pass.dispatchWorkgroups(...workgroups);
  pass.end();
}

/** Mostly a kernel is bound to the same buffers again. */
function bindGroup({ boundGroups, compiled, device }: BindKernel, group: number, entries: BoundBuffer[]): GPUBindGroup {
  const last = boundGroups.get(group);
  if (last?.entries.every((entry, i) => isSame(entry.resource, entries[i].resource))) {
    return last.group;
  }
  const layout = compiled.groupLayouts[group];
  const made = device.gpu.device.createBindGroup({ label: layout.label, layout, entries });
  boundGroups.set(group, { group: made, entries });
  return made;
}

function isSame(a: GPUBufferBinding, b: GPUBufferBinding): boolean {
  return a.buffer === b.buffer && a.offset === b.offset && a.size === b.size;
}
