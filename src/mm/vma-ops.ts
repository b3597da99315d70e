/** Linking, cutting and joining VMAs. All of it is synchronous and, once its allocations are charged, cannot fail. */
import { invariant, type MaybePromise, PAGE_SIZE, type VirtAddr, vpnOf } from "../base/index.ts";
import type { AddressSpace } from "./address-space.ts";
import { unmapFromCpu } from "./cpu-trap.ts";
import type { MemoryObject } from "./memory-object.ts";
import { PageFlag } from "./page-flags.ts";
import { canMerge, Vma, VmFlags } from "./vma.ts";

/** Puts a VMA into its address space and its object's reverse map. Takes over the caller's object reference. */
export function linkVma(vma: Vma): void {
  vma.mm.vmas.insert(vma.start, vma.end, vma);
  vma.rmap = vma.object.vmas.insert(vma.pgoff, vma.pgoff + vma.pages, vma);
}

/** Takes a VMA out of both. The caller drops its object reference, after the locks. */
export function unlinkVma(vma: Vma): void {
  if (vma.flags & VmFlags.Write && vma.object.vmas.size > 1) {
    // Who is left may have no right to write: what was written until now was written with this one's.
    unmapFromCpu(vma.object, vma.pgoff, Math.min(vma.object.pages, vma.pgoff + vma.pages));
  }
  vma.mm.vmas.delete(vma.start);
  unlinkRmap(vma);
}

function unlinkRmap(vma: Vma): void {
  invariant(vma.rmap !== undefined, "I-MM-1", () => "a VMA is unlinked twice");
  vma.object.vmas.remove(vma.rmap);
  vma.rmap = undefined;
}

/** Moves a linked VMA's bounds, keeping what each address maps. */
function resizeVma(vma: Vma, start: VirtAddr, end: VirtAddr): void {
  vma.mm.vmas.resize(vma.start, start, end);
  unlinkRmap(vma);
  vma.pgoff += (start - vma.start) / PAGE_SIZE;
  vma.start = start;
  vma.end = end;
  vma.rmap = vma.object.vmas.insert(vma.pgoff, vma.pgoff + vma.pages, vma);
}

/** Cuts a VMA in two at `at`, strictly inside it; returns the upper part. */
function cutVma(vma: Vma, at: VirtAddr): Vma {
  const upper = new Vma({ ...pick(vma), start: at, end: vma.end, pgoff: vma.objectPage(at) });
  resizeVma(vma, vma.start, at);
  vma.object.get();
  linkVma(upper);
  return upper;
}

/** The fields that a part of a VMA inherits. */
export function pick(vma: Vma): Pick<Vma, "mm" | "flags" | "object" | "name"> {
  return { mm: vma.mm, flags: vma.flags, object: vma.object, name: vma.name };
}

/**
 * Charges the VMAs that cutting `[start, end)` out needs, so that {@link cutAround} cannot fail.
 * @throws KernelError ENOMEM
 */
export function chargeCuts(mm: AddressSpace, start: VirtAddr, end: VirtAddr): void {
  for (const at of [start, end]) {
    const vma = mm.vmas.find(at);
    if (vma !== undefined && vma.start < at) {
      mm.memory.charge("vma");
    }
  }
}

/** Cuts VMAs at both ends of the range, so that each lies wholly inside or outside; returns those inside. */
export function cutAround(mm: AddressSpace, start: VirtAddr, end: VirtAddr): Vma[] {
  for (const at of [start, end]) {
    const vma = mm.vmas.find(at);
    if (vma !== undefined && vma.start < at) {
      cutVma(vma, at);
    }
  }
  return vmasIn(mm, start, end);
}

/** The VMAs that overlap the range, by rising address. */
export function vmasIn(mm: AddressSpace, start: VirtAddr, end: VirtAddr): Vma[] {
  const found: Vma[] = [];
  for (const vma of mm.vmas.values(start)) {
    if (vma.start >= end) {
      break;
    }
    found.push(vma);
  }
  return found;
}

/**
 * Joins what can be joined at the ends of and within `[start, end)`. I-MM-2.
 * Returns the object references that joined VMAs gave up.
 */
export function mergeAround(mm: AddressSpace, start: VirtAddr, end: VirtAddr): MemoryObject[] {
  const dropped: MemoryObject[] = [];
  let left = mm.vmas.find(start - 1) ?? mm.vmas.findNext(start);
  while (left !== undefined && left.start <= end) {
    const right = mm.vmas.find(left.end);
    if (right !== undefined && canMerge(left, right)) {
      unlinkVma(right);
      resizeVma(left, left.start, right.end);
      dropped.push(right.object);
    } else {
      left = right ?? mm.vmas.findNext(left.end);
    }
  }
  return dropped;
}

/**
 * Clears the entries of a range and gives empty page-table blocks back.
 *
 * Locks: mmapLock, write: whoever has reserved blocks under the lock for reading counts on them (I-MM-11).
 * @linux mm/memory.c free_pgtables
 */
export function zapAndFreeTables(mm: AddressSpace, start: VirtAddr, end: VirtAddr): void {
  mm.mmapLock.assertHeldWrite("zapAndFreeTables");
  mm.pageTable.clear(vpnOf(start), vpnOf(end));
}

/**
 * Forgets a private object's pages that no VMA maps any more, unless a copy still reads them. Pages in transit stay as
 * they are until the object goes.
 */
export function dropUnmapped(object: MemoryObject, page: number, end: number): void {
  let mapped = object.shadows.size > 0;
  object.vmas.forEachOverlap(page, end, () => {
    mapped = true;
  });
  if (mapped) {
    return;
  }
  if ((object.flagSummary(page, end) & PageFlag.Busy) === 0) {
    object.dropPages(page, end);
    return;
  }
  for (let p = page; p < end; p++) {
    if ((object.flagsOf(p) & PageFlag.Busy) === 0) {
      object.dropPages(p, p + 1);
    }
  }
}

/** Drops references, in order; a promise when one of them has to close something. */
export function putObjects(objects: readonly MemoryObject[]): MaybePromise<void> {
  const pending = objects.map((object) => object.put()).filter((put) => put !== undefined);
  return pending.length === 0 ? undefined : Promise.all(pending).then(() => undefined);
}
