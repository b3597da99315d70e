/** mprotect: other permissions. */
import { KernelError, vpnOf } from "../base/index.ts";
import type { AddressSpace } from "./address-space.ts";
import { unmapFromCpu } from "./cpu-trap.ts";
import { dropExclusive } from "./exclusive-pages.ts";
import type { MemoryObject } from "./memory-object.ts";
import { PTE_NONE, PTE_PRESENT, PTE_WRITE } from "./pte.ts";
import { assertNoHoles, pageRange } from "./range-args.ts";
import { announce } from "./rmap.ts";
import { type Prot, protFlags, type Vma, VmFlags } from "./vma.ts";
import { chargeCuts, cutAround, mergeAround, vmasIn } from "./vma-ops.ts";
import { releaseObjects } from "./writeback.ts";

const PROT_MASK = VmFlags.Read | VmFlags.Write;

/**
 * Changes the permissions of `[start, start + length)`.
 *
 * Locks: takes mmapLock, write.
 * @throws KernelError EINVAL a bad range or protection; ENOMEM a hole, or no memory for a cut; EACCES a shared mapping of a read-only object
 *   cannot become writable; ESRCH. Nothing has changed then.
 * @linux mm/mprotect.c do_mprotect_pkey
 */
export async function mprotect(mm: AddressSpace, start: number, length: number, prot: Prot): Promise<void> {
  const range = pageRange("mprotect", start, length);
  const flags = protFlags(prot, "mprotect");
  using _lock = await mm.mmapLock.write();
  mm.assertAlive("mprotect");
  assertNoHoles(mm, "mprotect", range.start, range.end);
  for (const vma of vmasIn(mm, range.start, range.end)) {
    if (flags & VmFlags.Write && vma.shared && vma.object.pager?.writable === false) {
      throw new KernelError(
        "EACCES",
        "mprotect",
        `${vma.name} is a shared mapping of a read-only object: map it privately`,
      );
    }
  }
  chargeCuts(mm, range.start, range.end);
  const change = { mm, ...range, blockable: true, event: "protection-vma", vmFlags: flags } as const;
  const dropped: MemoryObject[] = await announce([change], () => {
    for (const vma of cutAround(mm, range.start, range.end)) {
      if (vma.flags & ~flags & PROT_MASK) {
        // Before a right is gone: what was written until now was written with it.
        unmapFromCpu(vma.object, vma.pgoff, vma.pgoff + vma.pages);
      }
      vma.flags = (vma.flags & ~PROT_MASK) | flags;
      restrictEntries(vma);
    }
    return mergeAround(mm, range.start, range.end);
  });
  await releaseObjects(dropped);
}

/** I-MM-4: an entry grants no more than its VMA. */
function restrictEntries(vma: Vma): void {
  dropExclusive(vma);
  const readable = (vma.flags & VmFlags.Read) !== 0;
  vma.mm.pageTable.forEachRun(vpnOf(vma.start), vpnOf(vma.end), (block, from, to) => {
    for (let i = from; i < to; i++) {
      const pte = block[i];
      // Entries of pages on a device or on their way keep their place; where they come back, the VMA is asked again.
      block[i] = pte & PTE_PRESENT && !readable ? PTE_NONE : pte & ~PTE_WRITE;
    }
  });
}
