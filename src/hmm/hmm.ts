/** What one address space's mirrors share. Found only through its notifier: the space itself has no field for it. */
import { formatRange, isPromise, type LedgerEntry, ledgerTrack, type MaybePromise, warnOn } from "../base/index.ts";
import { IntervalTree } from "../collections/index.ts";
import { type AddressSpace, changesIn } from "../mm/index.ts";
import { callNotifier, MmuNotifier, type MmuNotifierOps, type MmuNotifierRange } from "../mmu-notifier/index.ts";
import { RwSemaphore, WaitQueue } from "../sync/index.ts";
import type { HmmMirror } from "./mirror.ts";
import type { HmmRange } from "./range.ts";

/** An invalidation between its start and its end, and the ranges it blocks. */
interface ActiveInvalidation {
  readonly update: MmuNotifierRange;
  blocked: HmmRange[] | undefined;
}

/**
 * @linux mm/hmm.c struct hmm (5.4)
 *
 * Differences on purpose. An invalidation blocks the ranges that it overlaps, exactly (5.4 counts one that ends where a
 * range starts), and each is unblocked when its own invalidations have ended, not all of the space's. A start walks
 * the overlapping ranges only, an end only those that its start blocked.
 */
export class Hmm extends MmuNotifier {
  /** Registered ranges. Protected by run-to-completion. */
  readonly ranges = new IntervalTree<HmmRange>();
  /** Registered mirrors, the latest first. Protected by mirrorsSem. */
  readonly mirrors: HmmMirror[] = [];
  readonly mirrorsSem = new RwSemaphore("mirrors");
  /** Woken when ranges are unblocked. */
  readonly wq = new WaitQueue();
  readonly ledger: LedgerEntry = ledgerTrack("hmm");
  /** Few at a time, told apart by the identity of the range object, which start and end share. */
  readonly #active: ActiveInvalidation[] = [];

  /** Counts the invalidations that are now between start and end and overlap; their end will unblock the range. */
  blockNewRange(range: HmmRange): void {
    for (const active of this.#active) {
      const { update } = active;
      // A range that was unregistered and registered again meanwhile is still counted.
      if (changesIn(update, range.start, range.end) && !active.blocked?.includes(range)) {
        active.blocked = [...(active.blocked ?? []), range];
        range.block();
      }
    }
  }

  /** True while an invalidation that overlaps `[start, end)` is between its start and its end. */
  isInvalidating(start: number, end: number): boolean {
    return this.#active.some(({ update }) => changesIn(update, start, end));
  }

  /** Before anything else: from here on no range that overlaps is valid. */
  markStart(update: MmuNotifierRange): void {
    this.#active.push({ update, blocked: this.ranges.size > 0 ? this.#block(update) : undefined });
  }

  #block(update: MmuNotifierRange): HmmRange[] {
    const blocked: HmmRange[] = [];
    this.ranges.forEachOverlap(update.start, update.end, (range) => {
      if (changesIn(update, range.start, range.end)) {
        blocked.push(range);
        range.block();
      }
    });
    return blocked;
  }

  markEnd(update: MmuNotifierRange): void {
    const active = this.#active;
    let at = active.length - 1;
    while (at >= 0 && active[at].update !== update) {
      at--;
    }
    if (warnOn(at < 0, "I-HMM-7", () => `end of ${formatRange(update)} without its start`)) {
      return;
    }
    const { blocked } = active[at];
    active[at] = active[active.length - 1];
    active.pop();
    for (const range of blocked ?? []) {
      range.unblock();
    }
    if (this.wq.size > 0) {
      this.wq.wakeAll();
    }
  }
}

/** The one table: its identity makes the notifier core find the one Hmm of a space. */
export const hmmNotifierOps: MmuNotifierOps<Hmm> = {
  name: "hmm",
  allocNotifier: allocHmm,
  freeNotifier: freeHmm,
  release: releaseHmm,
  invalidateRangeStart,
  invalidateRangeEnd(hmm, update) {
    hmm.markEnd(update);
  },
};

/** @throws KernelError ENOMEM @linux mm/hmm.c hmm_alloc_notifier */
function allocHmm(mm: AddressSpace): Hmm {
  mm.memory.charge("hmm");
  return new Hmm();
}

/** @linux mm/hmm.c hmm_free_notifier */
function freeHmm(hmm: Hmm): void {
  warnOn(hmm.ranges.size > 0, "I-HMM-5", () => `${hmm.ranges.size} ranges were never unregistered`);
  warnOn(hmm.mirrors.length > 0, "I-HMM-6", () => `${hmm.mirrors.length} mirrors are still registered at the last put`);
  hmm.ledger.end();
}

/** @linux mm/hmm.c hmm_release */
async function releaseHmm(hmm: Hmm): Promise<void> {
  warnOn(hmm.ranges.size > 0, "I-HMM-4", () => "an address space exits under a registered range, which holds a user");
  using _ = hmm.mirrorsSem.tryRead() ?? (await hmm.mirrorsSem.read());
  for (const mirror of hmm.mirrors) {
    try {
      await callNotifier(() => mirror.ops.release?.(mirror));
    } catch (error) {
      warnOn(true, "I-HMM-10", () => `${mirror.ops.name}: release threw ${String(error)}`);
    }
  }
}

/** @linux mm/hmm.c hmm_invalidate_range_start */
function invalidateRangeStart(hmm: Hmm, update: MmuNotifierRange): MaybePromise<0 | "EAGAIN"> {
  hmm.markStart(update);
  const guard = hmm.mirrorsSem.tryRead();
  if (guard === undefined) {
    return update.blockable ? waitAndSync(hmm, update) : undo(hmm, update);
  }
  const synced = syncFrom(hmm, 0, update);
  if (!isPromise(synced)) {
    guard.release();
    return synced === 0 ? 0 : undo(hmm, update);
  }
  const settled = synced.finally(() => guard.release());
  if (update.blockable) {
    return settled;
  }
  void settled;
  return undo(hmm, update);
}

async function waitAndSync(hmm: Hmm, update: MmuNotifierRange): Promise<0> {
  using _ = await hmm.mirrorsSem.read();
  await syncFrom(hmm, 0, update);
  return 0;
}

/** A start that fails gets no end, so it takes its own part back. */
function undo(hmm: Hmm, update: MmuNotifierRange): "EAGAIN" {
  hmm.markEnd(update);
  return "EAGAIN";
}

/** Calls every mirror, whether it has a range there or not, with the whole invalidation. A promise only for a callback that waits. */
function syncFrom(hmm: Hmm, first: number, update: MmuNotifierRange): MaybePromise<0 | "EAGAIN"> {
  const { mirrors } = hmm;
  for (let i = first; i < mirrors.length; i++) {
    const synced = syncOne(mirrors[i], update);
    if (isPromise(synced)) {
      warnOn(!update.blockable, "I-HMM-11", () => {
        return `${mirrors[i].ops.name}: sync of ${formatRange(update)} waits though it must not block`;
      });
      return synced.then((outcome) => (mayStop(mirrors[i], outcome, update) ? "EAGAIN" : syncFrom(hmm, i + 1, update)));
    }
    if (mayStop(mirrors[i], synced, update)) {
      return "EAGAIN";
    }
  }
  return 0;
}

/** A mirror's answer; a throw is reported and counts as EAGAIN where that answer is allowed, as nothing where it is not. */
function syncOne(mirror: HmmMirror, update: MmuNotifierRange): MaybePromise<0 | "EAGAIN"> {
  const report = (error: unknown): 0 | "EAGAIN" => {
    warnOn(true, "I-HMM-10", () => `${mirror.ops.name}: sync threw ${String(error)}`);
    return update.blockable ? 0 : "EAGAIN";
  };
  try {
    const synced = callNotifier(() => mirror.ops.syncCpuDevicePagetables(mirror, update));
    return isPromise(synced) ? synced.catch(report) : synced;
  } catch (error) {
    return report(error);
  }
}

/** Whether the answer ends the loop: only EAGAIN, and only where nobody may wait. Others are reported and ignored. */
function mayStop(mirror: HmmMirror, outcome: 0 | "EAGAIN", update: MmuNotifierRange): boolean {
  if (outcome === 0) {
    return false;
  }
  return !warnOn(update.blockable || outcome !== "EAGAIN", "I-HMM-9", () => {
    return `${mirror.ops.name}: sync of ${formatRange(update)} answered ${String(outcome)}; only EAGAIN, and only when not blockable, is an answer`;
  });
}
