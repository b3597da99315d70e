/** Bytes that come from far away are brought near before a round's memory is gathered: mmap and munmap need not wait for them. */
import { PAGE_SIZE, type VirtAddr } from "../../../base/index.ts";
import { forEachPaged, type MemoryObject, type Pager, type Vma } from "../../../mm/index.ts";
import { addrOfPage, DEVICE_PAGE } from "./page-entry.ts";
import type { Demand } from "./service.ts";
import type { SvmTable } from "./svm-table.ts";

interface Piece {
  readonly offset: number;
  length: number;
}

/**
 * Asks pagers for what the demands will read from them. Undefined when nothing has to come, or it is more than stays near.
 *
 * Locks: mmapLock, read; not while the promise is waited for. The promise never rejects.
 * @linux mm/filemap.c lock_folio_maybe_drop_mmap
 */
export function bringNear(table: SvmTable, demands: readonly Demand[]): Promise<unknown> | undefined {
  const far = farMappings(table, demands);
  if (far.length === 0) {
    return undefined;
  }
  const wanted = new Map<Pager, Piece[]>();
  for (const { page } of demands) {
    const start = addrOfPage(page);
    if (!table.isResident(page, false)) {
      for (const vma of far) {
        collect(vma, start, (start + DEVICE_PAGE) as VirtAddr, wanted);
      }
    }
  }
  const coming: Promise<void>[] = [];
  for (const [pager, pieces] of wanted) {
    const bytes = pieces.reduce((sum, { length }) => sum + length, 0);
    for (const { offset, length } of bytes <= (pager.nearBytes ?? 0) ? pieces : []) {
      const near = pager.near?.(offset, length);
      if (near !== undefined) {
        coming.push(near);
      }
    }
  }
  return coming.length === 0 ? undefined : Promise.all(coming);
}

function farMappings(table: SvmTable, demands: readonly Demand[]): Vma[] {
  const far: Vma[] = [];
  const pages = demands.map(({ page }) => page);
  const first = pages.reduce((a, b) => Math.min(a, b), Number.POSITIVE_INFINITY);
  const last = pages.reduce((a, b) => Math.max(a, b), -1);
  for (const vma of last < 0 ? [] : table.mm.vmas.values(addrOfPage(first))) {
    if (vma.start >= addrOfPage(last + 1)) {
      break;
    }
    if (isFar(vma.object)) {
      far.push(vma);
    }
  }
  return far;
}

function isFar(object: MemoryObject): boolean {
  for (let below: MemoryObject | undefined = object; below !== undefined; below = below.source) {
    if (below.pager?.near !== undefined) {
      return true;
    }
  }
  return false;
}

function collect(vma: Vma, start: VirtAddr, end: VirtAddr, wanted: Map<Pager, Piece[]>): void {
  const from = Math.max(vma.start, start);
  const to = Math.min(vma.end, end);
  if (from >= to) {
    return;
  }
  const page = vma.objectPage(from);
  const stop = Math.min(vma.object.pages, page + (to - from) / PAGE_SIZE);
  forEachPaged(vma.object, page, stop, (pager, offset, length) => {
    const pieces = wanted.get(pager) ?? [];
    wanted.set(pager, pieces);
    const before = pieces.at(-1);
    if (before !== undefined && before.offset + before.length === offset) {
      before.length += length;
    } else {
      pieces.push({ offset, length });
    }
  });
}
