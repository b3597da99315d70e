/** Descriptors that go with the thread that has them. */
import { closeSync, openSync } from "node:fs";
import { KernelError } from "../../base/index.ts";
import { CLOEXEC } from "./abi.ts";
import type { Libc } from "./libc.ts";

const PLACE = "/dev/null";

/** A descriptor of one thread. */
export interface OwnDescriptor {
  readonly fd: number;
  close(): void;
}

/**
 * Gives a descriptor to the calling thread, under another number: however the thread ends, also when it is ended from
 * outside and nothing of it runs any more, Node closes what was opened through its `fs`. Where Node allows that no file is
 * opened, it stays as it is.
 */
export function ownDescriptor(libc: Libc, fd: number): OwnDescriptor {
  let own: number;
  try {
    own = openSync(PLACE, "r");
  } catch {
    return { fd, close: () => void libc.close(fd) };
  }
  libc.dup3(fd, own, CLOEXEC);
  libc.close(fd);
  return { fd: own, close: () => closeSync(own) };
}

/** One more descriptor of the same file, nobody's yet: for another thread. @throws KernelError ENOMEM */
export function duplicate(libc: Libc, fd: number): number {
  const other = libc.open(PLACE, CLOEXEC);
  if (other < 0) {
    throw new KernelError("ENOMEM", "open", `no descriptor is left (errno ${libc.errno}): close some, or ulimit -n`);
  }
  libc.dup3(fd, other, CLOEXEC);
  return other;
}
