/**
 * The thread that outlives the service thread. While all is well it does nothing. When the service dies, threads may be
 * waiting for pages that nobody will bring: the death is reported in shared memory, every window is replaced by the
 * poison pattern, and then the waiting threads are woken.
 */
import { parentPort, workerData } from "node:worker_threads";
import { FaultLog } from "../platform/userfaultfd/fault-log.ts";
import { Libc } from "../platform/userfaultfd/libc.ts";
import { poisonMemories } from "../platform/userfaultfd/poison.ts";

const { log, exit } = workerData as { readonly log: SharedArrayBuffer; readonly exit: Int32Array };
// Now, not when it is needed: by then the process may be ending.
const libc = Libc.load();

interface Told {
  /** Memory of applications that may trap: kept here, so that its addresses stay its own. */
  readonly buffer?: SharedArrayBuffer;
  readonly descriptors?: readonly number[];
  /** The service ended as it should. */
  readonly closed?: boolean;
}

const memories: SharedArrayBuffer[] = [];
let descriptors: readonly number[] = [];
let closed = false;

parentPort?.once("message", ({ service }: { readonly service: import("node:worker_threads").MessagePort }) => {
  service.on("message", (told: Told) => {
    if (told.buffer !== undefined) {
      memories.push(told.buffer);
    }
    descriptors = told.descriptors ?? descriptors;
    closed ||= told.closed === true;
  });
  service.on("close", () => {
    if (!closed && Atomics.load(exit, 0) === 0) {
      new FaultLog(log).report("ESRCH", 0);
      poisonMemories(libc, memories, descriptors);
    }
    libc.dispose();
    parentPort?.postMessage({ closed });
    parentPort?.close();
  });
});
