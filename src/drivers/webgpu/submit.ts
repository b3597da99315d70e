/**
 * One dispatch: amdgpu's command submission for user memory, with migration for what the kernel writes.
 *
 *     extents for the ranges
 *     mmapLock, read
 *       leases in the way?  wait for them with nothing held, start over
 *       read ranges:    HmmRange.fault what the device has no valid copy of, take CPU write permission from it, upload
 *       written ranges: isolate the pages that are not the device's yet (migrate_vma), upload
 *       update lock
 *         read ranges still valid, and nothing else was invalidated?  else start over
 *         mark pages, submit, attach the fence, finish the migrations
 *
 * Pages are isolated last and never waited for while others are: two devices that want each other's pages would wait for
 * ever. I-GPU-5.
 */
import { isPromise, KernelError, throwIfAborted, trace, traceNow, traceOn } from "../../base/index.ts";
import type { AddressSpace } from "../../mm/index.ts";
import { lockdepTask } from "../../sync/index.ts";
import type { BindPlan } from "./bind-plan.ts";
import { commit, encodeDispatch } from "./commit.ts";
import type { Retry } from "./gather.ts";
import type { OwnedBuffer } from "./gpu-buffer.ts";
import type { BindKernel } from "./kernel.ts";
import type { DeviceMirror } from "./mirror.ts";
import { type PlacedRange, placeRanges } from "./place.ts";
import { RangeAttempt } from "./range-attempt.ts";
import { traceDispatch } from "./trace-gpu.ts";

/** What one dispatch took. */
export interface DispatchStats {
  readonly bytesToDevice: number;
  readonly pagesUploaded: number;
  /** Pages that became device-private. */
  readonly pagesMigrated: number;
  /** Tries that an invalidation or a lease undid. */
  readonly restarts: number;
  /** Times that the kernel was run, over some or all of its workgroups; 1 in bind mode. */
  readonly rounds: number;
  /** Device pages that rounds found missing; those that came beside them; frames that were given up for others. */
  readonly deviceFaults: number;
  readonly pagesPrefetched: number;
  /** Prefetched pages that were used before they were given up. */
  readonly prefetchHits: number;
  readonly evictions: number;
}

/** What bind mode, which raises no device fault, says of rounds. */
const ONE_ROUND = { rounds: 1, deviceFaults: 0, pagesPrefetched: 0, prefetchHits: 0, evictions: 0 } as const;

/** A checked dispatch. */
export interface DispatchJob {
  readonly kernel: BindKernel;
  readonly plan: BindPlan;
  readonly workgroups: readonly [number, number, number];
  readonly uniform: OwnedBuffer | undefined;
}

/** What a submission left behind. */
export interface Submitted {
  readonly finished: Promise<void>;
  readonly pagesMigrated: number;
}

interface DispatchWaits {
  readonly signal: AbortSignal | undefined;
  readonly timeoutMs: number;
}

/** What the tries of one dispatch have cost. */
interface Tally {
  bytesToDevice: number;
  pagesUploaded: number;
  restarts: number;
}

/** Prepares, submits and waits. See BindKernel.dispatch for the errors. */
export async function submitDispatch(job: DispatchJob, waits: DispatchWaits): Promise<DispatchStats> {
  const { kernel, plan } = job;
  const { device, name } = kernel;
  const since = traceNow();
  const tally: Tally = { bytesToDevice: 0, pagesUploaded: 0, restarts: 0 };
  const submitted = await withUser(plan.mm, name, () => lockdepTask(name, () => submitWithin(job, waits, tally)));
  device.counts.dispatches++;
  const submittedAt = traceNow();
  await device.untilFinished(device.gpu.lost.wait(submitted.finished, name, { signal: waits.signal }));
  const stats = { ...tally, ...ONE_ROUND, pagesMigrated: submitted.pagesMigrated };
  if (traceOn) {
    trace("gpu.fence", { device: device.label, why: "dispatch" }, submittedAt);
    traceDispatch(device, name, "bind", stats, since);
  }
  return stats;
}

/** The address space may be disposed of meanwhile: it exits when `body` is over. @throws KernelError ESRCH */
export async function withUser<T>(mm: AddressSpace | undefined, op: string, body: () => Promise<T>): Promise<T> {
  if (mm === undefined) {
    return body();
  }
  if (!mm.tryGetUsers()) {
    throw new KernelError("ESRCH", op, "the address space has exited: open a new one");
  }
  let result: T;
  try {
    result = await body();
  } catch (error) {
    // Why the dispatch failed says more than why the exit did.
    await Promise.resolve(mm.mmput()).catch(() => undefined);
    throw error;
  }
  const exited = mm.mmput();
  if (isPromise(exited)) {
    await exited;
  }
  return result;
}

/** Tries until the dispatch is submitted or its time is over. Nothing is held while it waits to try again. */
async function submitWithin(job: DispatchJob, { signal, timeoutMs }: DispatchWaits, tally: Tally): Promise<Submitted> {
  const { device, name } = job.kernel;
  const deadline = Date.now() + timeoutMs;
  for (;;) {
    const outcome = await takeTurn(job, signal, tally);
    if (!("why" in outcome)) {
      return outcome;
    }
    tally.restarts++;
    device.counts.restarts++;
    const left = deadline - Date.now();
    if (left <= 0 || !(await outcome.wait({ signal, timeoutMs: left }))) {
      throw new KernelError("EBUSY", name, `${outcome.why} (tried for ${timeoutMs} ms)`);
    }
  }
}

async function takeTurn(job: DispatchJob, signal: AbortSignal | undefined, tally: Tally): Promise<Submitted | Retry> {
  const { kernel, plan } = job;
  const { device } = kernel;
  using _turn = device.turn.tryWrite() ?? (await device.turn.write({ signal }));
  throwIfAborted(signal, kernel.name);
  device.assertOpen(kernel.name);
  const bytesBefore = device.transfer.stats.bytesToDevice;
  const pagesBefore = device.counts.pagesUploaded;
  try {
    if (plan.mm === undefined) {
      return submitWithoutMemory(job);
    }
    const mirror = await device.mirrorOf(plan.mm);
    const placed = await placeRanges(device, mirror, plan.ranges);
    throwIfAborted(signal, kernel.name);
    return await attempt(job, mirror, placed, signal);
  } finally {
    tally.bytesToDevice += device.transfer.stats.bytesToDevice - bytesBefore;
    tally.pagesUploaded += device.counts.pagesUploaded - pagesBefore;
  }
}

async function attempt(
  job: DispatchJob,
  mirror: DeviceMirror,
  placed: readonly PlacedRange[],
  signal: AbortSignal | undefined,
): Promise<Submitted | Retry> {
  const { kernel } = job;
  const { mm } = mirror;
  using lock = mm.mmapLock.tryRead() ?? (await mm.mmapLock.read({ signal }));
  using batch = kernel.device.transfer.begin({ op: kernel.name, signal });
  using tried = new RangeAttempt(kernel.device, { mirror, lock, signal }, placed);
  const retry = (await tried.gather(batch)) ?? (await tried.isolate(batch));
  if (retry !== undefined) {
    return retry;
  }
  using _update = mirror.update.tryLock() ?? (await mirror.update.lock({ signal }));
  return commit(job, tried, placed, batch);
}

/** A kernel that binds no memory at all. */
function submitWithoutMemory(job: DispatchJob): Submitted {
  using batch = job.kernel.device.transfer.begin({ op: job.kernel.name });
  encodeDispatch(job, [], batch.encoder);
  const finished = batch.submit();
  job.kernel.device.fences.record(finished);
  return { finished, pagesMigrated: 0 };
}
