/** What a device that works on memory in place needs besides entries: the right to read, and the bytes. */
import { KernelError, PAGE_SIZE, type VirtRange } from "../../base/index.ts";
import type { HmmRange } from "../../hmm/index.ts";
import { type AddressSpace, faultRange, VmFlags } from "../../mm/index.ts";

/**
 * As the present form of the fault has it: what may not be read is as if it were not there.
 * @throws KernelError EFAULT a mapping in the range is not readable
 */
export function checkReadable(mm: AddressSpace, { start, end }: VirtRange): void {
  for (const vma of mm.vmas.values(start)) {
    if (vma.start < end && (vma.flags & VmFlags.Read) === 0) {
      throw new KernelError("EFAULT", "dmirror", `${vma.name} is not readable: mprotect it first`);
    }
    if (vma.end >= end) {
      return;
    }
  }
}

/**
 * A frame's bytes may still be in a file; the device needs them in memory, or in its own. Own pages that the CPU's entry does
 * not let it write come home for that. Not under the update lock: it may wait.
 *
 * Locks: mmapLock, read.
 * @throws KernelError as a fault of the CPU
 */
export async function bringBytes(mm: AddressSpace, range: HmmRange, write: boolean): Promise<void> {
  const { devicePrivate, write: writable } = range.flags;
  const isHere = (entry: number) => (entry & devicePrivate) !== 0 && (!write || (entry & writable) !== 0);
  for (let i = 0; i < range.pages; ) {
    let stop = i + 1;
    const here = isHere(range.pfns[i]);
    while (stop < range.pages && isHere(range.pfns[stop]) === here) {
      stop++;
    }
    if (!here) {
      const start = range.start + i * PAGE_SIZE;
      await faultRange(mm, start, range.start + stop * PAGE_SIZE, { cpu: true, write });
    }
    i = stop;
  }
}
