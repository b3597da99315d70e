/** From the bytes of an object's pages to upload runs. */
import { BugError, isPromise, type MaybePromise, PAGE_SIZE, traceNow, traceOn } from "../../base/index.ts";
import {
  type AddressSpace,
  isZeroPage,
  type MemoryObject,
  PageFlag,
  readPages,
  type Transit,
  windowEnd,
} from "../../mm/index.ts";
import type { WebGpuDevice } from "./device.ts";
import { type Extent, PageState } from "./extent.ts";
import type { FenceTimeline } from "./fence.ts";
import { traceUploads } from "./trace-gpu.ts";
import type { TransferBatch, UploadRun } from "./transfer-batch.ts";
import { WindowView } from "./window-view.ts";

/** Pages of an extent that need their object's bytes. */
export interface PageRun {
  readonly extent: Extent;
  /** First page of the extent, and how many. */
  readonly at: number;
  readonly count: number;
  readonly object: MemoryObject;
  /** Page of the object at `at`. */
  readonly page: number;
  readonly transit: Transit;
}

/** The upload of pages `[page, end)` of an extent. */
export interface PageUpload extends UploadRun {
  readonly extent: Extent;
  readonly page: number;
  readonly end: number;
}

/** What has to be done for a set of page runs. */
export interface UploadPlan {
  readonly uploads: PageUpload[];
  /** Zero pages over bytes that may differ: cleared on the device, no bytes move. */
  readonly clears: { readonly buffer: GPUBuffer; readonly offset: number; readonly bytes: number }[];
  pages: number;
  readonly fences: FenceTimeline;
  readonly window: WindowView;
}

/** Records the upload of pages on the batch. @throws KernelError what reading them throws; ENODEV; EINTR; ENOMEM */
export async function uploadRuns(
  device: WebGpuDevice,
  mm: AddressSpace,
  runs: readonly PageRun[],
  batch: TransferBatch,
): Promise<void> {
  if (runs.length === 0) {
    return;
  }
  const plan: UploadPlan = { uploads: [], clears: [], pages: 0, fences: device.fences, window: new WindowView() };
  for (const run of runs) {
    planUpload(plan, run);
  }
  const since = traceNow();
  const uploaded = batch.upload(plan.uploads);
  if (isPromise(uploaded)) {
    await uploaded;
  }
  // Other pages than those; last, because what is recorded before an upload keeps it from being made at once.
  for (const { buffer, offset, bytes } of plan.clears) {
    batch.clear(buffer, offset, bytes);
  }
  device.counts.pagesUploaded += plan.pages;
  if (traceOn) {
    traceUploads(device, mm, plan, since);
  }
}

/** Adds one run to the plan: pages that are known to be zero are cleared, or left alone in a buffer that never was touched. */
export function planUpload(plan: UploadPlan, run: PageRun): void {
  const { extent, at, count, object, page, transit } = run;
  for (let i = 0; i < count; ) {
    const place = placeOf(object, page + i, transit);
    const limit = place === "window" ? windowEnd(page + i, page + count) - page : count;
    let stop = i + 1;
    while (stop < limit && placeOf(object, page + stop, transit) === place) {
      stop++;
    }
    if (place === "zero") {
      planClears(plan, extent, at + i, at + stop);
    } else {
      // Before the first byte is on its way: what a failed upload leaves behind must be known as possibly not zero.
      extent.update(at + i, at + stop, PageState.Touched, 0);
      plan.uploads.push(uploadRun(plan, run, i, stop, place === "window"));
      plan.pages += stop - i;
    }
    i = stop;
  }
}

/** Where a page's bytes are to be had: nowhere, in the CPU window as they are, or wherever reading finds them. */
function placeOf(object: MemoryObject, page: number, transit: Transit): "zero" | "window" | "elsewhere" {
  const flags = object.flagsOf(page) & (transit === "isolated" ? ~PageFlag.Busy : ~0);
  if (flags & (PageFlag.Busy | PageFlag.Device | PageFlag.Poisoned)) {
    return "elsewhere";
  }
  if (flags & PageFlag.Uptodate) {
    return "window";
  }
  return isZeroPage(object, page, transit) ? "zero" : "elsewhere";
}

function planClears(plan: UploadPlan, extent: Extent, page: number, end: number): void {
  for (let p = extent.firstWith(page, end, PageState.Touched); p < end; ) {
    const stop = Math.min(end, extent.firstWithout(p, end, PageState.Touched));
    plan.clears.push({ buffer: extent.buffer.buffer, offset: extent.offsetOf(p), bytes: (stop - p) * PAGE_SIZE });
    p = extent.firstWith(stop, end, PageState.Touched);
  }
}

function uploadRun(plan: UploadPlan, run: PageRun, from: number, to: number, inWindow: boolean): PageUpload {
  const { extent, at, object, page, transit } = run;
  const window = inWindow ? object.windows.span(page + from, page + to) : undefined;
  return {
    buffer: extent.buffer.buffer,
    offset: extent.offsetOf(at + from),
    bytes: (to - from) * PAGE_SIZE,
    fill: window === undefined ? reader(object, page + from, transit) : notAsked,
    idle: plan.fences.isDone(extent.lastSerial),
    source: window && plan.window.of(window.buffer),
    sourceOffset: window?.byteOffset ?? 0,
    extent,
    page: at + from,
    end: at + to,
  };
}

/** The `fill` of a run whose bytes are wherever reading finds them. */
function reader(object: MemoryObject, page: number, transit: Transit): UploadRun["fill"] {
  return (dst, byte) => readBytes(object, page * PAGE_SIZE + byte, dst, transit);
}

/** The `fill` of a run whose bytes are copied from their window. */
function notAsked(): never {
  throw new BugError("I-GPU-2", "a run with a source is filled");
}

/** {@link readPages} from any byte on: staging may end within a page. */
export function readBytes(object: MemoryObject, offset: number, dst: Uint8Array, transit: Transit): MaybePromise<void> {
  const first = Math.floor(offset / PAGE_SIZE);
  const last = Math.ceil((offset + dst.length) / PAGE_SIZE);
  if (offset % PAGE_SIZE === 0 && dst.length % PAGE_SIZE === 0) {
    return readPages(object, first, last, dst, transit);
  }
  const whole = new Uint8Array((last - first) * PAGE_SIZE);
  const read = readPages(object, first, last, whole, transit);
  const from = offset - first * PAGE_SIZE;
  const copy = () => dst.set(whole.subarray(from, from + dst.length));
  return isPromise(read) ? read.then(copy) : copy();
}
