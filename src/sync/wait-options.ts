/** What every wait of the library accepts. */
import { KernelError } from "../base/index.ts";

/** Ends a wait early: `signal` with EINTR, `timeoutMs` as the operation says (EBUSY, or a value). */
export interface WaitOptions {
  readonly signal?: AbortSignal | undefined;
  readonly timeoutMs?: number | undefined;
}

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
  const timer =
    timeoutMs === undefined || timeoutMs === Number.POSITIVE_INFINITY ? undefined : setTimeout(onTimeout, timeoutMs);
  return () => {
    if (abort !== undefined) {
      signal?.removeEventListener("abort", abort);
    }
    clearTimeout(timer);
  };
}
