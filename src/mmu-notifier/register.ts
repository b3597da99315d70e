/** How notifiers come and go. */
import {
  bugOn,
  chain,
  invariant,
  KernelError,
  ledgerTrack,
  type MaybePromise,
  trace,
  traceIdOf,
  traceOn,
  warnOn,
} from "../base/index.ts";
import type { AddressSpace } from "../mm/index.ts";
import type { MmapWrite, WaitOptions } from "../sync/index.ts";
import { inNotifierCallback, MmuNotifier, type MmuNotifierOps, notifierSrcu } from "./notifier.ts";
import { Subscriptions } from "./subscriptions.ts";

const MAX_USERS = 0xffff_ffff;

/**
 * The notifier of kind `ops` on `mm`, made when there is none. Pair each success with one {@link mmuNotifierPut}. The
 * caller holds a user of `mm`.
 *
 * Locks: takes `mm.mmapLock` for writing.
 * @throws KernelError EINTR, EBUSY while it waited for the lock, as the options say; else as {@link mmuNotifierGetLocked}
 * @linux mm/mmu_notifier.c mmu_notifier_get
 */
export async function mmuNotifierGet<N extends MmuNotifier>(
  ops: MmuNotifierOps<N>,
  mm: AddressSpace,
  options?: WaitOptions,
): Promise<N> {
  using lock = await mm.mmapLock.write(options);
  return await mmuNotifierGetLocked(ops, mm, lock, options);
}

/**
 * {@link mmuNotifierGet} for a caller that holds the mmap lock. A promise only while another task is in the middle of an
 * invalidation.
 *
 * Locks: `mm.mmapLock`, write, throughout.
 * @throws KernelError EOVERFLOW too many gets; ENOMEM; EINTR, EBUSY while it waited; what `ops.allocNotifier` throws
 * @throws BugError I-SYNC-2 without the lock; I-MN-5 when the address space has exited
 * @linux mm/mmu_notifier.c mmu_notifier_get_locked
 */
export function mmuNotifierGetLocked<N extends MmuNotifier>(
  ops: MmuNotifierOps<N>,
  mm: AddressSpace,
  lock: MmapWrite,
  options?: WaitOptions,
): MaybePromise<N> {
  assertMayRegister("mmuNotifierGet", mm, lock);
  const found = mm.notifiers instanceof Subscriptions ? (mm.notifiers.find(ops) as N | undefined) : undefined;
  if (found !== undefined) {
    if (found.state.users >= MAX_USERS) {
      throw new KernelError(
        "EOVERFLOW",
        "mmuNotifierGet",
        `${ops.name} has 2^32 - 1 users on this address space: put some`,
      );
    }
    found.state.users++;
    traceUsers("get", found, mm);
    return found;
  }
  const notifier = ops.allocNotifier?.(mm) ?? (new MmuNotifier() as N);
  notifier.ops = ops as MmuNotifierOps;
  try {
    const registered = mmuNotifierRegisterLocked(notifier, mm, lock, options);
    return chain(
      registered instanceof Promise
        ? registered.catch((error: unknown) => freeAfterFailure(ops, notifier, error))
        : registered,
      () => notifier,
    );
  } catch (error) {
    return freeAfterFailure(ops, notifier, error);
  }
}

function freeAfterFailure<N extends MmuNotifier>(ops: MmuNotifierOps<N>, notifier: N, error: unknown): never {
  ops.freeNotifier?.(notifier);
  throw error;
}

/**
 * Drops one get. At the last one the notifier leaves its space at once (a next get makes a new one) and is freed after
 * a grace period (I-MN-3): on return it may still be inside a callback. Never waits; legal inside callbacks, `release` included.
 * `release` is not called: have all device access torn down before.
 *
 * Reports I-MN-4 and does nothing when there is no get to put.
 * @linux mm/mmu_notifier.c mmu_notifier_put
 */
export function mmuNotifierPut(notifier: MmuNotifier): void {
  const { state } = notifier;
  if (warnOn(state.users === 0, "I-MN-4", () => `${notifier.ops?.name ?? "notifier"}: put without get`)) {
    return;
  }
  state.users--;
  traceUsers("put", notifier, notifier.mm);
  if (state.users === 0) {
    const { mm } = notifier;
    subscriptionsOf(mm).unlist(notifier);
    notifierSrcu.call(() => {
      state.ledger?.end();
      traceUsers("free", notifier, mm);
      try {
        notifier.ops?.freeNotifier?.(notifier);
      } finally {
        mm.mmdrop();
      }
    });
  }
}

/**
 * Resolves when no callback of notifiers that were put or unregistered before runs, and all of them are freed. A driver
 * ends its unload with it.
 * @throws BugError I-MN-11 inside a callback, which would wait for itself
 * @linux mm/mmu_notifier.c mmu_notifier_synchronize
 */
export async function mmuNotifierSynchronize(): Promise<void> {
  assertNotInCallback("mmuNotifierSynchronize");
  await notifierSrcu.barrier();
}

/**
 * Subscribes a notifier that its owner made, `ops` set. It ends with {@link mmuNotifierUnregister}.
 *
 * Locks: takes `mm.mmapLock` for writing.
 * @throws KernelError as {@link mmuNotifierRegisterLocked}
 * @linux mm/mmu_notifier.c mmu_notifier_register
 */
export async function mmuNotifierRegister(
  notifier: MmuNotifier,
  mm: AddressSpace,
  options?: WaitOptions,
): Promise<void> {
  using lock = await mm.mmapLock.write(options);
  await mmuNotifierRegisterLocked(notifier, mm, lock, options);
}

/**
 * {@link mmuNotifierRegister} for a caller that holds the mmap lock.
 *
 * Locks: `mm.mmapLock`, write, throughout.
 * @throws KernelError ENOMEM; EINTR, EBUSY while it waited for invalidations to end
 * @throws BugError I-SYNC-2 without the lock; I-MN-5 when the space has exited; I-MN-12 without ops, or registered twice
 * @linux mm/mmu_notifier.c __mmu_notifier_register
 */
export function mmuNotifierRegisterLocked(
  notifier: MmuNotifier,
  mm: AddressSpace,
  lock: MmapWrite,
  options?: WaitOptions,
): MaybePromise<void> {
  assertMayRegister("mmuNotifierRegister", mm, lock);
  bugOn(notifier.ops === undefined, "I-MN-12", () => "a notifier is registered without ops");
  bugOn(notifier.state.mm !== undefined, "I-MN-12", () => `${notifier.ops?.name} is registered twice`);
  mm.memory.charge("notifier");
  mm.notifiers ??= new Subscriptions(mm);
  const subscriptions = subscriptionsOf(mm);
  return chain(subscriptions.quiesce(options), () => {
    const { state } = notifier;
    state.mm = mm;
    state.users = 1;
    state.ledger = ledgerTrack("notifier");
    mm.mmgrab();
    subscriptions.list(notifier);
    traceUsers("get", notifier, mm);
  });
}

/**
 * Ends a registration: `release`, when exit has not called it; then waits until no callback runs.
 * @throws BugError I-MN-11 inside a callback; I-MN-12 when it is not registered
 * @linux mm/mmu_notifier.c mmu_notifier_unregister
 */
export async function mmuNotifierUnregister(notifier: MmuNotifier): Promise<void> {
  assertNotInCallback("mmuNotifierUnregister");
  const { state } = notifier;
  bugOn(state.users === 0, "I-MN-12", () => `${notifier.ops?.name ?? "notifier"} is not registered`);
  state.users = 0;
  const { mm } = notifier;
  const subscriptions = subscriptionsOf(mm);
  if (state.listed) {
    await notifierSrcu.read(() => subscriptions.releaseOne(notifier));
    subscriptions.unlist(notifier);
  }
  await notifierSrcu.synchronize();
  state.mm = undefined;
  state.release = undefined;
  state.ledger?.end();
  traceUsers("free", notifier, mm);
  mm.mmdrop();
}

function traceUsers(what: "get" | "put" | "free", { ops, state }: MmuNotifier, mm: AddressSpace): void {
  if (traceOn) {
    trace("mmu.notifier", { space: traceIdOf(mm), name: ops?.name ?? "notifier", what, users: state.users });
  }
}

function assertMayRegister(op: string, mm: AddressSpace, lock: MmapWrite): void {
  mm.mmapLock.assertGuard(lock, op);
  mm.mmapLock.assertHeldWrite(op);
  bugOn(mm.users <= 0, "I-MN-5", () => `${op}: the address space has exited; hold a user of it`);
}

function assertNotInCallback(op: string): void {
  bugOn(inNotifierCallback(), "I-MN-11", () => `${op} inside a notifier callback would wait for itself: do it later`);
}

function subscriptionsOf(mm: AddressSpace): Subscriptions {
  const { notifiers } = mm;
  invariant(notifiers instanceof Subscriptions, "I-MN-12", () => "the address space has no subscriptions");
  return notifiers;
}
