/** Exclusive access of a device to pages in system memory: for atomics that the bus between CPU and device does not have. */
import { formatAddr, KernelError, PAGE_SIZE, type Pfn, pageAlignDown, vpnOf } from "../base/index.ts";
import type { MmapRead } from "../sync/index.ts";
import type { AddressSpace } from "./address-space.ts";
import { syncCpuWrites, unmapFromCpu } from "./cpu-trap.ts";
import { faultVma } from "./fault.ts";
import type { MemoryObject } from "./memory-object.ts";
import { pagesAreReady } from "./object-prepare.ts";
import { PageFlag } from "./page-flags.ts";
import { PTE_PRESENT, PTE_WRITE, PteKind, pteOfKind, ptePfn } from "./pte.ts";
import { announceOnObject } from "./rmap.ts";
import { type Vma, VmFlags } from "./vma.ts";

/** A page that others touch again and again is given up after so many tries. */
const MAX_TRIES = 64;

/**
 * A page that a device has for itself, locked: nobody takes it away before it is disposed of. Program the device's entry,
 * then dispose.
 */
export interface ExclusivePage extends Disposable {
  readonly pfn: Pfn;
}

/**
 * Gives a device the page at `addr` for itself, in system memory: the CPU's entry goes, mirrors but the owner's are told,
 * and a touch by the CPU, mprotect, fork, or another device takes it back, announced with the event `exclusive` or
 * their own. EBUSY: a lease holds the page, or others touch it all the time.
 *
 * Locks: mmapLock, read.
 * @throws KernelError EFAULT nothing is mapped there; EINVAL the mapping is not private, writable memory without a file;
 *   as a write fault: EHWPOISON, EIO, ENOMEM
 * @throws BugError I-SYNC-2 without the lock
 * @linux mm/rmap.c make_device_exclusive
 */
export async function makeDeviceExclusive(
  mm: AddressSpace,
  lock: MmapRead,
  addr: number,
  owner: object,
): Promise<ExclusivePage | "EBUSY"> {
  mm.mmapLock.assertGuard(lock, "makeDeviceExclusive");
  const start = pageAlignDown(addr);
  const vma = exclusiveVma(mm, start);
  const { object } = vma;
  const page = vma.objectPage(start);
  for (let tries = 0; tries < MAX_TRIES; tries++) {
    await faultVma(vma, start, start + PAGE_SIZE, { cpu: true, write: true });
    await syncCpuWrites(object, page, page + 1);
    if (object.isPinned(page, page + 1, "r")) {
      return "EBUSY";
    }
    const taken = await announceOnObject(object, page, page + 1, "exclusive", () => take(vma, start), owner);
    if (taken !== undefined) {
      return taken;
    }
  }
  return "EBUSY";
}

function exclusiveVma(mm: AddressSpace, addr: number): Vma {
  const vma = mm.vmas.find(addr);
  if (vma === undefined) {
    throw new KernelError("EFAULT", "makeDeviceExclusive", `nothing is mapped at ${formatAddr(addr)}: mmap it first`);
  }
  if (vma.shared || vma.object.pager !== undefined || (vma.flags & VmFlags.Write) === 0) {
    const why = `${vma.name} at ${formatAddr(addr)} is not private, writable memory without a file: map some`;
    throw new KernelError("EINVAL", "makeDeviceExclusive", why);
  }
  return vma;
}

/** Callbacks may have waited: looks again, and takes the page if it is as a write fault leaves it. */
function take(vma: Vma, addr: number): ExclusivePage | undefined {
  const { object, mm } = vma;
  const page = vma.objectPage(addr);
  const vpn = vpnOf(addr);
  const pte = mm.pageTable.get(vpn);
  const writable = PTE_PRESENT | PTE_WRITE;
  if (
    (pte & writable) !== writable ||
    !pagesAreReady(object, page, page + 1, { cpu: true, write: true }) ||
    object.isPinned(page, page + 1, "r") ||
    !unmapFromCpu(object, page, page + 1)
  ) {
    return undefined;
  }
  mm.pageTable.set(vpn, pteOfKind(PteKind.DeviceExclusive, ptePfn(pte), PTE_WRITE));
  object.exclusive.add(page);
  object.updateFlags(page, page + 1, PageFlag.Busy, 0);
  return { pfn: ptePfn(pte), [Symbol.dispose]: unlocker(object, page) };
}

function unlocker(object: MemoryObject, page: number): () => void {
  let locked = true;
  object.get();
  return () => {
    if (locked) {
      locked = false;
      object.updateFlags(page, page + 1, 0, PageFlag.Busy);
      object.wq.wakeAll();
      // Not the last reference: who made the page exclusive holds the mmap lock.
      void object.put();
    }
  };
}
