/** What a browser's file system refuses, in this library's words. */
import { type Errno, KernelError } from "../../base/index.ts";

const REMEDIES: Readonly<Record<string, readonly [Errno, string]>> = {
  NotFoundError: ["ENOENT", "does not exist any more: pick it again"],
  NotAllowedError: [
    "EACCES",
    'may not be used by this page: call handle.requestPermission({ mode: "readwrite" }) in a click',
  ],
  NoModificationAllowedError: ["EBUSY", "is open for writing elsewhere: close it there, in other tabs too"],
  QuotaExceededError: ["ENOSPC", "does not fit into the origin's quota: remove something"],
  InvalidStateError: ["EIO", "has changed or was closed since it was opened: open it again"],
  NotReadableError: ["EIO", "has changed or is gone since it was opened: open it again"],
};

/** The error for what a file operation threw: ENOENT, EACCES, EBUSY, ENOSPC by its name, else EIO. */
export function fileError(op: string, name: string, cause: unknown): KernelError {
  if (cause instanceof KernelError) {
    return cause;
  }
  const known = cause instanceof Error ? REMEDIES[cause.name] : undefined;
  const [code, why] = known ?? [
    "EIO",
    `failed (${cause instanceof Error ? cause.message : String(cause)}): open it again`,
  ];
  return new KernelError(code, op, `${name} ${why}`, { cause });
}
