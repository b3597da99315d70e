/** madvise: what the application knows about its memory. */
import { KernelError, type VirtAddr } from "../base/index.ts";
import type { AddressSpace } from "./address-space.ts";
import { type MemoryObject, PageFlag } from "./memory-object.ts";
import { pushToShadows, readPages, waitWhileBusy } from "./object-content.ts";
import { assertNoHoles, pageRange } from "./range-args.ts";
import { announce } from "./rmap.ts";
import { vmasIn, zapEntries } from "./vma-ops.ts";

/** `dontneed`: the content of private pages is dropped; they read as zeros, or as the file, afterwards. */
export type Advice = "dontneed";

/**
 * Gives advice about `[start, start + length)`.
 *
 * Locks: takes mmapLock, read.
 * @throws KernelError EINVAL a bad range or advice; ENOMEM a hole; ESRCH; EIO reading the file behind a forked mapping anew
 * @linux mm/madvise.c madvise_dontneed_single_vma
 */
export async function madvise(mm: AddressSpace, start: number, length: number, advice: Advice): Promise<void> {
  const range = pageRange("madvise", start, length);
  if (advice !== "dontneed") {
    throw new KernelError("EINVAL", "madvise", `unknown advice ${JSON.stringify(advice)}: use "dontneed"`);
  }
  using _lock = await mm.mmapLock.read();
  mm.assertAlive("madvise");
  assertNoHoles(mm, "madvise", range.start, range.end);
  for (const vma of vmasIn(mm, range.start, range.end)) {
    const from = Math.max(range.start, vma.start) as VirtAddr;
    const to = Math.min(range.end, vma.end) as VirtAddr;
    const page = vma.objectPage(from);
    const end = vma.objectPage(to - 1) + 1;
    for (;;) {
      if (!vma.shared) {
        await waitWhileBusy(vma.object, page, end);
        await pushToShadows(vma.object, page, end);
      }
      const done = await announce([{ mm, start: from, end: to, blockable: true, event: "clear", vma }], () => {
        if (!vma.shared && vma.object.flagSummary(page, end) & PageFlag.Busy) {
          return false;
        }
        zapEntries(mm, from, to);
        if (!vma.shared) {
          vma.object.dropPages(page, end);
        }
        return true;
      });
      if (done) {
        break;
      }
    }
    if (!vma.shared) {
      await restoreBase(vma.object, page, end);
    }
  }
}

/**
 * A forked mapping whose pages were dropped must not see the parent's bytes through its source, but what was there
 * before both: zeros, or the file.
 */
async function restoreBase(object: MemoryObject, page: number, end: number): Promise<void> {
  if (object.source === undefined || object.source.pager !== undefined) {
    return;
  }
  let base = object.source;
  let shift = object.sourcePage;
  while (base.source !== undefined) {
    shift += base.sourcePage;
    base = base.source;
  }
  object.reserve(page, end);
  if (base.pager === undefined) {
    object.updateFlags(page, end, PageFlag.Own, 0);
    return;
  }
  object.forEachWindow(page, end, (p) => object.ensureWindow(p));
  object.updateFlags(page, end, PageFlag.Busy, 0);
  try {
    for (let p = page; p < end; p++) {
      await readPages(base, p + shift, p + shift + 1, object.windowBytes(p, p + 1));
    }
    object.updateFlags(page, end, PageFlag.Uptodate | PageFlag.Own | PageFlag.Used, PageFlag.Busy);
  } finally {
    object.updateFlags(page, end, 0, PageFlag.Busy);
    object.wq.wakeAll();
  }
}
