/**
 * Neighbouring pages of one object in transit: isolated, then given to a device, to the host, or back. Every migration is
 * made of these steps, all of them synchronous.
 */
import { traceOn, vpnOf } from "../base/index.ts";
import {
  type DevicePagemap,
  framePfn,
  isolateEntries,
  landPages,
  type MemoryObject,
  PageFlag,
  PTE_WRITE,
  PteKind,
  pteIsKind,
  pteOfKind,
  ptePresent,
  restorePages,
  rewriteEntries,
  traceMigrate,
  type Vma,
  VmFlags,
} from "../mm/index.ts";

/** Pages `[page, end)` of an object. */
export interface PageRun {
  readonly object: MemoryObject;
  readonly page: number;
  readonly end: number;
}

const COHERENT = PageFlag.Coherent | PageFlag.Uptodate | PageFlag.Own | PageFlag.Used;

/** From here on nobody can touch the pages: walkers and faults wait. Between an invalidation's start and its end. */
export function isolateRun({ object, page, end }: PageRun): void {
  object.updateFlags(page, end, PageFlag.Busy, 0);
  isolateEntries(object, page, end);
}

/**
 * The bytes are in the device's memory: for private memory its driver has copied them, coherent memory is seen in the
 * window. Page i is in the frame that `pfnOf(i)` names; frames that pages leave are freed.
 */
export function giveToDevice(run: PageRun, pfnOf: (index: number) => number, vma: Vma | undefined): void {
  const { object, page, end } = run;
  const free = framesOf(run);
  for (let p = page; p < end; p++) {
    object.setDevicePfn(p, pfnOf(p - page));
  }
  if (object.memory.blockOf(pfnOf(0))?.pagemap?.kind === "coherent") {
    object.updateFlags(page, end, COHERENT, PageFlag.Busy | PageFlag.Device);
    restorePages(object, page, end);
    if (vma !== undefined) {
      fillEntries(run, vma, (p) => (vma.flags & VmFlags.Read ? ptePresent(framePfn(object, p), 0) : 0));
    }
    free();
    object.wq.wakeAll();
    return;
  }
  object.updateFlags(page, end, PageFlag.Device | PageFlag.Own, PageFlag.Busy | PageFlag.Uptodate | PageFlag.Coherent);
  rewriteEntries(object, page, end, (pte, mapped, p) =>
    pteIsKind(pte, PteKind.Migrating) ? deviceEntry(mapped, object, p) : pte,
  );
  if (vma !== undefined) {
    fillEntries(run, vma, (p) => deviceEntry(vma, object, p));
  }
  if (traceOn) {
    traceMigrate(object, page, end, "device", "kernel write");
  }
  free();
  object.wq.wakeAll();
}

/** In the VMA that asked, pages without an entry get one too: its CPU knows where they are. */
function fillEntries({ page, end }: PageRun, vma: Vma, entryOf: (page: number) => number): void {
  const first = vpnOf(vma.start) - vma.pgoff;
  vma.mm.pageTable.forEachRun(first + page, first + end, (block, from, to, vpn) => {
    for (let i = from; i < to; i++) {
      if (block[i] === 0) {
        block[i] = entryOf(vpn + (i - from) - first);
      }
    }
  });
}

function deviceEntry(vma: Vma, object: MemoryObject, page: number): number {
  const write = vma.flags & VmFlags.Write ? PTE_WRITE : 0;
  return pteOfKind(PteKind.DevicePrivate, object.devicePfnOf(page), write);
}

/** The bytes are in the window: the pages are the host's, and the frames that they leave are free. */
export function giveToHost(run: PageRun): void {
  const free = framesOf(run);
  landPages(run.object, run.page, run.end);
  free();
  run.object.wq.wakeAll();
}

/** Nothing was moved: the pages stay where they were. */
export function giveBack({ object, page, end }: PageRun): void {
  restorePages(object, page, end);
  object.wq.wakeAll();
}

const ON_DEVICE = PageFlag.Device | PageFlag.Coherent;

/** Notes the device frames that the pages are in; what it returns gives them back to their driver. */
function framesOf({ object, page, end }: PageRun): () => void {
  if ((object.flagSummary(page, end) & ON_DEVICE) === 0) {
    return () => {};
  }
  const runs: { readonly pagemap: DevicePagemap; readonly frame: number; count: number }[] = [];
  for (let p = page; p < end; p++) {
    const pfn = object.flagsOf(p) & ON_DEVICE ? object.devicePfnOf(p) : -1;
    const pagemap = pfn === -1 ? undefined : object.memory.blockOf(pfn)?.pagemap;
    const frame = pagemap?.frameOf(pfn);
    if (pagemap === undefined || frame === undefined) {
      continue;
    }
    const last = runs.at(-1);
    if (last?.pagemap === pagemap && last.frame + last.count === frame) {
      last.count++;
    } else {
      runs.push({ pagemap, frame, count: 1 });
    }
  }
  return () => {
    for (const { pagemap, frame, count } of runs) {
      pagemap.ops.pageFree(frame, count);
    }
  };
}
