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

/** A value that a program gave and should not have, for the sentence that says so. */
export function quote(value: unknown): string {
  switch (typeof value) {
    case "string":
      return JSON.stringify(value);
    case "object":
      return value === null ? "null" : "an object";
    case "function":
      return "a function";
    default:
      return String(value);
  }
}

/** @throws KernelError EINVAL what should be an object of options is none */
export function assertOptions(op: string, options: object): void {
  if (typeof options !== "object" || options === null) {
    throw new KernelError("EINVAL", op, `the options are ${quote(options)}: give an object`);
  }
}

/** Throws EINTR when the signal has fired: the `fatal_signal_pending` of every wait. */
export function throwIfAborted(signal: AbortSignal | undefined, op: string): void {
  if (signal?.aborted) {
    throw new KernelError("EINTR", op, "the operation's AbortSignal fired", { cause: signal.reason });
  }
}
