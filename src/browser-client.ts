/** Opens a worker that owns the address space and the device, and is used from the page with plain calls. */
import { KernelError, traceOn } from "./base/index.ts";
import type { WorkerOpen, WorkerOpened } from "./browser-worker.ts";
import type { AdoptableMemory } from "./mm/index.ts";
import { SharedMirror } from "./service/client.ts";
import type { Notice, Wish } from "./service/protocol.ts";
import { TraceReceiver } from "./service/trace-relay.ts";
import { errorOf, PortChannel } from "./service/wire.ts";

/** How a worker that owns the device is opened. */
export interface OpenWorkerOptions {
  /** The most bytes of GPU buffers that hold pages. */
  readonly deviceMemory?: number | undefined;
  /** A worker over `pagemirror/browser/worker`, for bundlers that do not find it by themselves. It is ended by `close`. */
  readonly worker?: Worker | undefined;
}

/**
 * Opens an address space and a device in a worker: the page stays free for its user while pages travel and kernels are
 * prepared. Mappings are shared memory, so the page must be cross-origin isolated.
 * @throws KernelError ENOTSUP the page is not isolated, with the remedy; ENODEV as `open`; ESRCH the worker does not start
 */
export async function openWorker(options: OpenWorkerOptions = {}): Promise<SharedMirror> {
  if (!globalThis.crossOriginIsolated) {
    throw new KernelError("ENOTSUP", "open", NOT_ISOLATED);
  }
  const { deviceMemory } = options;
  const worker = options.worker ?? new Worker(new URL("./browser-worker.js", import.meta.url), { type: "module" });
  const channel = new PortChannel({
    postMessage: (value) => worker.postMessage(value),
    on: (_event, listener) => worker.addEventListener("message", ({ data }) => listener(data)),
  });
  const trace = new TraceReceiver((wanted) => worker.postMessage({ trace: wanted } satisfies Wish));
  let mirror: SharedMirror | undefined;
  worker.addEventListener("message", ({ data }) => {
    const { fault, traced } = data as Notice;
    if (fault !== undefined) {
      mirror?.report(errorOf(fault), fault.address);
    }
    if (traced !== undefined) {
      trace.receive(traced);
    }
  });
  try {
    await started(worker, { open: { deviceMemory }, traced: traceOn });
  } catch (error) {
    trace[Symbol.dispose]();
    worker.terminate();
    throw error;
  }
  const end = async () => {
    trace[Symbol.dispose]();
    worker.terminate();
    channel.die("it was closed: open a new one");
  };
  worker.addEventListener("error", ({ message }) => channel.die(`the worker failed (${message}): open a new one`));
  const hello = await channel.call("hello", undefined);
  mirror = new SharedMirror(
    {
      channel,
      mmu: { name: "software", why: "browsers have no other" },
      locate: sharedOnly,
      ended: end,
      unheard: ({ message }) => console.warn(message),
      provoke: end,
    },
    hello,
  );
  return mirror;
}

/** A message carries shared memory only; a WebAssembly.Memory as it is, so that the worker sees it grow. */
function sharedOnly(memory: { readonly buffer: ArrayBufferLike }): AdoptableMemory {
  if (!(memory.buffer instanceof SharedArrayBuffer)) {
    const why = "the memory is not shared, so the worker cannot see it: make it with shared: true, or use open";
    throw new KernelError("EINVAL", "adopt", why);
  }
  return memory;
}

const NOT_ISOLATED =
  "the page is not cross-origin isolated, so that it may share no memory with a worker: serve it with the headers " +
  "Cross-Origin-Opener-Policy: same-origin and Cross-Origin-Embedder-Policy: require-corp, or call open in a worker of your own";

function started(worker: Worker, open: WorkerOpen): Promise<void> {
  return new Promise((resolve, reject) => {
    const leave = () => {
      worker.removeEventListener("message", onMessage);
      worker.removeEventListener("error", onError);
    };
    const onMessage = ({ data }: MessageEvent) => {
      const { opened, failed } = data as Partial<WorkerOpened>;
      if (failed !== undefined) {
        leave();
        reject(new KernelError(failed.code, failed.op, failed.why));
      } else if (opened) {
        leave();
        resolve();
      }
    };
    const onError = ({ message }: ErrorEvent) => {
      leave();
      const what = message || "its script does not load";
      const why = `the worker does not start (${what}): give one over pagemirror/browser/worker as the option worker`;
      reject(new KernelError("ESRCH", "open", why));
    };
    worker.addEventListener("message", onMessage);
    worker.addEventListener("error", onError);
    worker.postMessage(open);
  });
}
