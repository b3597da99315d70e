/** madvise: what the application knows about its memory. */
import { KernelError, PAGE_SIZE, quote, type VirtAddr, vpnOf } from "../base/index.ts";
import type { AddressSpace } from "./address-space.ts";
import type { MemoryObject } from "./memory-object.ts";
import { readPages, waitWhileBusy } from "./object-content.ts";
import { pushToShadows, shadowsLack } from "./object-shadows.ts";
import { PageFlag } from "./page-flags.ts";
import { assertNoHoles, pageRange } from "./range-args.ts";
import { announce } from "./rmap.ts";
import type { Vma } from "./vma.ts";
import { vmasIn } from "./vma-ops.ts";
import { forEachWindow } from "./window-pages.ts";

/**
 * `dontneed`: the content of private pages is dropped; they read as zeros, or as the file, afterwards. `free`: the content of
 * private pages without a file may be dropped, until they are written; here it is dropped at once.
 */
export type Advice = "dontneed" | "free";

/**
 * Gives advice about `[start, start + length)`.
 *
 * A lease that is held meanwhile keeps its array, but what it shows and takes from then on is no longer the memory's.
 *
 * Locks: takes mmapLock, read.
 * @throws KernelError EINVAL a bad range or advice, or `free` of shared or file memory; ENOMEM a hole, or out of memory; ESRCH; EIO reading the file behind a forked mapping anew
 * @linux mm/madvise.c madvise_dontneed_single_vma
 */
export async function madvise(mm: AddressSpace, start: number, length: number, advice: Advice): Promise<void> {
  const range = pageRange("madvise", start, length);
  if (advice !== "dontneed" && advice !== "free") {
    throw new KernelError("EINVAL", "madvise", `unknown advice ${quote(advice)}: use "dontneed" or "free"`);
  }
  using _lock = await mm.mmapLock.read();
  mm.assertAlive("madvise");
  assertNoHoles(mm, "madvise", range.start, range.end);
  if (advice === "free") {
    assertAnonymous(mm, range.start, range.end);
  }
  for (const vma of vmasIn(mm, range.start, range.end)) {
    const from = Math.max(range.start, vma.start) as VirtAddr;
    const to = Math.min(range.end, vma.end) as VirtAddr;
    if (vma.shared) {
      await announce([{ mm, start: from, end: to, blockable: true, event: "clear", vma }], () =>
        mm.pageTable.zap(vpnOf(from), vpnOf(to)),
      );
    } else {
      await dropPrivate(vma, from, to);
    }
  }
}

/** @linux mm/madvise.c madvise_free_single_vma */
function assertAnonymous(mm: AddressSpace, start: VirtAddr, end: VirtAddr): void {
  for (const vma of vmasIn(mm, start, end)) {
    let base: MemoryObject | undefined = vma.object;
    while (base !== undefined && base.pager === undefined) {
      base = base.source;
    }
    if (vma.shared || base !== undefined) {
      throw new KernelError("EINVAL", "madvise", `${vma.name} is shared or of a file: use "dontneed"`);
    }
  }
}

async function dropPrivate(vma: Vma, from: VirtAddr, to: VirtAddr): Promise<void> {
  const { mm, object } = vma;
  const page = vma.objectPage(from);
  const end = vma.objectPage(to - 1) + 1;
  const restore = await prepareRestore(object, page, end);
  for (let done = false; !done; ) {
    await waitWhileBusy(object, page, end);
    await pushToShadows(object, page, end);
    done = await announce([{ mm, start: from, end: to, blockable: true, event: "clear", vma }], () => {
      // Others may have begun to move or to read pages while callbacks were waited for.
      if (object.flagSummary(page, end) & PageFlag.Busy || shadowsLack(object, page, end)) {
        return false;
      }
      mm.pageTable.zap(vpnOf(from), vpnOf(to));
      object.dropPages(page, end);
      restore();
      return true;
    });
  }
}

/**
 * A forked mapping whose pages were dropped must not see the parent's bytes through its source, but what was there
 * before both: zeros, or the file. Everything that can fail or wait happens here; what it returns is done with the drop.
 */
async function prepareRestore(object: MemoryObject, page: number, end: number): Promise<() => void> {
  let base = object;
  let shift = 0;
  // Pages behind it were added since; they are zeros.
  let inherited = end;
  while (base.source?.shadows.has(base)) {
    inherited = Math.min(inherited, base.sourcePages - shift);
    shift += base.sourcePage;
    base = base.source;
  }
  if (base === object) {
    return () => {};
  }
  object.reserve(page, end);
  if (base.source === undefined && base.pager === undefined) {
    return () => object.updateFlags(page, end, PageFlag.Own, 0);
  }
  object.windows.ensureAll(page, end);
  const bytes = new Uint8Array((end - page) * PAGE_SIZE);
  const source = base.source ?? base;
  inherited = Math.min(inherited, base.source === undefined ? base.pages - shift : base.sourcePages - shift);
  if (page < inherited) {
    const first = page + shift + base.sourcePage;
    await readPages(source, first, first + (inherited - page), bytes.subarray(0, (inherited - page) * PAGE_SIZE));
  }
  return () => {
    forEachWindow(page, end, (p, stop) =>
      object.windows.bytes(p, stop).set(bytes.subarray((p - page) * PAGE_SIZE, (stop - page) * PAGE_SIZE)),
    );
    object.updateFlags(page, end, PageFlag.Uptodate | PageFlag.Own | PageFlag.Used, 0);
  };
}
