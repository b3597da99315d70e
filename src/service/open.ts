/** Opening a service: in a thread of its own on userfaultfd, in this one on the software MMU. */
import { writeSync } from "node:fs";
import { inspect } from "node:util";
import { isMainThread, MessageChannel, type MessagePort } from "node:worker_threads";
import { KernelError, quote, traceOn } from "../base/index.ts";
import type { AdoptableMemory } from "../mm/index.ts";
import { assertFaultAround } from "../platform/userfaultfd/around.ts";
import { FaultLog } from "../platform/userfaultfd/fault-log.ts";
import { endProcess, Libc } from "../platform/userfaultfd/libc.ts";
import { probeUserfaultfd } from "../platform/userfaultfd/probe.ts";
import { SharedMirror } from "./client.ts";
import { ServiceHost } from "./host.ts";
import type { ServiceOptions, SharedOptions } from "./options.ts";
import { openSoftwareParts } from "./parts.ts";
import type { Notice, Wish } from "./protocol.ts";
import { BEAT_MS, type Rescued, type Session, WORDS, Word } from "./session.ts";
import { ended, keepAlive, putServiceThread, takeServiceThread, watchService } from "./threads.ts";
import { TraceReceiver } from "./trace-relay.ts";
import { errorOf, fromWire, PortChannel } from "./wire.ts";

const MMUS = ["auto", "userfaultfd", "software"] as const;
/** See {@link ServiceOptions.stuckMs}. */
const STUCK_MS = 60_000;
/** A thread that is well may be late by a beat or two. */
const MIN_STUCK_MS = 3 * BEAT_MS;

/**
 * Opens an address space and a device behind one API for both MMUs.
 * @throws KernelError ENOTSUP userfaultfd was asked for and does not work, with the remedy; ENODEV no adapter; EINVAL
 */
export async function openShared(options: SharedOptions = {}): Promise<SharedMirror> {
  const { mmu = "auto", ...rest } = options;
  const { stuckMs = STUCK_MS } = options;
  if (!MMUS.includes(mmu)) {
    throw new KernelError("EINVAL", "open", `mmu ${quote(mmu)}: use ${MMUS.join(", ")}`);
  }
  if (options.faultAround !== undefined) {
    assertFaultAround(options.faultAround);
  }
  if (typeof stuckMs !== "number" || !(stuckMs >= MIN_STUCK_MS)) {
    throw new KernelError("EINVAL", "open", `stuckMs ${stuckMs}: give at least ${MIN_STUCK_MS} milliseconds`);
  }
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

const unheard = (error: KernelError) => process.emitWarning(error.message, { code: "PAGEMIRROR_FAULT" });

async function openHere(options: ServiceOptions, why: string): Promise<SharedMirror> {
  let report = (_error: KernelError, _address?: number) => {};
  const channel = new ServiceHost(await openSoftwareParts(options, (error, address) => report(error, address)));
  const mirror = new SharedMirror(
    {
      channel,
      mmu: { name: "software", why },
      locate: (memory) => memory,
      unheard,
      ended: async () => {},
      provoke: async () => {},
    },
    await channel.call("hello", undefined),
  );
  report = (error, address) => mirror.report(error, address);
  return mirror;
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

/** Services that are open, by what ends each of them in no time. */
const open = new Set<() => void>();
let uncaught: { readonly error: unknown } | undefined;
const endAll = () => {
  for (const end of open) {
    end();
  }
};
const noteUncaught = (error: unknown) => {
  uncaught = { error };
};

/** `end` is called when the process ends, until the returned function is. */
function atExit(end: () => void): () => void {
  if (open.size === 0) {
    process.on("exit", endAll);
    process.on("uncaughtExceptionMonitor", noteUncaught);
  }
  open.add(end);
  return () => {
    if (open.delete(end) && open.size === 0) {
      process.off("exit", endAll);
      process.off("uncaughtExceptionMonitor", noteUncaught);
    }
  };
}

async function openThread(options: ServiceOptions, why: string): Promise<SharedMirror> {
  const log = new FaultLog().buffer;
  const words = new Int32Array(new SharedArrayBuffer(WORDS * 4));
  const service = takeServiceThread();
  const { port1: toClient, port2: client } = new MessageChannel();
  const { port1: toRescue, port2: fromService } = new MessageChannel();
  const rescue = watchService({ log, words, service: fromService, stuckMs: options.stuckMs ?? STUCK_MS }, (silent) => {
    const remedy = `the service thread has not answered for ${silent} ms: wait, or end the process`;
    mirror?.report(new KernelError("EBUSY", "service", remedy));
  });
  let mirror: SharedMirror | undefined;
  let fatal = "it ended";
  let closed = () => {};
  const lastWord = new Promise<void>((resolve) => {
    closed = resolve;
  });
  client.on("message", ({ fault, traced, fatal: message, closed: last }: Notice) => {
    fatal = message ?? fatal;
    if (last) {
      closed();
    }
    if (fault !== undefined) {
      mirror?.report(errorOf(fault), fault.address);
    }
    if (traced !== undefined) {
      trace.receive(traced);
    }
  });
  const trace = new TraceReceiver((wanted) => client.postMessage({ trace: wanted } satisfies Wish));
  const exited = ended(service);
  const session: Session = { options, log, words, client: toClient, rescue: toRescue, traced: traceOn };
  service.postMessage({ open: session }, [toClient, toRescue]);
  let idle: (() => void) | undefined;
  const channel = new PortChannel(client, (busy) => {
    if (busy) {
      client.ref();
      idle = keepAlive();
    } else {
      client.unref();
      idle?.();
      idle = undefined;
    }
  });
  let ready = false;
  const quit = () => {
    if (ready) {
      quitWithProcess(client, words, () => idle !== undefined, rescue.giveUp);
    } else {
      endWithoutThreads();
    }
  };
  const quitAtExit = atExit(quit);
  const settled = rescue.over.then(async ({ poisoned = false, stuck = false }) => {
    quitAtExit();
    trace[Symbol.dispose]();
    if (stuck) {
      // Wherever its thread hangs, it cannot be ended from outside.
      void exited.then(atExit(() => endWithoutThreads()));
    }
    if (poisoned) {
      const failure = stuck ? undefined : await exited;
      const reason = stuck ? "it did not answer for too long" : (failure?.message ?? fatal);
      const gone = `the service thread failed (${reason}), and its memory is poisoned: open a new one`;
      channel.die(gone);
      mirror?.report(new KernelError("ESRCH", "service", gone));
    } else {
      await lastWord;
      channel.die("the service was closed: open a new one");
      await putServiceThread(service, options.cpu === undefined);
    }
    client.close();
  });
  const untilSettled = async () => {
    const release = keepAlive();
    client.ref();
    await settled.finally(release);
  };
  const starting = keepAlive();
  try {
    await untilReady(client, rescue.over, exited);
    ready = true;
  } catch (error) {
    await untilSettled();
    throw error;
  } finally {
    starting();
    client.unref();
  }
  mirror = new SharedMirror(
    {
      channel,
      mmu: { name: "userfaultfd", why },
      locate: locateByAddress,
      unheard,
      ended: untilSettled,
      provoke: async (what) => {
        client.postMessage({ provoke: what });
        await untilSettled();
      },
    },
    await channel.call("hello", undefined),
  );
  return mirror;
}

/** How long the process waits at its end for a service to let go of everything. */
const EXIT_MS = 2000;

/**
 * The process, or the thread that opened the service, ends while the service is there: threads that wait for a page are let
 * go, and native callbacks and the GPU's work end, before the threads are ended from outside. A thread that does not
 * answer would take the process along with a crash: then no thread is ended, and the process goes as soon as everybody
 * has heard of its end; as it does at once when its GPU works and all is over anyway.
 */
function quitWithProcess(client: MessagePort, words: Int32Array, isBusy: () => boolean, giveUp: () => void): void {
  client.postMessage({ quit: true });
  const late = Atomics.wait(words, Word.LetGo, 0, EXIT_MS) === "timed-out";
  if (late) {
    giveUp();
    Atomics.wait(words, Word.LetGo, 0, EXIT_MS);
  }
  const cutOff = isMainThread && isBusy();
  if (late || cutOff || Atomics.wait(words, Word.Quiet, 0, EXIT_MS) === "timed-out") {
    endWithoutThreads();
  }
}

/** The process goes without ending its threads first, in the middle of whatever they do. */
function endWithoutThreads(): void {
  if (uncaught !== undefined) {
    writeSync(2, `${inspect(uncaught.error)}\n`);
    endProcess(Number(process.exitCode ?? 1));
  }
  // What process.exit calls when all listeners have run.
  Object.defineProperty(process, "reallyExit", { value: (code?: number) => endProcess(code ?? 0) });
}

/** @throws KernelError of the opening; ESRCH the thread ended at once */
function untilReady(client: MessagePort, over: Promise<Rescued>, exited: Promise<Error | undefined>): Promise<void> {
  return new Promise((resolve, reject) => {
    const listener = ({ ready, failed }: Notice) => {
      if (ready) {
        resolve();
      } else if (failed !== undefined) {
        reject(fromWire(failed));
      } else {
        return;
      }
      client.off("message", listener);
    };
    client.on("message", listener);
    void over.then(async ({ poisoned }) => {
      if (poisoned) {
        const why = (await exited)?.message ?? "it wrote why";
        reject(
          new KernelError("ESRCH", "open", `the service thread ended at once (${why}): put that right, and open anew`),
        );
      }
    });
  });
}
