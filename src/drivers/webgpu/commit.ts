/** The last step of a dispatch: the checks and the submission, with nothing in between. */
import { bindVariables } from "./bind-groups.ts";
import { type Retry, TRY_AGAIN } from "./gather.ts";
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
  return complete ? { finished, pagesMigrated } : TRY_AGAIN;
}

/** Records the pass. */
export function encodeDispatch(job: DispatchJob, placed: readonly PlacedRange[], encoder: GPUCommandEncoder): void {
  const { kernel, uniform, workgroups } = job;
  const { compiled, device } = kernel;
  const pass = encoder.beginComputePass({ label: kernel.name });
  pass.setPipeline(compiled.pipeline);
  for (let group = 0; group < compiled.groupLayouts.length; group++) {
    const bound = bindVariables(device, compiled, group, uniform?.buffer, placed);
    if (bound !== undefined) {
      pass.setBindGroup(group, bound);
    }
  }
  pass.dispatchWorkgroups(...workgroups);
  pass.end();
}
