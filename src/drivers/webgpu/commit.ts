/** The last step of a dispatch: the checks and the submission, with nothing in between. */
import { migrateVmaFinalize } from "../../migrate/index.ts";
import { PageState } from "./extent.ts";
import { type ArrivingPages, type Attempt, type Retry, showInPlace, WRITABLE } from "./gather.ts";
import type { PlacedRange } from "./place.ts";
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
  tried: Attempt,
  placed: readonly PlacedRange[],
  batch: TransferBatch,
): Submitted | Retry {
  const { fences } = job.kernel.device;
  const hideReads = showReads(tried);
  let finished: Promise<void>;
  const complete = isComplete(tried, placed);
  try {
    if (complete) {
      encodeDispatch(job, placed, batch.encoder);
    }
    finished = batch.submit();
  } catch (error) {
    hideReads();
    throw error;
  }
  const serial = fences.record(finished);
  for (const { extent } of placed) {
    extent.lastSerial = serial;
  }
  const pagesMigrated = finishArrivals(tried);
  return complete
    ? { finished, pagesMigrated }
    : { wait: () => Promise.resolve(true), why: "its memory is being changed all the time" };
}

/** After the submission of their uploads: isolated pages become the device's own. Returns how many. */
export function finishArrivals(tried: Attempt): number {
  let pages = 0;
  for (const { migration, placed, from, to } of tried.arriving.splice(0)) {
    migrateVmaFinalize(migration, (i) => placed.extent.frame + from + i);
    placed.extent.own(from, to, migration.object, migration.page);
    pages += to - from;
  }
  return pages;
}

/**
 * Marks what was gathered for reading and is still what memory holds. Returns what takes that back, for when the uploads
 * are not submitted after all.
 *
 * Locks: the mirror's update lock.
 */
export function showReads(tried: Attempt): () => void {
  const stale = new Set(tried.ranges.filter(({ range }) => !range.valid).map((r) => r.placed));
  const fresh = tried.reads.filter(
    (run) => ![...stale].some((s) => s.extent === run.extent && s.from <= run.at && run.at < s.to),
  );
  for (const { extent, at, count } of fresh) {
    extent.update(at, at + count, PageState.Valid, 0);
  }
  for (const { extent, page } of tried.inPlace) {
    showInPlace(tried.mirror, extent, page);
  }
  return () => {
    for (const { extent, at, count } of fresh) {
      extent.update(at, at + count, 0, PageState.Valid);
    }
  };
}

/**
 * Whether the device has all pages that the dispatch reads and writes, those that are arriving included, and nothing that
 * was gathered has changed since.
 */
export function isComplete({ arriving, ranges }: Attempt, placed: readonly PlacedRange[]): boolean {
  if (ranges.some(({ range }) => !range.valid)) {
    return false;
  }
  return placed.every((range) => {
    const { extent, to } = range;
    if (!range.bound.write) {
      return extent.firstWithout(range.from, to, PageState.Valid) === to;
    }
    const mine = arriving.filter((a) => a.placed === range);
    let next = 0;
    for (let p = extent.firstWithout(range.from, to, WRITABLE); p < to; ) {
      next = firstEndingAfter(mine, next, p);
      if (next === mine.length || mine[next].from > p) {
        return false;
      }
      p = extent.firstWithout(mine[next].to, to, WRITABLE);
    }
    return true;
  });
}

function firstEndingAfter(runs: readonly ArrivingPages[], first: number, page: number): number {
  let i = first;
  while (i < runs.length && runs[i].to <= page) {
    i++;
  }
  return i;
}

/** Records the pass. */
export function encodeDispatch(job: DispatchJob, placed: readonly PlacedRange[], encoder: GPUCommandEncoder): void {
  const { kernel, uniform, workgroups } = job;
  const { compiled, device } = kernel;
  const groups = new Map<number, GPUBindGroupEntry[]>();
  for (const binding of compiled.reflection.bindings) {
    const entries = groups.get(binding.group) ?? [];
    groups.set(binding.group, entries);
    const range = placed.find((p) => p.bound.binding === binding);
    if (range !== undefined) {
      const { bound, extent } = range;
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
    const layout = compiled.groupLayouts[group];
    pass.setBindGroup(group, device.gpu.device.createBindGroup({ layout, entries }));
  }
  pass.dispatchWorkgroups(...workgroups);
  pass.end();
}
