/** The end of an address space. */
import { ADDRESS_LIMIT, type MaybePromise, vpnOf } from "../base/index.ts";
import type { AddressSpace } from "./address-space.ts";
import type { MemoryObject } from "./memory-object.ts";
import { unlinkVma, zapAndFreeTables } from "./vma-ops.ts";
import { releaseObjects } from "./writeback.ts";

/**
 * Runs when the last user is gone: tells the notifiers once (their devices stop), then unmaps everything without further
 * announcements. Everything is unmapped and every other file written back even when
 * one cannot be; the first error is reported then.
 *
 * Locks: takes mmapLock, write, after the release callbacks.
 * @linux mm/mmap.c exit_mmap
 */
export async function exitMmap(mm: AddressSpace): Promise<void> {
  let failure: { readonly error: unknown } | undefined;
  const attempt = async (step: () => MaybePromise<void>): Promise<void> => {
    try {
      await step();
    } catch (error) {
      failure ??= { error };
    }
  };
  await attempt(() => mm.notifiers?.release());
  using _lock = await mm.mmapLock.write();
  const vmas = [...mm.vmas.values()];
  const dropped: MemoryObject[] = [];
  for (const vma of vmas) {
    unlinkVma(vma);
    zapAndFreeTables(mm, vma.start, vma.end);
    dropped.push(vma.object);
  }
  mm.pageTable.releaseEmpty(vpnOf(0), vpnOf(ADDRESS_LIMIT));
  await attempt(() => releaseObjects(dropped));
  if (failure !== undefined) {
    throw failure.error;
  }
}
