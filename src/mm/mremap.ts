/** mremap: a mapping grows, shrinks or moves. */
import {
  addLength,
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
import { unmapRange, unmapWritten } from "./munmap.ts";
import { waitWhileBusy } from "./object-content.ts";
import { PageFlag } from "./page-flags.ts";
import { assertLength, pageRange } from "./range-args.ts";
import { announce } from "./rmap.ts";
import { Vma } from "./vma.ts";
import { chargeCuts, cutAround, linkVma, mergeAround, pick, unlinkVma, vmasIn } from "./vma-ops.ts";
import { flushLastReferences, releaseObjects } from "./writeback.ts";

/** Where a mapping may go. */
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
  const roomEnd = addLength(old.start, newBytes);
  const next = mm.vmas.findNext(old.end);
  const inPlace =
    target === undefined &&
    vma.end === old.end &&
    roomEnd !== undefined &&
    (next === undefined || next.start >= roomEnd);
  const to = inPlace ? old.start : (target?.start ?? findFreeRange(mm, newBytes));
  if (to === undefined || (!inPlace && target === undefined && options.mayMove === false)) {
    throw new KernelError("ENOMEM", op, `no room for ${newBytes} bytes at ${formatAddr(old.start)}: allow it to move`);
  }
  // Everything that can fail comes before the first change. I-MM-7.
  const kept = { start: old.start, end: mustAddLength(old.start, keep) };
  const rest = { start: kept.end, end: old.end };
  mm.memory.charge("vma");
  mm.memory.charge("vma");
  chargeCuts(mm, old.start, old.end);
  if (target !== undefined) {
    chargeCuts(mm, target.start, target.end);
    await flushLastReferences(vmasIn(mm, target.start, target.end), target.start, target.end);
    await flushLastReferences(vmasIn(mm, rest.start, rest.end), rest.start, rest.end);
  }
  const shift = vpnOf(to) - vpnOf(old.start);
  const blocks = inPlace ? undefined : mm.pageTable.prepareMove(vpnOf(kept.start), vpnOf(kept.end), shift);
  const tail = growth === 0 ? undefined : prepareTail(mm, vma, old.end, growth);
  const dropped: MemoryObject[] = [];
  if (target !== undefined) {
    dropped.push(...(await unmapWritten(mm, target.start, target.end)));
    dropped.push(...(await unmapWritten(mm, rest.start, rest.end)));
  }
  if (blocks !== undefined) {
    await moveVma(mm, kept.start, kept.end, to, blocks);
  }
  if (tail !== undefined) {
    while (!vma.shared && vma.object.flagSummary(0, vma.object.pages) & PageFlag.Busy) {
      await waitWhileBusy(vma.object, 0, vma.object.pages);
    }
    const at = mustAddLength(to, keep);
    linkVma(new Vma({ ...pick(vma), ...tail(), start: at, end: mustAddLength(to, newBytes) }));
  }
  dropped.push(...mergeAround(mm, to, mustAddLength(to, newBytes)));
  await releaseObjects(dropped);
  return new Mapping(mm, to, newLength, vma.name);
}

/**
 * What the new pages behind a mapping's end are: more of its object, or fresh memory when the object goes on elsewhere.
 * All that can fail is done at once; what it returns takes the reference. No page may be in transit then.
 */
function prepareTail(
  mm: AddressSpace,
  vma: Vma,
  end: VirtAddr,
  growth: number,
): () => { readonly object: MemoryObject; readonly pgoff: number } {
  const page = vma.objectPage(end - 1) + 1;
  if (vma.shared) {
    return () => ({ object: vma.object.get(), pgoff: page });
  }
  if (page === vma.object.pages) {
    const grow = vma.object.prepareGrow(page + growth / PAGE_SIZE);
    return () => {
      grow();
      return { object: vma.object.get(), pgoff: page };
    };
  }
  const object = new MemoryObject(mm.memory, { pages: growth / PAGE_SIZE });
  return () => ({ object, pgoff: 0 });
}

/** Moves `[start, end)`, which lies in one VMA, entries included. Cuts and blocks are charged; cannot fail. */
async function moveVma(
  mm: AddressSpace,
  start: VirtAddr,
  end: VirtAddr,
  to: VirtAddr,
  blocks: ReadonlyMap<number, Uint32Array>,
): Promise<void> {
  await announce([{ mm, start, end, blockable: true, event: "unmap" }], () => {
    const [vma] = cutAround(mm, start, end);
    const { pgoff } = vma;
    unlinkVma(vma);
    mm.pageTable.move(vpnOf(start), vpnOf(end), vpnOf(to) - vpnOf(start), blocks);
    linkVma(new Vma({ ...pick(vma), start: to, end: mustAddLength(to, end - start), pgoff }));
  });
}
