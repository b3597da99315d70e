/** What every wait of the library accepts. */
import { assertOptions, KernelError, quote } from "../base/index.ts";

/** Ends a wait early: `signal` with EINTR, `timeoutMs` as the operation says (EBUSY, or a value). */
export interface WaitOptions {
  readonly signal?: AbortSignal | undefined;
  readonly timeoutMs?: number | undefined;
}

/**
 * Checks what a program gave as the options of a call that may wait.
 * @throws KernelError EINVAL no object, a `timeoutMs` that is no number from 0 up, a `signal` that is none
 */
export function assertWait(op: string, options: WaitOptions): void {
  assertOptions(op, options);
  const { timeoutMs, signal } = options;
  if (timeoutMs !== undefined && (typeof timeoutMs !== "number" || !(timeoutMs >= 0))) {
    throw new KernelError("EINVAL", op, `timeoutMs ${quote(timeoutMs)}: give milliseconds from 0 up`);
  }
  if (signal !== undefined && typeof signal?.addEventListener !== "function") {
    throw new KernelError("EINVAL", op, `signal ${quote(signal)}: give that of an AbortController`);
  }
}

/** A timer takes no longer time than this; who waits for weeks waits for ever. */
const MAX_TIMER_MS = 2 ** 31 - 1;

/** The EINTR of an aborted wait. */
export function interrupted(op: string, signal: AbortSignal): KernelError {
  return new KernelError("EINTR", op, "the operation's AbortSignal fired while it waited", { cause: signal.reason });
}

/**
 * Arms the ways in which a wait may end early. Returns the function that disarms them all, to be called however the
 * wait ends: neither a timer nor a listener outlives it.
 */
export function armWait(
  options: WaitOptions | undefined,
  onAbort: (signal: AbortSignal) => void,
  onTimeout: () => void,
): () => void {
  const signal = options?.signal;
  const timeoutMs = options?.timeoutMs;
  const abort = signal === undefined ? undefined : () => onAbort(signal);
  if (abort !== undefined) {
    signal?.addEventListener("abort", abort, { once: true });
  }
  const timer = timeoutMs === undefined || timeoutMs > MAX_TIMER_MS ? undefined : setTimeout(onTimeout, timeoutMs);
  return () => {
    if (abort !== undefined) {
      signal?.removeEventListener("abort", abort);
    }
    clearTimeout(timer);
  };
}
