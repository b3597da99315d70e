/** Bringing an object's pages into the state that an access needs. */
import { isPromise, type MaybePromise } from "../base/index.ts";
import { isExclusive, revokeExclusive } from "./exclusive-pages.ts";
import { deviceStretch } from "./fault-around.ts";
import type { MemoryObject } from "./memory-object.ts";
import { pullPages, waitWhileBusy } from "./object-content.ts";
import { migrateToRam } from "./object-migrate.ts";
import { pushToShadows, shadowsLack } from "./object-shadows.ts";
import { PageFlag } from "./page-flags.ts";

/** What an access needs of the pages behind it. */
export interface PageNeed {
  /** The bytes are needed in the CPU window. */
  readonly cpu: boolean;
  /** The pages are going to change. */
  readonly write: boolean;
}

/**
 * Brings pages `[page, end)` into the state that an access needs: not in transit, not on a device, copies served before a
 * change, bytes in the window for the CPU. Needs no lock; the caller looks again after an await.
 * @throws KernelError ENOMEM, EIO
 */
export function preparePages(
  object: MemoryObject,
  page: number,
  end: number,
  need: PageNeed,
): MaybePromise<"ready" | "poisoned"> {
  for (;;) {
    const step = prepareStep(object, page, end, need);
    if (step === "ready" || step === "poisoned") {
      return step;
    }
    if (step !== undefined) {
      return step.then(() => preparePages(object, page, end, need));
    }
  }
}

/** One thing that is in the way, removed: undefined when it was removed at once. */
function prepareStep(
  object: MemoryObject,
  page: number,
  end: number,
  need: PageNeed,
): "ready" | "poisoned" | Promise<void> | undefined {
  const summary = object.flagSummary(page, end);
  if (summary & PageFlag.Busy) {
    return waitWhileBusy(object, page, end);
  }
  if (summary & PageFlag.Poisoned) {
    return "poisoned";
  }
  if (summary & PageFlag.Device) {
    // Another device asks for what it needs and no more; who walks over an array is likely to go on.
    const [from, to] = need.cpu ? deviceStretch(object, page, end) : [page, end];
    return migrateToRam(object, from, to);
  }
  if (object.exclusive.size > 0 && isExclusive(object, page, end)) {
    const revoked = revokeExclusive(object, page, end);
    return isPromise(revoked) ? revoked : undefined;
  }
  if (need.write && object.shadows.size > 0 && shadowsLack(object, page, end)) {
    const pushed = pushToShadows(object, page, end);
    return isPromise(pushed) ? pushed : undefined;
  }
  if (need.cpu && ((summary >> 8) & PageFlag.Uptodate) === 0) {
    const pulled = pullPages(object, page, end);
    return isPromise(pulled) ? pulled : undefined;
  }
  return "ready";
}

/** True when {@link preparePages} would answer "ready" at once. */
export function pagesAreReady(object: MemoryObject, page: number, end: number, need: PageNeed): boolean {
  const summary = object.flagSummary(page, end);
  return (
    (summary & (PageFlag.Busy | PageFlag.Poisoned | PageFlag.Device)) === 0 &&
    (object.exclusive.size === 0 || !isExclusive(object, page, end)) &&
    (!need.cpu || ((summary >> 8) & PageFlag.Uptodate) !== 0) &&
    (!need.write || object.shadows.size === 0 || !shadowsLack(object, page, end))
  );
}
