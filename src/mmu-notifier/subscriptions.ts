/** All notifiers of one address space, and the chains that call them. */
import {
  ADDRESS_LIMIT,
  bugOn,
  chain,
  formatRange,
  isPromise,
  type MaybePromise,
  virtAddr,
  warnOn,
} from "../base/index.ts";
import type { AddressSpace, MmNotifierHooks, MmuNotifierRange } from "../mm/index.ts";
import { type WaitOptions, WaitQueue } from "../sync/index.ts";
import { IntervalSubscriptions } from "./interval-subscriptions.ts";
import { callGuarded, type MmuNotifier, notifierSrcu } from "./notifier.ts";

/**
 * The head object of a space, in `mm.notifiers` from the first registration until the structure dies.
 *
 * Chains run the notifiers one after another, the most recently registered first, and without a microtask when every
 * callback is synchronous. The era is Linux >= 5.12: when a start fails, those whose start succeeded get their end from
 * the core. One difference on purpose: Linux cannot tell who failed and forbids a start that fails beside an end; here
 * the one that failed gets no end, so struct hmm may implement both, as it did.
 * @linux mm/mmu_notifier.c struct mmu_notifier_subscriptions
 */
export class Subscriptions implements MmNotifierHooks {
  readonly #mm: AddressSpace;
  /** Replaced, never changed: a chain goes on over the list it began with. */
  #list: readonly MmuNotifier[] = [];
  /** Also counts the invalidations between start and end, for both kinds of notifier. */
  readonly intervals = new IntervalSubscriptions();
  readonly #idle = new WaitQueue();

  constructor(mm: AddressSpace) {
    this.#mm = mm;
  }

  get size(): number {
    return this.#list.length;
  }

  /** The listed notifier with exactly this ops table, unless it is being unregistered. */
  find(ops: object): MmuNotifier | undefined {
    return this.#list.find((notifier) => notifier.ops === ops && notifier.users > 0);
  }

  /**
   * Waits until no invalidation is between its start and its end, so that a notifier listed then sees both or neither.
   * @throws KernelError EINTR, EBUSY as the options say
   * @linux mm/mmap.c mm_take_all_locks
   */
  quiesce(options?: WaitOptions): MaybePromise<void> {
    return this.intervals.active === 0 ? undefined : this.#waitIdle(options);
  }

  async #waitIdle(options: WaitOptions | undefined): Promise<void> {
    // The condition may fail again between the wake-up and this task's turn.
    while (this.intervals.active > 0) {
      await this.#idle.wait(() => this.intervals.active === 0, options);
    }
  }

  list(notifier: MmuNotifier): void {
    notifier.state.listed = true;
    this.#list = [notifier, ...this.#list];
  }

  /** Harmless for one that is not listed. */
  unlist(notifier: MmuNotifier): void {
    if (notifier.state.listed) {
      notifier.state.listed = false;
      this.#list = this.#list.filter((other) => other !== notifier);
    }
  }

  /** @linux mm/mmu_notifier.c __mmu_notifier_invalidate_range_start */
  invalidateRangeStart(range: MmuNotifierRange): MaybePromise<0 | "EAGAIN"> {
    const started = this.intervals.start(range);
    if (isPromise(started)) {
      return started.then((outcome) => this.#startList(range, outcome));
    }
    return this.#startList(range, started);
  }

  /** Interval notifiers come first; when one of them cannot, the others need not know. */
  #startList(range: MmuNotifierRange, intervals: 0 | "EAGAIN"): MaybePromise<0 | "EAGAIN"> {
    if (intervals !== 0) {
      this.#ended();
      return intervals;
    }
    if (this.#list.length === 0) {
      return 0;
    }
    const list = this.#list;
    return range.blockable
      ? notifierSrcu.read(() => this.#startFrom(list, 0, range))
      : notifierSrcu.read(() => this.#startNonBlockable(list, range));
  }

  /** @linux mm/mmu_notifier.c __mmu_notifier_invalidate_range_end */
  invalidateRangeEnd(range: MmuNotifierRange): MaybePromise<void> {
    if (warnOn(this.intervals.active === 0, "I-MN-1", () => `end of ${formatRange(range)} without a start`)) {
      return undefined;
    }
    if (this.#list.length === 0) {
      return this.#ended();
    }
    const list = this.#list;
    const ended = notifierSrcu.read(() => this.#endFrom(list, 0, range));
    return isPromise(ended) ? ended.then(() => this.#ended()) : this.#ended();
  }

  /**
   * Exit: interval notifiers are invalidated as a whole; then every notifier's release, then all are unlisted, then a grace
   * period. No callback but free comes later; interval notifiers stay until they are removed.
   * @linux mm/mmu_notifier.c __mmu_notifier_release
   */
  release(): MaybePromise<void> {
    const mm = this.#mm;
    const everything: MmuNotifierRange = {
      mm,
      start: virtAddr(0),
      end: ADDRESS_LIMIT,
      blockable: true,
      event: "release",
    };
    return chain(this.intervals.start(everything), () => {
      this.#ended();
      return this.#releaseList();
    });
  }

  #releaseList(): MaybePromise<void> {
    const list = this.#list;
    const released = notifierSrcu.read(() => this.#releaseFrom(list, 0));
    return isPromise(released) ? released.then(() => this.#released(list)) : this.#released(list);
  }

  /** @linux mm/mmu_notifier.c __mmu_notifier_subscriptions_destroy */
  destroy(): void {
    bugOn(
      this.#list.length + this.intervals.size > 0,
      "I-MN-6",
      () => "an address space dies with notifiers listed: one did not pin it",
    );
  }

  /** Calls `release` of one notifier, once, however many ask. The caller is inside a read section. */
  releaseOne(notifier: MmuNotifier): MaybePromise<void> {
    const { state, ops } = notifier;
    if (state.release === undefined) {
      const released = callGuarded(
        () => `${nameOf(notifier)}: release`,
        () => ops?.release?.(notifier, this.#mm),
      );
      state.release = isPromise(released) ? released.then(() => undefined) : "done";
    }
    return state.release === "done" ? undefined : state.release;
  }

  #startFrom(list: readonly MmuNotifier[], first: number, range: MmuNotifierRange): MaybePromise<0> {
    for (let i = first; i < list.length; i++) {
      if (list[i].state.listed) {
        const started = callStart(list[i], range);
        if (isPromise(started)) {
          return started.then((outcome) => {
            checkBlockable(list[i], outcome, range);
            return this.#startFrom(list, i + 1, range);
          });
        }
        checkBlockable(list[i], started, range);
      }
    }
    return 0;
  }

  #startNonBlockable(list: readonly MmuNotifier[], range: MmuNotifierRange): 0 | "EAGAIN" {
    const started: MmuNotifier[] = [];
    let result: 0 | "EAGAIN" = 0;
    for (const notifier of list) {
      if (notifier.state.listed) {
        const outcome = callStart(notifier, range);
        if (isPromise(outcome)) {
          warnOn(
            true,
            "I-MN-9",
            () => `${nameOf(notifier)}: start of ${formatRange(range)} waits though it must not block`,
          );
          result = "EAGAIN";
          // What it does in the end still needs its end.
          void outcome.then((late) => (late === 0 ? callEnd(notifier, range) : undefined));
        } else if (outcome === "EAGAIN" || outcome === "threw") {
          result = "EAGAIN";
        } else {
          warnOn(
            outcome !== 0,
            "I-MN-7",
            () => `${nameOf(notifier)}: start answered ${String(outcome)}, not 0 or EAGAIN`,
          );
          started.push(notifier);
        }
      }
    }
    if (result !== 0) {
      for (const notifier of started) {
        callEndNow(notifier, range);
      }
      this.#ended();
    }
    return result;
  }

  #endFrom(list: readonly MmuNotifier[], first: number, range: MmuNotifierRange): MaybePromise<void> {
    for (let i = first; i < list.length; i++) {
      if (list[i].state.listed) {
        const ended = range.blockable ? callEnd(list[i], range) : callEndNow(list[i], range);
        if (isPromise(ended)) {
          return ended.then(() => this.#endFrom(list, i + 1, range));
        }
      }
    }
    return undefined;
  }

  #releaseFrom(list: readonly MmuNotifier[], first: number): MaybePromise<void> {
    for (let i = first; i < list.length; i++) {
      if (list[i].state.listed) {
        const released = this.releaseOne(list[i]);
        if (isPromise(released)) {
          return released.then(() => this.#releaseFrom(list, i + 1));
        }
      }
    }
    return undefined;
  }

  #released(list: readonly MmuNotifier[]): MaybePromise<void> {
    for (const notifier of list) {
      this.unlist(notifier);
    }
    // Without a reader a grace period has nothing to wait for.
    return notifierSrcu.hasReaders ? notifierSrcu.synchronize() : undefined;
  }

  #ended(): void {
    this.intervals.end();
    if (this.intervals.active === 0 && this.#idle.size > 0) {
      this.#idle.wakeAll();
    }
  }
}

type StartOutcome = 0 | "EAGAIN" | "threw";

function nameOf(notifier: MmuNotifier): string {
  return notifier.ops?.name ?? "notifier";
}

function callStart(notifier: MmuNotifier, range: MmuNotifierRange): MaybePromise<StartOutcome> {
  const { ops } = notifier;
  return ops?.invalidateRangeStart === undefined
    ? 0
    : callGuarded(
        () => `${nameOf(notifier)}: start`,
        () => ops.invalidateRangeStart?.(notifier, range) as 0 | "EAGAIN",
      );
}

function callEnd(notifier: MmuNotifier, range: MmuNotifierRange): MaybePromise<unknown> {
  const { ops } = notifier;
  return ops?.invalidateRangeEnd === undefined
    ? undefined
    : callGuarded(
        () => `${nameOf(notifier)}: end`,
        () => ops.invalidateRangeEnd?.(notifier, range),
      );
}

/** {@link callEnd} where nobody may wait for it. */
function callEndNow(notifier: MmuNotifier, range: MmuNotifierRange): void {
  warnOn(isPromise(callEnd(notifier, range)), "I-MN-9", () => {
    return `${nameOf(notifier)}: end of ${formatRange(range)} waits though it must not block`;
  });
}

/** A blockable start has no way to fail: what it says is reported and ignored. A throw was reported before. */
function checkBlockable(notifier: MmuNotifier, outcome: StartOutcome, range: MmuNotifierRange): void {
  warnOn(outcome !== 0 && outcome !== "threw", "I-MN-7", () => {
    return `${nameOf(notifier)}: start of ${formatRange(range)} answered ${String(outcome)} though it may block`;
  });
}
