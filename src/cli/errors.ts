/** How a failed command speaks: one line, an exit status, and never a stack unless PAGEMIRROR_DEBUG asks for it. */
import { BugError, type Errno, KernelError } from "../base/index.ts";

/** The command line itself is wrong: exit 2. The message names the argument and the remedy. */
export class UsageError extends Error {
  override readonly name = "UsageError";
}

/** What went wrong, as the error line and `--json` say it. */
export interface Failure {
  /** The operation, as the user knows it. */
  readonly op: string;
  readonly code: string;
  readonly why: string;
  readonly exitStatus: 1 | 2;
}

/** File errors with the remedy that each calls for. */
const FILE_ERRORS: Readonly<Record<string, { code: Errno; why: string }>> = {
  ENOENT: { code: "ENOENT", why: "there is no such file or folder: check the path" },
  ENOTDIR: { code: "ENOENT", why: "a part of the path is not a folder: check the path" },
  EISDIR: { code: "EISDIR", why: "this is a folder: name a file" },
  EACCES: { code: "EACCES", why: "you may not open it: change its permissions, or run as a user who may" },
  EPERM: { code: "EPERM", why: "the system does not permit it: change its permissions or choose another path" },
  EROFS: { code: "EACCES", why: "the file system is read-only: choose another folder" },
  ENOSPC: { code: "ENOSPC", why: "the disk is full: free some space or choose another folder" },
  ENAMETOOLONG: { code: "EINVAL", why: "the name is too long: choose a shorter one" },
  EMFILE: { code: "ENOMEM", why: "too many files are open: raise the limit (ulimit -n)" },
};

/** Puts a Node file error into our words. `op` is what was being done: `map data`, `out image`. */
export function fileError(op: string, path: string, error: unknown): KernelError {
  if (error instanceof KernelError) {
    return error;
  }
  const code = error instanceof Error && "code" in error ? String(error.code) : "";
  const known = FILE_ERRORS[code];
  return known === undefined
    ? new KernelError("EIO", op, `${path}: ${oneLine(error instanceof Error ? error.message : String(error))}`, {
        cause: error,
      })
    : new KernelError(known.code, op, `${path}: ${known.why}`, { cause: error });
}

/** Says of a failure what it was for: `map data`. */
export function failsAs(op: string): (error: unknown) => never {
  return (error) => {
    throw error instanceof KernelError ? new KernelError(error.code, op, error.why, { cause: error }) : error;
  };
}

function oneLine(text: string): string {
  return text
    .split(/\s*\n\s*/)
    .filter((part) => part !== "")
    .join("; ");
}

/** Tells a failure from whatever was thrown. */
export function describeFailure(error: unknown): Failure {
  if (error instanceof UsageError) {
    return { op: "usage", code: "EINVAL", why: oneLine(error.message), exitStatus: 2 };
  }
  if (error instanceof KernelError) {
    return { op: error.op, code: error.code, why: oneLine(error.why), exitStatus: 1 };
  }
  const remedy = "this is a fault of pagemirror: please report it with the stack that PAGEMIRROR_DEBUG=1 shows";
  if (error instanceof BugError) {
    const message = error.message.slice(error.invariant.length + 2);
    return { op: "internal", code: error.invariant, why: `${oneLine(message)}; ${remedy}`, exitStatus: 1 };
  }
  const message = error instanceof Error ? error.message : String(error);
  return { op: "internal", code: "EIO", why: `${oneLine(message)}; ${remedy}`, exitStatus: 1 };
}

/** The error line of the contract. */
export function failureLine({ op, code, why }: Failure): string {
  return `pagemirror: ${op}: ${code}: ${why}`;
}

/** The object that `--json` prints for a failed command. */
export function failureJson({ op, code, why }: Failure): string {
  return JSON.stringify({ ok: false, error: { op, code, why } });
}
