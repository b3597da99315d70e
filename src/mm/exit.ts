/** The end of an address space. */
import { addrOf, vpnOf } from "../base/index.ts";
import type { AddressSpace } from "./address-space.ts";
import type { MemoryObject } from "./memory-object.ts";
import { unlinkVma, zapEntries } from "./vma-ops.ts";
import { flushLastReferences, releaseObjects } from "./writeback.ts";

/**
 * Runs when the last user is gone: tells the notifiers once (their devices stop), then unmaps everything without further
 * announcements. Everything is unmapped even when a file cannot be written back; that error is reported then.
 *
 * Locks: takes mmapLock, write, after the release callbacks.
 * @linux mm/mmap.c exit_mmap
 */
export async function exitMmap(mm: AddressSpace): Promise<void> {
  await mm.notifiers?.release();
  using _lock = await mm.mmapLock.write();
  const vmas = [...mm.vmas.values()];
  let failure: { readonly error: unknown } | undefined;
  try {
    await flushLastReferences(vmas);
  } catch (error) {
    failure = { error };
  }
  const dropped: MemoryObject[] = [];
  for (const vma of vmas) {
    unlinkVma(vma);
    zapEntries(mm, vma.start, vma.end);
    dropped.push(vma.object);
  }
  mm.pageTable.releaseEmpty(vpnOf(addrOf(0)), 2 ** 36);
  await releaseObjects(dropped);
  if (failure !== undefined) {
    throw failure.error;
  }
}
