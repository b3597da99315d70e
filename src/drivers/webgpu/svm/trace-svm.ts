/** Sending events about kernels that follow pointers. Called only while somebody listens. */
import { PAGE_SIZE, trace, traceIdOf, traceNow, traceUpload, vpnOf } from "../../../base/index.ts";
import type { WebGpuDevice } from "../device.ts";
import { traceMemory } from "../trace-gpu.ts";
import { decodeFaults, type RoundReport } from "./control.ts";
import { addrOfPage, SUB_PAGES } from "./page-entry.ts";
import type { SvmFrame } from "./svm-frame.ts";
import type { SvmTable } from "./svm-table.ts";

/** Sends a round, and the pages that it missed. */
export function traceRound(
  device: WebGpuDevice,
  table: SvmTable,
  round: { readonly kernel: string; readonly workgroups: number },
  report: RoundReport,
  since: number,
): void {
  const faults = decodeFaults(report.faults);
  const { completed } = report;
  trace("gpu.round", { device: device.label, ...round, completed, faults: faults.length }, since);
  const space = traceIdOf(table.mm);
  for (let i = 0; i < faults.length; ) {
    const stop = endOfRun(
      faults,
      i,
      (fault) => fault.page,
      faults[i].write,
      (fault) => fault.write,
    );
    const { page, write } = faults[i];
    const [start, end] = [addrOfPage(page), addrOfPage(page + (stop - i))];
    trace("gpu.fault", { device: device.label, space, start, end, write, pages: (stop - i) * SUB_PAGES });
    i = stop;
  }
  traceMemory(device);
}

/** Sends what became of a round's faults. */
export function traceService(
  { label: device }: WebGpuDevice,
  table: SvmTable,
  { ranges, pagesUploaded: pages }: { readonly ranges: number; readonly pagesUploaded: number },
  faults: number,
  since: number,
): void {
  trace("gpu.coalesce", { device, faults, ranges });
  trace("gpu.service", { device, space: traceIdOf(table.mm), faults, pages, retry: pages === 0 }, since);
}

function endOfRun<T, K>(
  items: readonly T[],
  from: number,
  pageOf: (item: T) => number,
  kind: K,
  kindOf: (item: T) => K,
): number {
  let stop = from + 1;
  while (stop < items.length && pageOf(items[stop]) === pageOf(items[stop - 1]) + 1 && kindOf(items[stop]) === kind) {
    stop++;
  }
  return stop;
}

/** Sends device pages that come beside those that were missed; ascending. */
export function tracePrefetch(device: WebGpuDevice, table: SvmTable, pages: readonly number[]): void {
  for (let i = 0; i < pages.length; ) {
    const stop = endOfRun(
      pages,
      i,
      (page) => page,
      0,
      () => 0,
    );
    const [start, end] = [addrOfPage(pages[i]), addrOfPage(pages[i] + (stop - i))];
    const space = traceIdOf(table.mm);
    trace("gpu.prefetch", { device: device.label, space, start, end, pages: (stop - i) * SUB_PAGES });
    i = stop;
  }
}

/** Sends frames that were given up; `bytes` of them came home. */
export function traceEvictedFrames(table: SvmTable, frames: readonly SvmFrame[], bytes: number, since: number): void {
  const sorted = [...frames].sort((a, b) => a.page - b.page);
  const [device, space] = [table.mirror.hmm.ops.name, traceIdOf(table.mm)];
  let from = since;
  for (let i = 0; i < sorted.length; ) {
    const stop = endOfRun(
      sorted,
      i,
      (frame) => frame.page,
      0,
      () => 0,
    );
    const pages = (stop - i) * SUB_PAGES;
    const share = Math.round((bytes * (stop - i)) / sorted.length / PAGE_SIZE) * PAGE_SIZE;
    const [{ start }, { end }] = [sorted[i], sorted[stop - 1]];
    trace("gpu.evict", { device, space, start, end, pages, bytes: share }, from);
    from = 0;
    i = stop;
  }
}

/** Sends runs of CPU pages that are on their way to frames. Each has its share of the time that all of them took. */
export function traceFrameUpload(
  runs: readonly { readonly frame: SvmFrame; readonly sub: number; readonly pages: number }[],
  since: number,
): void {
  const now = traceNow();
  let at = since === 0 ? now : since;
  const perPage = (now - at) / runs.reduce((sum, { pages }) => sum + pages, 0);
  for (const { frame, sub, pages } of runs) {
    const { mirror, mm } = frame.table;
    const vpn = vpnOf(frame.addrOf(sub));
    const next = at + pages * perPage;
    traceUpload(mirror.hmm.ops.name, traceIdOf(mm), vpn, vpn + pages, at, next);
    at = next;
  }
}
