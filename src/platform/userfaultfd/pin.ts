/** Binding a thread to one processor. */
import { KernelError } from "../../base/index.ts";
import { Libc } from "./libc.ts";

/** Bytes of a processor mask: 1024 processors, as the C library's `cpu_set_t`. */
const MASK_BYTES = 128;

/**
 * Runs the calling thread on one processor only. A fault is served fastest when its thread and the serving one share a
 * processor: waking another one up costs many times the fault.
 * @throws KernelError EINVAL there is no such processor
 */
export function pinThread(cpu: number): void {
  const libc = Libc.load();
  try {
    libc.words.fill(0, 0, MASK_BYTES / 4);
    if (Number.isInteger(cpu) && cpu >= 0 && cpu < MASK_BYTES * 8) {
      libc.words[Math.floor(cpu / 32)] = 2 ** (cpu % 32);
    }
    if (libc.schedSetaffinity(0, MASK_BYTES, libc.scratch) !== 0) {
      throw new KernelError("EINVAL", "open", `this process may not run on processor ${cpu}: choose another one`);
    }
  } finally {
    libc.dispose();
  }
}
