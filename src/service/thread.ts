/** The service thread: owns the address space, the driver and the GPU, and serves page faults from its event loop. */
import { type MessagePort, parentPort, workerData } from "node:worker_threads";
import { KernelError } from "../base/index.ts";
import { FaultLog } from "../platform/userfaultfd/fault-log.ts";
import { pinThread } from "../platform/userfaultfd/pin.ts";
import { ServiceHost } from "./host.ts";
import { openTrapParts } from "./parts.ts";
import type { ServiceOptions } from "./protocol.ts";
import { serveChannel } from "./wire.ts";

const { options, log, exit, rescue } = workerData as {
  /** Words: the process ends; this thread has let go. */
  readonly exit: Int32Array;
  readonly options: ServiceOptions;
  readonly log: SharedArrayBuffer;
  readonly rescue: MessagePort;
};

if (parentPort !== null) {
  const port = parentPort;
  try {
    if (options.cpu !== undefined) {
      pinThread(options.cpu);
    }
    const parts = await openTrapParts(options, {
      log: new FaultLog(log),
      onMemory: (buffer) => rescue.postMessage({ buffer }),
      onFaultError: ({ code, why }, address) => port.postMessage({ fault: { code, why, address } }),
    });
    rescue.postMessage({ descriptors: parts.descriptors });
    process.on("uncaughtException", (error) => {
      // Before the thread ends: a native callback into a thread that is ending takes the process along.
      parts.stopServing();
      port.postMessage({ fatal: String(error) });
      process.exit(1);
    });
    const close = async () => {
      try {
        await parts.close();
      } finally {
        rescue.postMessage({ closed: true });
      }
    };
    serveChannel(port, new ServiceHost({ ...parts, close }));
    port.on("message", ({ die, quit }: { readonly die?: boolean; readonly quit?: boolean }) => {
      if (quit) {
        parts.quit();
        Atomics.store(exit, 1, 1);
        Atomics.notify(exit, 1);
      }
      if (die) {
        throw new Error("a test wants it to");
      }
    });
    port.postMessage({ ready: true });
  } catch (error) {
    const { code, op, why } =
      error instanceof KernelError ? error : { code: "EIO" as const, op: "open", why: String(error) };
    port.postMessage({ failed: { code, op, why } });
  }
}
