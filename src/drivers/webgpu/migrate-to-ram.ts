/** Device-private pages on their way home: what a mirror does when the core asks for them. */
import { KernelError, PAGE_SIZE, trace, traceIdOf, traceNow, traceOn, vpnOf } from "../../base/index.ts";
import { type DeviceRun, PteKind, pteIsKind, ptePfn } from "../../mm/index.ts";
import { type Extent, PageState } from "./extent.ts";
import type { GpuHandle } from "./gpu-handle.ts";
import type { DeviceMirror, MirrorContext } from "./mirror.ts";

/** A run of device pages, or as much of it as lies in one extent. */
interface ExtentPart {
  readonly run: DeviceRun;
  readonly extent: Extent;
  readonly page: number;
  readonly count: number;
  /** Where the part begins, in pages of the run. */
  readonly runPage: number;
}

/**
 * Reads the runs' bytes back; `take` gets them. The device keeps copies of what nobody changes meanwhile.
 * @throws KernelError ENODEV the device was lost; ENOMEM no staging. The pages stay the device's then, if it still is
 * @linux include/linux/memremap.h struct dev_pagemap_ops migrate_to_ram
 */
export async function migrateToRam(
  mirror: DeviceMirror,
  { gpu, transfer }: MirrorContext,
  runs: readonly DeviceRun[],
  take: (run: DeviceRun, byteOffset: number, bytes: Uint8Array) => void,
): Promise<void> {
  const parts = runs.flatMap((run) => partsOf(mirror, gpu, run));
  // From here on a dispatch that wants the pages has to ask mm for them, and waits there for what happens here.
  for (const { extent, page, count } of parts) {
    extent.readbacks++;
    extent.disown(page, page + count);
  }
  // What an invalidation that is under way is about to change cannot be kept: its drop may have come before this.
  const since = traceNow();
  const epochs = parts.map((part) => (isInvalidating(mirror, part) ? -1 : part.extent.epoch));
  try {
    gpu.lost.check("migrate");
    await transfer.readback(
      parts.map(({ run, extent, page, count, runPage }) => ({
        buffer: extent.buffer.buffer,
        offset: extent.offsetOf(page),
        bytes: count * PAGE_SIZE,
        take: (bytes: Uint8Array, at: number) => take(run, runPage * PAGE_SIZE + at, bytes),
      })),
      { op: "migrate" },
    );
    if (traceOn) {
      traceReadback(gpu.label, traceIdOf(mirror.mm), parts, since);
    }
    parts.forEach((part, i) => {
      if (part.extent.epoch === epochs[i] && !isInvalidating(mirror, part)) {
        keepCopies(mirror, part);
      }
    });
  } catch (error) {
    if (!gpu.lost.isLost) {
      for (const { run, extent, page, count, runPage } of parts) {
        extent.own(page, page + count, run.object, run.page + runPage);
        // Hidden: whether the entries are still there is for the next dispatch to see.
        extent.update(page, page + count, 0, PageState.Valid | PageState.Write);
      }
    }
    throw gpu.lost.isLost && !(error instanceof KernelError && error.code === "ENODEV")
      ? gpu.lost.error("migrate", error)
      : error;
  } finally {
    for (const { extent } of parts) {
      extent.readbacks--;
    }
    mirror.extents.readbacksDone.wakeAll();
  }
}

function partsOf(mirror: DeviceMirror, gpu: GpuHandle, run: DeviceRun): ExtentPart[] {
  const parts: ExtentPart[] = [];
  for (let done = 0; done < run.count; ) {
    const extent = mirror.ofFrame(run.frame + done);
    if (extent === undefined) {
      throw gpu.lost.error("migrate");
    }
    const page = run.frame + done - extent.frame;
    const count = Math.min(run.count - done, extent.pages - page);
    parts.push({ run, extent, page, count, runPage: done });
    done += count;
  }
  return parts;
}

function isInvalidating({ hmm }: DeviceMirror, { extent, page, count }: ExtentPart): boolean {
  return hmm.hmm.isInvalidating(extent.addrOf(page), extent.addrOf(page + count));
}

/** The bytes that went home are still here: the device may go on reading them where the page is mapped as before. */
function keepCopies({ mm, pagemap }: DeviceMirror, { extent, page, count }: ExtentPart): void {
  for (let p = page; p < page + count; p++) {
    const pte = mm.pageTable.get(vpnOf(extent.addrOf(p)));
    if (pteIsKind(pte, PteKind.Migrating) && pagemap.frameOf(ptePfn(pte)) === extent.frame + p) {
      extent.update(p, p + 1, PageState.Valid, 0);
    }
  }
}

function traceReadback(device: string, space: number, parts: readonly ExtentPart[], since: number): void {
  let from = since;
  for (const { extent, page, count } of parts) {
    const [start, end] = [extent.addrOf(page), extent.addrOf(page + count)];
    trace("gpu.readback", { device, space, start, end, pages: count, bytes: count * PAGE_SIZE }, from);
    from = 0;
  }
}
