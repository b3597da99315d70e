/** Giving memory of applications back that nobody names any more. */
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";

/** Windows that may wait for the collector. Each reserves gigabytes of address space; a process has room for thousands. */
const MOST = 32;

let dropped = 0;
let collect: (() => void) | undefined;

/**
 * Call it in a thread that has just dropped a window. The engine does not count shared memory when it decides to collect,
 * and a thread that makes no garbage would keep what it dropped for ever: so every now and then it is asked to.
 */
export function collectSometimes(): void {
  if (++dropped >= MOST) {
    dropped = 0;
    if (collect === undefined) {
      setFlagsFromString("--expose-gc");
      collect = runInNewContext("gc") as () => void;
    }
    setImmediate(collect);
  }
}
