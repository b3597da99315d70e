/** All interval notifiers of one address space, and the sequence number that they share. */
import { formatRange, isPromise, type MaybePromise, warnOn } from "../base/index.ts";
import { IntervalTree } from "../collections/index.ts";
import { changesIn, type MmuNotifierRange } from "../mm/index.ts";
import { WaitQueue } from "../sync/index.ts";
import type { IntervalFinish, MmuIntervalNotifier } from "./interval.ts";
import { callGuarded, notifierSrcu } from "./notifier.ts";

const FIRST_SEQ = 2;

/** What follows a sequence number; the last one, which is odd, is followed by the first. */
function nextSeq(seq: number): number {
  return seq === Number.MAX_SAFE_INTEGER ? FIRST_SEQ : seq + 1;
}

/**
 * The interval half of a space's subscriptions.
 *
 * `seq` is odd while an invalidation that met an interval is under way, and moves on when all have ended (I-MN-2). While it
 * is odd the tree does not change: who is inserted or removed then waits for the end in `deferred`, so that a callback is
 * for a notifier that is still there. Sequence numbers are compared for equality only, so that they may wrap.
 * @linux mm/mmu_notifier.c struct mmu_notifier_subscriptions (invalidate_seq, itree, deferred_list)
 */
export class IntervalSubscriptions {
  /** Readers and removers that wait for the sequence to move on. */
  readonly wq = new WaitQueue();
  readonly #tree = new IntervalTree<MmuIntervalNotifier>();
  /** To be put into the tree, or (those that are in it) to be taken out. */
  readonly #deferred = new Set<MmuIntervalNotifier>();
  #active = 0;
  #seq = FIRST_SEQ;

  /** Invalidations between start and end, of any range. */
  get active(): number {
    return this.#active;
  }

  /** Notifiers in the tree. */
  get size(): number {
    return this.#tree.size;
  }

  get seq(): number {
    return this.#seq;
  }

  /** @internal For tests of the wrap: an even number, while nothing is under way. */
  set seq(seq: number) {
    this.#seq = seq;
  }

  /** An interval is being invalidated. */
  get isInvalidating(): boolean {
    return this.#seq % 2 === 1;
  }

  /** A notifier whose sequence is `seq` is being invalidated: its reader waits. */
  isCurrent(seq: number): boolean {
    return this.#seq === seq;
  }

  /** Returns the notifier's first sequence: the current one when an invalidation is under way, so that readers wait for it. */
  insert(notifier: MmuIntervalNotifier): number {
    if (this.isInvalidating) {
      this.#deferred.add(notifier);
      return this.#seq;
    }
    this.#addToTree(notifier);
    if (this.#active === 0) {
      return this.#seq - 1;
    }
    this.#seq = nextSeq(this.#seq);
    return this.#seq;
  }

  remove(notifier: MmuIntervalNotifier): MaybePromise<void> {
    if (!this.isInvalidating) {
      this.#removeFromTree(notifier);
      return undefined;
    }
    if (notifier.node === undefined) {
      // It never came into the tree, so nobody is calling it.
      this.#deferred.delete(notifier);
      return undefined;
    }
    this.#deferred.add(notifier);
    const seq = this.#seq;
    return this.wq.wait(() => this.#seq !== seq).then(() => undefined);
  }

  /**
   * Counts an invalidation, and calls the notifiers that it overlaps: begins all, then finishes all. After EAGAIN the
   * caller calls {@link end}, as after success.
   * @linux mm/mmu_notifier.c mn_itree_invalidate
   */
  start(range: MmuNotifierRange): MaybePromise<0 | "EAGAIN"> {
    this.#active++;
    if (this.#tree.size === 0) {
      return 0;
    }
    let hit: MmuIntervalNotifier[] | undefined;
    this.#tree.forEachOverlap(range.start, range.end, (notifier) => {
      if (changesIn(range, notifier.start, notifier.end)) {
        hit ??= [];
        hit.push(notifier);
      }
    });
    return hit === undefined ? 0 : this.#invalidate(hit, range);
  }

  #invalidate(hit: readonly MmuIntervalNotifier[], range: MmuNotifierRange): MaybePromise<0 | "EAGAIN"> {
    if (!this.isInvalidating) {
      this.#seq = nextSeq(this.#seq);
    }
    const pass = new Pass(hit, range, this.#seq);
    return notifierSrcu.read(() => (range.blockable ? pass.begin(0) : pass.beginNow()));
  }

  /** @linux mm/mmu_notifier.c mn_itree_inv_end */
  end(): void {
    this.#active--;
    if (this.#active > 0 || !this.isInvalidating) {
      return;
    }
    this.#seq = nextSeq(this.#seq);
    for (const notifier of this.#deferred) {
      if (notifier.node === undefined) {
        this.#addToTree(notifier);
      } else {
        this.#removeFromTree(notifier);
      }
    }
    this.#deferred.clear();
    if (this.wq.size > 0) {
      this.wq.wakeAll();
    }
  }

  #addToTree(notifier: MmuIntervalNotifier): void {
    notifier.node = this.#tree.insert(notifier.start, notifier.end, notifier);
  }

  #removeFromTree(notifier: MmuIntervalNotifier): void {
    if (notifier.node !== undefined) {
      this.#tree.remove(notifier.node);
      notifier.node = undefined;
    }
  }
}

type Begun = boolean | IntervalFinish | "threw";

/** The callbacks of one invalidation. */
class Pass {
  readonly #hit: readonly MmuIntervalNotifier[];
  readonly #range: MmuNotifierRange;
  readonly #curSeq: number;
  readonly #finishers: { readonly notifier: MmuIntervalNotifier; readonly finish: IntervalFinish }[] = [];

  constructor(hit: readonly MmuIntervalNotifier[], range: MmuNotifierRange, curSeq: number) {
    this.#hit = hit;
    this.#range = range;
    this.#curSeq = curSeq;
  }

  /** Begins all from `first` on, then finishes all. A promise only for a callback that waits. */
  begin(first: number): MaybePromise<0> {
    for (let i = first; i < this.#hit.length; i++) {
      const begun = this.#call(this.#hit[i]);
      if (isPromise(begun)) {
        return begun.then((late) => {
          this.#begunBlockable(this.#hit[i], late);
          return this.begin(i + 1);
        });
      }
      this.#begunBlockable(this.#hit[i], begun);
    }
    return this.#finish(0);
  }

  /** All callbacks answer at once; what has begun is finished even when another one cannot begin. */
  beginNow(): 0 | "EAGAIN" {
    let result: 0 | "EAGAIN" = 0;
    for (const notifier of this.#hit) {
      const begun = this.#call(notifier);
      if (isPromise(begun)) {
        this.#reportWait(notifier);
        void begun.then((late) => typeof late === "function" && this.#guarded(notifier, late));
        result = "EAGAIN";
      } else if (begun === false || begun === "threw") {
        result = "EAGAIN";
      } else {
        this.#took(notifier, begun);
      }
    }
    for (const { notifier, finish } of this.#finishers) {
      if (isPromise(this.#guarded(notifier, finish))) {
        this.#reportWait(notifier);
      }
    }
    return result;
  }

  #finish(first: number): MaybePromise<0> {
    for (let i = first; i < this.#finishers.length; i++) {
      const { notifier, finish } = this.#finishers[i];
      const finished = this.#guarded(notifier, finish);
      if (isPromise(finished)) {
        return finished.then(() => this.#finish(i + 1));
      }
    }
    return 0;
  }

  #call(notifier: MmuIntervalNotifier): MaybePromise<Begun> {
    return this.#guarded(notifier, () => notifier.ops.invalidate(notifier, this.#range, this.#curSeq));
  }

  #begunBlockable(notifier: MmuIntervalNotifier, begun: Begun): void {
    if (begun === "threw") {
      return;
    }
    warnOn(begun === false, "I-MN-7", () => {
      return `${notifier.ops.name}: invalidate of ${formatRange(this.#range)} answered false though it may block`;
    });
    this.#took(notifier, begun);
  }

  #took(notifier: MmuIntervalNotifier, begun: boolean | IntervalFinish): void {
    warnOn(begun !== false && notifier.checkRetry(this.#curSeq), "I-MN-8", () => {
      return `${notifier.ops.name}: invalidate of ${formatRange(this.#range)} did not call setSeq`;
    });
    if (typeof begun === "function") {
      this.#finishers.push({ notifier, finish: begun });
    }
  }

  #reportWait(notifier: MmuIntervalNotifier): void {
    warnOn(true, "I-MN-9", () => {
      return `${notifier.ops.name}: invalidate of ${formatRange(this.#range)} waits though it must not block`;
    });
  }

  #guarded<T>(notifier: MmuIntervalNotifier, callback: () => MaybePromise<T>): MaybePromise<T | "threw"> {
    return callGuarded(() => `${notifier.ops.name}: invalidate`, callback);
  }
}
