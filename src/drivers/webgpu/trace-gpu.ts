/** Sending events about a device. Called only while somebody listens. */
import { trace, traceIdOf, traceNow, traceUpload, vpnOf } from "../../base/index.ts";
import type { AddressSpace } from "../../mm/index.ts";
import type { WebGpuDevice } from "./device.ts";
import type { Extent } from "./extent.ts";
import type { GpuHandle } from "./gpu-handle.ts";
import type { UploadPlan } from "./page-upload.ts";
import type { DispatchStats } from "./submit.ts";

/** Sends how much of the device's memory is used, and what went over the bus. */
export function traceMemory(device: WebGpuDevice): void {
  const { resident, dirty, free } = device.pageCounts();
  const { bytesToDevice: toDevice, bytesToHost: toHost } = device.transfer.stats;
  trace("gpu.memory", { device: device.label, resident, dirty, free, toDevice, toHost });
}

/** Sends that a pipeline was made; `pipeline` says which of a kernel's. */
export function traceCompile({ label: device }: GpuHandle, kernel: string, pipeline: string, since: number): void {
  trace("gpu.compile", { device, kernel, pipeline }, since);
}

/** Sends a dispatch that is over. */
export function traceDispatch(
  device: WebGpuDevice,
  kernel: string,
  mode: "bind" | "svm",
  { bytesToDevice: bytes, pagesUploaded: pages, restarts, rounds }: DispatchStats,
  since: number,
): void {
  trace("gpu.dispatch", { device: device.label, kernel, mode, bytes, pages, restarts, rounds }, since);
  traceMemory(device);
}

/** Sends the pages that a plan uploads, neighbours together. Each run has its share of the time that all of them took. */
export function traceUploads(device: WebGpuDevice, mm: AddressSpace, plan: UploadPlan, since: number): void {
  const space = traceIdOf(mm);
  const { label } = device;
  const now = traceNow();
  let at = since === 0 ? now : since;
  const perPage = (now - at) / plan.pages;
  for (const { extent, page, end: stop } of plan.uploads) {
    const vpn = vpnOf(extent.start) + page;
    const next = at + (stop - page) * perPage;
    traceUpload(label, space, vpn, vpn + (stop - page), at, next);
    at = next;
  }
}

/** Sends that an extent or a frame was given up. */
export function traceEvict(device: string, mm: AddressSpace, extent: Extent, bytes: number, since: number): void {
  const { start, end, pages } = extent;
  trace("gpu.evict", { device, space: traceIdOf(mm), start, end, pages, bytes }, since);
}
