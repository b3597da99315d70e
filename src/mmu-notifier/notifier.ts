/** What subscribes to an address space: the object, its ops, and the one SRCU domain that protects all of them. */
import { BugError, isPromise, type LedgerEntry, type MaybePromise, warnOn } from "../base/index.ts";
import type { AddressSpace, MmuNotifierRange } from "../mm/index.ts";
import { lockdepHolds, Srcu } from "../sync/index.ts";

/**
 * What a kind of notifier does. The table's identity is the kind: one notifier per (ops, mm).
 *
 * Callbacks run inside an SRCU read section. Being called implies that the notifier is not freed, so they take no
 * reference. They may put, and must not wait for themselves: no {@link mmuNotifierUnregister}, no
 * {@link mmuNotifierSynchronize}, no mmap lock.
 * @linux include/linux/mmu_notifier.h struct mmu_notifier_ops
 */
export interface MmuNotifierOps<N extends MmuNotifier = MmuNotifier> {
  /** For messages. */
  readonly name: string;
  /**
   * The address space dies, or the notifier is unregistered: end all access through it before returning. Called at most
   * once a notifier, and not at all for one whose last put came first.
   */
  release?(notifier: N, mm: AddressSpace): MaybePromise<void>;
  /**
   * Before entries in the range change. When the range is not blockable it must answer at once, and may answer EAGAIN
   * instead of doing its work; that answer promises that it has undone its own part, and it gets no end for it.
   */
  invalidateRangeStart?(notifier: N, range: MmuNotifierRange): MaybePromise<0 | "EAGAIN">;
  /** After the change, once for each start that succeeded, with the same range object. Pairs nest and overlap. */
  invalidateRangeEnd?(notifier: N, range: MmuNotifierRange): MaybePromise<void>;
  /** Makes the notifier for a first get, under the mmap lock. What it throws is what the get throws. */
  allocNotifier?(mm: AddressSpace): N;
  /** After the last put, once no callback runs or can run. Synchronous. */
  freeNotifier?(notifier: N): void;
}

/** One subscription. Embed it by extending it. @linux include/linux/mmu_notifier.h struct mmu_notifier */
export class MmuNotifier {
  /** Set by a get, or by the owner before {@link mmuNotifierRegister}. */
  ops: MmuNotifierOps | undefined;
  /** @internal Written by this folder only. */
  readonly state: NotifierState = { mm: undefined, users: 0, listed: false, release: undefined, ledger: undefined };

  constructor(ops?: MmuNotifierOps) {
    this.ops = ops;
  }

  /**
   * The space it is registered on. Its structure stays valid as long as the caller holds its get; `tryGetUsers` tells
   * whether it is still alive.
   * @throws BugError I-MN-12 before registration
   */
  get mm(): AddressSpace {
    const { mm } = this.state;
    if (mm === undefined) {
      throw new BugError("I-MN-12", "the notifier was never registered");
    }
    return mm;
  }

  /** Gets that were not put yet. */
  get users(): number {
    return this.state.users;
  }
}

/** What the core knows about a notifier. */
export interface NotifierState {
  mm: AddressSpace | undefined;
  users: number;
  /** On its space's list: callbacks other than free may come. */
  listed: boolean;
  /** The one run of `release`, shared by exit and unregister when they meet. */
  release: MaybePromise<void> | "done" | undefined;
  ledger: LedgerEntry | undefined;
}

/** Protects the lists of all spaces; frees wait for its grace periods. */
export const notifierSrcu = new Srcu();

let callbackDepth = 0;

/** Runs a callback so that {@link inNotifierCallback} knows of it. */
export function callNotifier<T>(callback: () => T): T {
  callbackDepth++;
  try {
    return callback();
  } finally {
    callbackDepth--;
  }
}

/** {@link callNotifier}; what the callback throws is reported (I-MN-10), with `who` threw it, and answered with "threw". */
export function callGuarded<T>(who: () => string, callback: () => MaybePromise<T>): MaybePromise<T | "threw"> {
  try {
    const result = callNotifier(callback);
    return isPromise(result) ? result.catch((error: unknown) => reportThrow(who, error)) : result;
  } catch (error) {
    return reportThrow(who, error);
  }
}

function reportThrow(who: () => string, error: unknown): "threw" {
  warnOn(true, "I-MN-10", () => `${who()} threw ${String(error)}`);
  return "threw";
}

/**
 * Whether the caller is a notifier callback, for which waiting for callbacks would never end. Exact up to the callback's
 * first `await`; behind it only while lockdep is on.
 */
export function inNotifierCallback(): boolean {
  return callbackDepth > 0 || lockdepHolds("srcu");
}
