/** What a written run of frames has to get before it is the device's own, and who has to be waited for. */
import { KernelError, PAGE_SIZE, type VirtAddr } from "../../../base/index.ts";
import {
  type MemoryObject,
  PageFlag,
  PTE_WRITE,
  poisonedError,
  preparePages,
  svmAddressOf,
  type Vma,
  VmFlags,
} from "../../../mm/index.ts";
import { PageState } from "../extent.ts";
import { isInPlace, type Retry, WRITABLE } from "../gather.ts";
import { readablePages, SUB_PAGES, writablePages } from "./page-entry.ts";
import type { Demand } from "./service.ts";
import type { SvmFrame } from "./svm-frame.ts";
import type { SvmTable } from "./svm-table.ts";

/** What isolated pages need first. */
export const WRITE_NEED = { cpu: false, write: true } as const;

/** Pages of one VMA that are to become the device's own. */
export interface Arrival {
  readonly vma: Vma;
  readonly addr: VirtAddr;
  /** Pages of the VMA's object. */
  readonly page: number;
  readonly end: number;
  /** Where they go, from CPU page `sub` of the first frame on. */
  readonly frames: readonly SvmFrame[];
  readonly sub: number;
}

/** CPU pages next to each other, counted from the first one of the frames. */
export interface SubRun {
  readonly from: number;
  readonly to: number;
}

/**
 * The CPU pages of frames that a demand brings copies of: all that kernels may read; when it is for writing, those that they
 * may only read, since the others become the device's own.
 */
export function copiedRuns(table: SvmTable, frames: readonly SvmFrame[], write: boolean): SubRun[] {
  const runs: SubRun[] = [];
  let from = 0;
  const total = frames.length * SUB_PAGES;
  for (let p = 0; p <= total; p++) {
    const access = p === total ? 0 : table.accessOf(frames[Math.floor(p / SUB_PAGES)].page);
    const wanted = readablePages(access) & ~(write ? writablePages(access) : 0);
    if ((wanted >> (p % SUB_PAGES)) & 1) {
      continue;
    }
    if (p > from) {
      runs.push({ from, to: p });
    }
    from = p + 1;
  }
  return runs;
}

/** What is mapped at an address that a kernel reached. @throws KernelError EFAULT nothing any more */
export function vmaAt(table: SvmTable, addr: VirtAddr): Vma {
  const vma = table.mm.vmas.find(addr);
  if (vma === undefined) {
    throw new KernelError(
      "EFAULT",
      "dispatch",
      `nothing is mapped at svm address ${svmAddressOf(addr, "memory")} any more`,
    );
  }
  return vma;
}

/**
 * Runs of one VMA's pages that are not the device's own yet, in frames next to each other in memory.
 * @throws KernelError EFAULT, EPERM a page that nobody may write any more
 */
export function* arrivals(
  table: SvmTable,
  frames: readonly SvmFrame[],
  inPlace?: (frame: SvmFrame, sub: number) => void,
): IterableIterator<Arrival> {
  const { mirror } = table;
  const { start } = frames[0];
  const total = frames.length * SUB_PAGES;
  const needed = (p: number) => {
    const frame = frames[Math.floor(p / SUB_PAGES)];
    const sub = p % SUB_PAGES;
    const isWritten = (writablePages(table.accessOf(frame.page)) >> sub) & 1;
    return isWritten && (frame.state[sub] & WRITABLE) !== WRITABLE ? frame : undefined;
  };
  for (let p = 0; p < total; ) {
    const frame = needed(p);
    if (frame === undefined) {
      p++;
      continue;
    }
    if (isInPlace(mirror, frame, p % SUB_PAGES, PTE_WRITE)) {
      inPlace?.(frame, p % SUB_PAGES);
      p++;
      continue;
    }
    const addr = (start + p * PAGE_SIZE) as VirtAddr;
    const vma = vmaAt(table, addr);
    if ((vma.flags & VmFlags.Write) === 0) {
      throw new KernelError(
        "EPERM",
        "dispatch",
        `the kernel stores to ${vma.name}, which is mapped read-only: map it writable`,
      );
    }
    const vmaEnd = Math.min(total, (vma.end - start) / PAGE_SIZE);
    let stop = p + 1;
    for (; stop < vmaEnd; stop++) {
      const next = needed(stop);
      if (next === undefined || isInPlace(mirror, next, stop % SUB_PAGES, PTE_WRITE)) {
        break;
      }
    }
    const page = vma.objectPage(addr);
    yield {
      vma,
      addr,
      page,
      end: page + (stop - p),
      frames: frames.slice(Math.floor(p / SUB_PAGES)),
      sub: p % SUB_PAGES,
    };
    p = stop;
  }
}

/** Calls `visit` for each CPU page of frames next to each other. */
export function forEachSub(
  frames: readonly SvmFrame[],
  sub: number,
  count: number,
  visit: (frame: SvmFrame, sub: number, index: number) => void,
): void {
  for (let i = 0; i < count; i++) {
    visit(frames[Math.floor((sub + i) / SUB_PAGES)], (sub + i) % SUB_PAGES, i);
  }
}

/** Calls `visit` for runs of pages, counted from the first, that the device has no valid copy of. */
export function forEachLacking(
  frames: readonly SvmFrame[],
  sub: number,
  count: number,
  visit: (from: number, to: number) => void,
): void {
  const lacks = (i: number) =>
    !(frames[Math.floor((sub + i) / SUB_PAGES)].state[(sub + i) % SUB_PAGES] & PageState.Valid);
  for (let i = 0; i < count; i++) {
    const from = i;
    while (i < count && lacks(i)) {
      i++;
    }
    if (i > from) {
      visit(from, i);
    }
  }
}

/** With nothing isolated any more: waits until the pages could be. */
export async function prepareAnew(object: MemoryObject, page: number, end: number): Promise<boolean> {
  if (object.refs === 0) {
    return true;
  }
  object.get();
  try {
    await preparePages(object, page, end, WRITE_NEED);
    return true;
  } finally {
    await object.put();
  }
}

/** A lease holds pages: nothing to do but wait for its end. */
export function leaseInTheWay(vma: Vma, page: number, end: number, mode: "r" | "rw"): Retry {
  const object: MemoryObject = vma.object;
  return {
    wait: (options) => object.wq.wait(() => !object.isPinned(page, end, mode), options),
    why: `a lease on ${vma.name}, which the kernel follows a pointer into, is still held: dispose it before the dispatch`,
  };
}

/** Longest run of device pages that is served as one range: 32 MiB. */
const MAX_RUN = 2048;

/** Demands for neighbouring pages, together. Every demanded page has a frame. */
export function runsOf(
  table: SvmTable,
  demands: readonly Demand[],
): { readonly frames: readonly SvmFrame[]; readonly write: boolean }[] {
  const sorted = [...demands].sort((a, b) => a.page - b.page);
  const runs: { readonly frames: SvmFrame[]; readonly write: boolean }[] = [];
  for (let i = 0; i < sorted.length; ) {
    const { write } = sorted[i];
    let stop = i + 1;
    while (
      stop < sorted.length &&
      stop - i < MAX_RUN &&
      sorted[stop].write === write &&
      sorted[stop].page === sorted[stop - 1].page + 1
    ) {
      stop++;
    }
    const frames = sorted.slice(i, stop).flatMap(({ page }) => table.frameAt(page) ?? []);
    if (frames.length > 0) {
      runs.push({ frames, write });
    }
    i = stop;
  }
  return runs;
}

/** A fault of a page that was lost with its device is no bad address. */
export function lostIn(table: SvmTable, start: VirtAddr, wanted: Uint32Array): KernelError | undefined {
  for (let p = 0; p < wanted.length; p++) {
    const addr = (start + p * PAGE_SIZE) as VirtAddr;
    const vma = wanted[p] === 0 ? undefined : table.mm.vmas.find(addr);
    if (vma !== undefined && vma.object.flagsOf(vma.objectPage(addr)) & PageFlag.Poisoned) {
      return poisonedError(vma.object, vma.objectPage(addr));
    }
  }
  return undefined;
}
