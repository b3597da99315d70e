/**
 * The end of a worker in which Dawn works. Dawn promises what a GPU will have done, looks for it in each turn of the event
 * loop, and aborts the process when a promise of it is never settled: as are those of a thread that ends, for which no turn
 * comes. What Dawn does in a turn is done once more when such a thread exits.
 *
 * Dawn asks for its turns by the global `setImmediate`, as it is each time. In a worker with an open device that is one that
 * remembers them. A thread that is ended from outside runs nothing more: it aborts the process still.
 */
import { isMainThread } from "node:worker_threads";

/** How long a thread waits at its end for the GPU. */
const END_MS = 2000;
const PAUSE_MS = 0.2;
const NEVER_WOKEN = new Int32Array(new SharedArrayBuffer(4));

type Turn = () => void;

const devices = new Set<{ destroy(): void }>();
/** Mostly one: what Dawn asked for and has not got. */
const turns = new Set<Turn>();
let original: typeof setImmediate | undefined;
let remembering: typeof setImmediate | undefined;

/** A function of native code without a name: neither one of the engine's nor a bound one. */
function isDawns(callback: unknown): callback is Turn {
  return typeof callback === "function" && callback.name === "" && String(callback).endsWith("{ [native code] }");
}

function rememberTurns(real: typeof setImmediate): typeof setImmediate {
  const remember = (callback: (...args: unknown[]) => void, ...args: unknown[]) => {
    if (!isDawns(callback)) {
      return real(callback, ...args);
    }
    const turn = () => {
      turns.delete(turn);
      callback();
    };
    turns.add(turn);
    return real(turn);
  };
  return Object.defineProperties(remember, Object.getOwnPropertyDescriptors(real)) as typeof setImmediate;
}

function settle(): void {
  for (const device of devices) {
    device.destroy();
  }
  const began = performance.now();
  while (turns.size > 0 && performance.now() - began < END_MS) {
    for (const turn of [...turns]) {
      turn();
    }
    if (turns.size > 0) {
      Atomics.wait(NEVER_WOKEN, 0, 0, PAUSE_MS);
    }
  }
}

/** Lets the thread end by itself although the device works, until the returned function is called. In the main thread it may. */
export function settleAtEnd(device: { destroy(): void }): () => void {
  if (isMainThread) {
    return () => {};
  }
  if (devices.size === 0) {
    original = globalThis.setImmediate;
    remembering = rememberTurns(original);
    globalThis.setImmediate = remembering;
    process.on("exit", settle);
  }
  devices.add(device);
  return () => {
    if (devices.delete(device) && devices.size === 0) {
      process.off("exit", settle);
      // Somebody else may have replaced it since.
      if (original !== undefined && globalThis.setImmediate === remembering) {
        globalThis.setImmediate = original;
      }
    }
  };
}
