/** What submissions of several dispatches and devices tell each other: these pages are being brought, this one has lost some. */
import type { PhysicalMemory } from "../../../mm/index.ts";
import { Mutex } from "../../../sync/index.ts";
import { type Retry, TRY_AGAIN } from "../gather.ts";
import type { FramePlacer } from "./frame-placer.ts";
import type { Demand } from "./service.ts";
import type { SvmFrame } from "./svm-frame.ts";
import type { SvmTable } from "./svm-table.ts";

/** Of demands that were asked for together some were taken away again: the next try gets them all anew, at once. */
export const APART: Retry = { ...TRY_AGAIN };

/** Tries to have pages together: those of one object at two addresses never are. */
export const TRIES_TOGETHER = 16;

const contended = new WeakMap<PhysicalMemory, Mutex<"x-svm-together">>();

/** Held by tries to have pages together: two of them, of different devices, would take the pages from each other. */
export function oneTogether(memory: PhysicalMemory): Mutex<"x-svm-together"> {
  let mutex = contended.get(memory);
  if (mutex === undefined) {
    mutex = new Mutex("x-svm-together");
    contended.set(memory, mutex);
  }
  return mutex;
}

/** Whether another dispatch is bringing some of the pages. */
export function servedOf(table: SvmTable, demands: readonly Demand[]): boolean {
  return demands.some(({ page }) => table.frameAt(page)?.isServed);
}

/**
 * The demands as the mappings allow them by now. What went, or may not be written any more, is for the kernel to find out, which
 * can say where it was going; but to get there it has to read what may be read.
 */
export function allowed(table: SvmTable, demands: readonly Demand[]): readonly Demand[] {
  if (demands.every(({ page, write }) => table.isMapped(page, write))) {
    return demands;
  }
  return demands
    .map((demand) => (demand.write && !table.isMapped(demand.page, true) ? { ...demand, write: false } : demand))
    .filter(({ page, write }) => table.isMapped(page, write));
}

/** Frames that a dispatch brings pages to, until it is disposed of. */
export function serve({ served }: FramePlacer, frames: readonly SvmFrame[]): Disposable {
  for (const frame of frames) {
    frame.isServed = true;
  }
  return {
    [Symbol.dispose]: () => {
      for (const frame of frames) {
        frame.isServed = false;
      }
      served.wakeAll();
    },
  };
}
