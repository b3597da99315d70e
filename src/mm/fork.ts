/** fork: a second address space with the same content, copied page by page only when one of the two writes or looks. */
import { type VirtAddr, vpnOf } from "../base/index.ts";
import type { AddressSpace } from "./address-space.ts";
import { unmapFromCpu } from "./cpu-trap.ts";
import { dropExclusive } from "./exclusive-pages.ts";
import { MemoryObject } from "./memory-object.ts";
import { pullPages } from "./object-content.ts";
import { PTE_WRITE } from "./pte.ts";
import { announce } from "./rmap.ts";
import { Vma } from "./vma.ts";
import { linkVma, pick, putObjects } from "./vma-ops.ts";

/**
 * Makes a child address space. Shared mappings stay shared; private ones become copies: a page's bytes are copied at the
 * child's first access or before the parent's next write, whichever comes first. Pages under a write lease, which
 * the parent may change unseen, are copied at once. The child has no notifiers: mirrors register with it anew.
 *
 * Locks: takes the parent's mmapLock, write.
 * @throws KernelError ENOMEM (the parent is unchanged); ESRCH
 * @linux kernel/fork.c dup_mmap
 */
export async function fork(mm: AddressSpace, create: () => AddressSpace): Promise<AddressSpace> {
  using _lock = await mm.mmapLock.write();
  mm.assertAlive("fork");
  const copies = new Map<MemoryObject, MemoryObject>();
  const vmas = [...mm.vmas.values()];
  const child = create();
  try {
    for (const vma of vmas) {
      mm.memory.charge("vma");
      if (!vma.shared && !copies.has(vma.object)) {
        copies.set(
          vma.object,
          new MemoryObject(mm.memory, {
            pages: vma.object.pages,
            source: { object: vma.object, page: 0 },
            snapshot: true,
          }),
        );
      }
    }
    for (const [object, copy] of copies) {
      for (const [start, end] of pinnedForWrite(object)) {
        copy.windows.ensureAll(start, end);
        copy.reserve(start, end);
      }
    }
    await protectParent(mm, vmas);
    for (const [object, copy] of copies) {
      for (const [start, end] of pinnedForWrite(object)) {
        await pullPages(copy, start, end);
      }
    }
  } catch (error) {
    await putObjects([...copies.values()]);
    await child[Symbol.asyncDispose]();
    throw error;
  }
  for (const vma of vmas) {
    const copy = copies.get(vma.object);
    const object = vma.shared ? vma.object.get() : (copy ?? vma.object).get();
    linkVma(new Vma({ ...pick(vma), mm: child, object, start: vma.start, end: vma.end, pgoff: vma.pgoff }));
  }
  await putObjects([...copies.values()]);
  return child;
}

/** From here on every write of the parent is a fault, which serves the child first. */
async function protectParent(mm: AddressSpace, vmas: readonly Vma[]): Promise<void> {
  const doomed = vmas.filter((vma) => !vma.shared);
  if (doomed.length === 0) {
    return;
  }
  const start = doomed[0].start;
  const end = doomed[doomed.length - 1].end as VirtAddr;
  await announce([{ mm, start, end, blockable: true, event: "protection-page" }], () => {
    for (const vma of doomed) {
      dropExclusive(vma);
      unmapFromCpu(vma.object, vma.pgoff, vma.pgoff + vma.pages);
      mm.pageTable.forEachRun(vpnOf(vma.start), vpnOf(vma.end), (block, from, to) => {
        for (let i = from; i < to; i++) {
          block[i] &= ~PTE_WRITE;
        }
      });
    }
  });
}

/** Pages that a holder may change at any time, unseen. */
function pinnedForWrite(object: MemoryObject): [number, number][] {
  const pinned: [number, number][] = [];
  object.pins.forEachOverlap(0, object.pages, (mode, start, end) => {
    if (mode === "rw") {
      pinned.push([start, end]);
    }
  });
  return pinned;
}
