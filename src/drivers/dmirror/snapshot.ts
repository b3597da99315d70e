/** What the CPU's page tables say of a range, in the bytes of the kernel's test driver. */
import { isPromise, KernelError, PAGE_SIZE, type VirtRange, vpnOf } from "../../base/index.ts";
import {
  HMM_PFN_ERROR,
  HMM_PFN_WRITE,
  HMM_RANGE_DEFAULT_TIMEOUT,
  type HmmIntervalRange,
  hmmPfnToMapOrder,
  hmmPfnToPfn,
  hmmRangeFault,
} from "../../hmm/index.ts";
import { type AddressSpace, isZeroPage, PteKind, pteIsKind, ptePfn } from "../../mm/index.ts";
import { MmuIntervalNotifier } from "../../mmu-notifier/index.ts";
import type { WaitOptions } from "../../sync/index.ts";
import type { DmirrorDevice } from "./device-memory.ts";

/** One byte a page: a permission, and bits for where the page is. @linux lib/test_hmm_uapi.h HMM_DMIRROR_PROT_NONE and following */
export const DmirrorPage = {
  None: 0x00,
  Read: 0x01,
  Write: 0x02,
  /** Part of an aligned 2 MiB block that a device may map with one entry. */
  Pmd: 0x04,
  /** Zeros that nobody has written. */
  Zero: 0x10,
  PrivateLocal: 0x20,
  PrivateRemote: 0x30,
  CoherentLocal: 0x40,
  CoherentRemote: 0x50,
  /** Not mapped, not readable, or lost. */
  Error: 0xff,
} as const;

/**
 * Faults nothing in. Waits for invalidations; starts over when one comes in between.
 *
 * Locks: takes the mmap lock, read.
 * @throws KernelError EBUSY it was invalidated again and again for `timeoutMs` (1000); EINTR; ENOMEM; EINVAL the space has exited
 * @linux lib/test_hmm.c dmirror_snapshot
 */
export async function snapshotPages(
  mm: AddressSpace,
  device: DmirrorDevice,
  { start, end }: VirtRange,
  options: WaitOptions = {},
): Promise<Uint8Array> {
  const notifier = new MmuIntervalNotifier({
    name: "dmirror snapshot",
    invalidate(sub, _range, curSeq) {
      sub.setSeq(curSeq);
      return true;
    },
  });
  await notifier.insert(mm, start, end - start, options);
  try {
    const deadline = Date.now() + (options.timeoutMs ?? HMM_RANGE_DEFAULT_TIMEOUT);
    const hmmPfns = new Uint32Array((end - start) / PAGE_SIZE);
    const { signal } = options;
    do {
      const timeoutMs = Math.max(0, deadline - Date.now());
      const notifierSeq = await notifier.readBegin({ signal, timeoutMs });
      const range: HmmIntervalRange = { notifier, notifierSeq, start, end, hmmPfns, devPrivateOwner: device };
      using lock = mm.mmapLock.tryRead() ?? (await mm.mmapLock.read({ signal }));
      // Without a request nothing has to wait, so that what is described is what was read.
      const outcome = hmmRangeFault(range, lock);
      if (!isPromise(outcome) && outcome === 0) {
        return Uint8Array.from(hmmPfns, (entry, i) => pageByte(mm, device, entry, vpnOf(start) + i));
      }
    } while (Date.now() < deadline);
    throw new KernelError("EBUSY", "dmirror snapshot", "the range was invalidated again and again: try again");
  } finally {
    await notifier.remove();
  }
}

/** @linux lib/test_hmm.c dmirror_mkentry */
function pageByte(mm: AddressSpace, device: DmirrorDevice, entry: number, vpn: number): number {
  if (entry & HMM_PFN_ERROR) {
    return DmirrorPage.Error;
  }
  const pfn = hmmPfnToPfn(entry);
  if (pfn === -1) {
    // Another device's memory is no page for this one, and yet it is known where the page is.
    const pte = mm.pageTable.get(vpn);
    const remote = pteIsKind(pte, PteKind.DevicePrivate) && mm.memory.blockOf(ptePfn(pte))?.pagemap !== undefined;
    return remote ? DmirrorPage.PrivateRemote : DmirrorPage.None;
  }
  const prot = entry & HMM_PFN_WRITE ? DmirrorPage.Write : DmirrorPage.Read;
  const pagemap = mm.memory.blockOf(pfn)?.pagemap;
  if (pagemap !== undefined) {
    const local = pagemap.owner === device;
    if (pagemap.kind === "private") {
      return prot | (local ? DmirrorPage.PrivateLocal : DmirrorPage.PrivateRemote);
    }
    return prot | (local ? DmirrorPage.CoherentLocal : DmirrorPage.CoherentRemote);
  }
  const page = mm.memory.pageOf(pfn);
  if (prot === DmirrorPage.Read && page !== undefined && isZeroPage(page.object, page.page)) {
    return prot | DmirrorPage.Zero;
  }
  return hmmPfnToMapOrder(entry) === 9 ? prot | DmirrorPage.Pmd : prot;
}
