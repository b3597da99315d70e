/** Errors that are the caller's: one class, told apart by `code`. */

/** The errno names that this library reports. */
export type Errno =
  | "EACCES"
  | "EBUSY"
  | "EFAULT"
  | "EHWPOISON"
  | "EINTR"
  | "EINVAL"
  | "EIO"
  | "EISDIR"
  | "ENODEV"
  | "ENOENT"
  | "ENOMEM"
  | "ENOSPC"
  | "ENOTSUP"
  | "EOVERFLOW"
  | "EPERM"
  | "ESRCH";

/**
 * The caller asked for something that it may not or cannot have.
 *
 * `message` is one line, `<operation>: <CODE>: <why and what to do>`; `why` is the sentence alone. "Try again" outcomes
 * are never thrown (they are values), and broken invariants are {@link BugError}s.
 */
export class KernelError extends Error {
  override readonly name = "KernelError";
  readonly code: Errno;
  /** The operation that failed, as its caller knows it: `mprotect`, `dispatch`. */
  readonly op: string;
  /** What is wrong, what it concerns, and the remedy. */
  readonly why: string;

  constructor(code: Errno, op: string, why: string, options?: { cause?: unknown }) {
    super(`${op}: ${code}: ${why}`, options);
    this.code = code;
    this.op = op;
    this.why = why;
  }
}

/** Throws EINTR when the signal has fired: the `fatal_signal_pending` of every wait. */
export function throwIfAborted(signal: AbortSignal | undefined, op: string): void {
  if (signal?.aborted) {
    throw new KernelError("EINTR", op, "the operation's AbortSignal fired", { cause: signal.reason });
  }
}
