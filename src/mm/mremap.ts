/** mremap: a mapping grows, shrinks or moves. */
import {
  formatAddr,
  formatRange,
  KernelError,
  mustAddLength,
  PAGE_SIZE,
  pageAlignUp,
  type VirtAddr,
  vpnOf,
} from "../base/index.ts";
import type { AddressSpace } from "./address-space.ts";
import { Mapping } from "./mapping.ts";
import { MemoryObject } from "./memory-object.ts";
import { findFreeRange } from "./mmap.ts";
import { unmapRange } from "./munmap.ts";
import { assertLength, pageRange } from "./range-args.ts";
import { announce } from "./rmap.ts";
import { Vma } from "./vma.ts";
import { chargeCuts, cutAround, linkVma, mergeAround, pick, unlinkVma, zapEntries } from "./vma-ops.ts";
import { releaseObjects } from "./writeback.ts";

export interface MremapOptions {
  /** It may get another address when it cannot grow in place. Default true. @linux MREMAP_MAYMOVE */
  readonly mayMove?: boolean | undefined;
  /** Move it here; what is mapped there goes. @linux MREMAP_FIXED */
  readonly addr?: number | undefined;
}

/**
 * Resizes and, when it has to or is told to, moves the mapping at `[start, start + oldLength)`. Growth of private memory is
 * zeros; a shared mapping sees more of its object.
 *
 * Locks: takes mmapLock, write.
 * @throws KernelError EINVAL bad arguments, or old and new place overlap; EFAULT the old range is not one mapping; ENOMEM it
 *   cannot grow in place and may not move, or out of memory; EBUSY a lease holds pages that have to move to a longer
 *   window; ESRCH
 * @linux mm/mremap.c mremap
 */
export async function mremap(
  mm: AddressSpace,
  start: number,
  oldLength: number,
  newLength: number,
  options: MremapOptions = {},
): Promise<Mapping> {
  const op = "mremap";
  const old = pageRange(op, start, oldLength);
  assertLength(op, newLength);
  const newBytes = pageAlignUp(newLength);
  using _lock = await mm.mmapLock.write();
  mm.assertAlive(op);
  const vma = mm.vmas.find(old.start);
  if (vma === undefined || vma.end < old.end) {
    throw new KernelError("EFAULT", op, `${formatRange(old)} is not one mapping: remap the parts one by one`);
  }
  const target = options.addr === undefined ? undefined : pageRange(op, options.addr, newLength);
  if (target !== undefined && target.start < old.end && old.start < target.end) {
    throw new KernelError("EINVAL", op, `old and new place overlap at ${formatAddr(target.start)}`);
  }
  const oldBytes = old.end - old.start;
  const keep = Math.min(oldBytes, newBytes);
  const growth = newBytes - keep;
  if (target === undefined && growth === 0) {
    if (newBytes < oldBytes) {
      const from = mustAddLength(old.start, newBytes);
      chargeCuts(mm, from, old.end);
      await releaseObjects(await unmapRange(mm, from, old.end));
    }
    return new Mapping(mm, old.start, newLength, vma.name);
  }
  const next = mm.vmas.findNext(old.end);
  const roomEnd = mustAddLength(old.start, newBytes);
  const inPlace = target === undefined && vma.end === old.end && (next === undefined || next.start >= roomEnd);
  const to = inPlace ? old.start : (target?.start ?? findFreeRange(mm, newBytes));
  if (to === undefined || (!inPlace && target === undefined && options.mayMove === false)) {
    throw new KernelError("ENOMEM", op, `no room for ${newBytes} bytes at ${formatAddr(old.start)}: allow it to move`);
  }
  mm.memory.charge("vma");
  mm.memory.charge("vma");
  chargeCuts(mm, old.start, old.end);
  const tail = growth === 0 ? undefined : tailObject(mm, vma, old.end, growth);
  const dropped: MemoryObject[] = [];
  if (target !== undefined) {
    chargeCuts(mm, target.start, target.end);
    dropped.push(...(await unmapRange(mm, target.start, target.end)));
  }
  if (!inPlace) {
    if (newBytes < oldBytes) {
      dropped.push(...(await unmapRange(mm, mustAddLength(old.start, newBytes), old.end)));
    }
    await moveVma(mm, old.start, mustAddLength(old.start, keep), to);
  }
  if (tail !== undefined) {
    const at = mustAddLength(to, keep);
    linkVma(new Vma({ ...pick(vma), ...tail, start: at, end: mustAddLength(to, newBytes) }));
  }
  dropped.push(...mergeAround(mm, to, mustAddLength(to, newBytes)));
  await releaseObjects(dropped);
  return new Mapping(mm, to, newLength, vma.name);
}

/** What the new pages behind a mapping's end are: more of its object, or fresh memory when the object goes on elsewhere. */
function tailObject(
  mm: AddressSpace,
  vma: Vma,
  end: VirtAddr,
  growth: number,
): { readonly object: MemoryObject; readonly pgoff: number } {
  const page = vma.objectPage(end - 1) + 1;
  if (vma.shared) {
    return { object: vma.object.get(), pgoff: page };
  }
  if (page === vma.object.pages && vma.object.source === undefined) {
    vma.object.grow(page + growth / PAGE_SIZE);
    return { object: vma.object.get(), pgoff: page };
  }
  return { object: new MemoryObject(mm.memory, { pages: growth / PAGE_SIZE }), pgoff: 0 };
}

/** Moves `[start, end)`, which lies in one VMA, entries included. Cuts and blocks are charged; cannot fail. */
async function moveVma(mm: AddressSpace, start: VirtAddr, end: VirtAddr, to: VirtAddr): Promise<void> {
  const pages = (end - start) / PAGE_SIZE;
  mm.pageTable.reserve(vpnOf(to), vpnOf(to) + pages);
  await announce([{ mm, start, end, blockable: true, event: "unmap" }], () => {
    const [vma] = cutAround(mm, start, end);
    const { pgoff } = vma;
    unlinkVma(vma);
    mm.pageTable.forEachRun(vpnOf(start), vpnOf(end), (block, from, stop, vpn) => {
      for (let i = from; i < stop; i++) {
        mm.pageTable.set(vpnOf(to) + (vpn - vpnOf(start)) + (i - from), block[i]);
      }
    });
    zapEntries(mm, start, end);
    linkVma(new Vma({ ...pick(vma), start: to, end: mustAddLength(to, end - start), pgoff }));
    mm.pageTable.releaseEmpty(vpnOf(to), vpnOf(to) + pages);
  });
}
