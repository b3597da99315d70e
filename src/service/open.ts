/** Opening a service: in a thread of its own on userfaultfd, in this one on the software MMU. */
import { MessageChannel, Worker } from "node:worker_threads";
import { type Errno, KernelError } from "../base/index.ts";
import type { AdoptableMemory } from "../mm/index.ts";
import { FaultLog } from "../platform/userfaultfd/fault-log.ts";
import { Libc } from "../platform/userfaultfd/libc.ts";
import { probeUserfaultfd } from "../platform/userfaultfd/probe.ts";
import { SharedMirror } from "./client.ts";
import { ServiceHost } from "./host.ts";
import { openSoftwareParts } from "./parts.ts";
import type { Channel, ServiceOptions } from "./protocol.ts";
import { PortChannel } from "./wire.ts";

/** Options of {@link openShared}. */
export interface SharedOptions extends ServiceOptions {
  /** Default "auto": userfaultfd where it works, else software; which, and why, is said once on a warning. */
  readonly mmu?: "auto" | "userfaultfd" | "software" | undefined;
}

/**
 * Opens an address space and a device behind one API for both MMUs.
 * @throws KernelError ENOTSUP userfaultfd was asked for and does not work, with the remedy; ENODEV no adapter; EINVAL
 */
export async function openShared(options: SharedOptions = {}): Promise<SharedMirror> {
  const { mmu = "auto", ...rest } = options;
  if (mmu === "software") {
    return openHere(rest, "asked for");
  }
  const { works, why } = probeUserfaultfd();
  if (works) {
    return openThread(rest, why);
  }
  if (mmu === "userfaultfd") {
    throw new KernelError("ENOTSUP", "open", why);
  }
  warnOnce(`userfaultfd is not used, so accesses need leases: ${why}`);
  return openHere(rest, why);
}

let warned = false;

function warnOnce(message: string): void {
  if (!warned) {
    warned = true;
    process.emitWarning(message, { code: "PAGEMIRROR_MMU" });
  }
}

async function openHere(options: ServiceOptions, why: string): Promise<SharedMirror> {
  const host = new ServiceHost(await openSoftwareParts(options));
  const hello = await host.call("hello", undefined);
  return new SharedMirror(
    host,
    { name: "software", why },
    hello,
    async () => {},
    async () => {},
    (memory) => memory,
  );
}

/** A worker from this folder, as built, or from source where a loader of TypeScript is installed. */
function startWorker(name: string, workerData: object, transferList: readonly unknown[] = []): Worker {
  const options = { workerData, transferList: transferList as never, name: `pagemirror ${name}` };
  if (!import.meta.url.endsWith(".ts")) {
    return new Worker(new URL(`./${name}.js`, import.meta.url), options);
  }
  const url = JSON.stringify(new URL(`./${name}.ts`, import.meta.url).href);
  const source = `import("tsx/esm/api").then((tsx) => { tsx.register(); return import(${url}); });`;
  return new Worker(source, { ...options, eval: true });
}

async function openThread(options: ServiceOptions, why: string): Promise<SharedMirror> {
  const log = new FaultLog().buffer;
  const exit = new Int32Array(new SharedArrayBuffer(8));
  const { port1: toService, port2: toRescue } = new MessageChannel();
  const rescue = startWorker("rescue-thread", { log, exit });
  rescue.postMessage({ service: toRescue }, [toRescue]);
  const service = startWorker("thread", { options, log, exit, rescue: toService }, [toService]);
  const rescued = ended(rescue);
  const exited = ended(service);
  try {
    await untilReady(service);
  } catch (error) {
    await service.terminate();
    await rescued;
    throw error;
  }
  const channel = new PortChannel(service);
  const died = (reason: string) => channel.die(`the service thread failed (${reason}): open a new one`);
  service.on("error", (error) => died(error.message));
  service.on("message", ({ fatal }: { readonly fatal?: string }) => {
    if (fatal !== undefined) {
      died(fatal);
    }
  });
  service.on("exit", () => channel.die("the service thread has ended: open a new one"));
  service.unref();
  rescue.unref();
  const client = refWhileBusy(channel, service);
  const hello = await client.call("hello", undefined);
  const gone = async () => {
    service.ref();
    rescue.ref();
    await Promise.all([exited, rescued]);
  };
  const onExit = () => quitWithProcess(service, exit);
  process.once("exit", onExit);
  const end = async () => {
    process.off("exit", onExit);
    await service.terminate();
    await gone();
  };
  // Not terminated: a thread that is ended from outside in the middle of a native callback takes the process along.
  const kill = () => {
    service.postMessage({ die: true });
    return gone();
  };
  return new SharedMirror(client, { name: "userfaultfd", why }, hello, end, kill, locateByAddress);
}

/** Memory of this process, for another thread of it: only its address can be sent. */
function locateByAddress({ buffer }: { readonly buffer: ArrayBufferLike }): AdoptableMemory {
  const libc = Libc.load();
  try {
    return { address: libc.addressOf(buffer), byteLength: buffer.byteLength };
  } finally {
    libc.dispose();
  }
}

/** How long the process waits at its end for the service to let go of everything. */
const EXIT_MS = 2000;

/**
 * The process ends while the service is there: threads that wait for a page are let go, and native callbacks end, before
 * the threads are ended from outside.
 */
function quitWithProcess(service: Worker, exit: Int32Array): void {
  Atomics.store(exit, 0, 1);
  service.postMessage({ quit: true });
  Atomics.wait(exit, 1, 0, EXIT_MS);
}

function ended(worker: Worker): Promise<void> {
  return new Promise((resolve) => {
    worker.once("exit", () => resolve());
  });
}

/** The process stays alive while a call is under way, and not because a service is open. */
function refWhileBusy(channel: Channel, worker: Worker): Channel {
  let busy = 0;
  return {
    call: async (op, args) => {
      if (busy++ === 0) {
        worker.ref();
      }
      try {
        return await channel.call(op, args);
      } finally {
        if (--busy === 0) {
          worker.unref();
        }
      }
    },
  };
}

async function untilReady(service: Worker): Promise<void> {
  await new Promise<void>((resolve, reject) => {
    service.once("error", reject);
    service.once("exit", () => reject(new KernelError("ESRCH", "open", "the service thread ended at once")));
    service.once(
      "message",
      ({ failed }: { readonly failed?: { readonly code: Errno; readonly op: string; readonly why: string } }) => {
        if (failed === undefined) {
          resolve();
        } else {
          reject(new KernelError(failed.code, failed.op, failed.why));
        }
      },
    );
  });
}
