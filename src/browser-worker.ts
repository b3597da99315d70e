/**
 * The worker that owns an address space and a device for a page: `new Worker(…, { type: "module" })` over this module, and
 * `openWorker` on the page's side. It does nothing but serve.
 */
import { KernelError } from "./base/index.ts";
import { open } from "./browser.ts";
import type { AddressSpace } from "./mm/index.ts";
import { FaultLog } from "./platform/userfaultfd/fault-log.ts";
import { ServiceHost } from "./service/host.ts";
import type { Notice, Wish } from "./service/protocol.ts";
import { TraceSender } from "./service/trace-relay.ts";
import { type Endpoint, serveChannel, wireError } from "./service/wire.ts";

/** What the page sends first. */
export interface WorkerOpen {
  readonly open: { readonly deviceMemory?: number | undefined };
  /** Events of tracepoints are wanted. */
  readonly traced: boolean;
}

/** What it is answered: nothing is wrong, or an error. */
export interface WorkerOpened {
  readonly opened: boolean;
  readonly failed?: Pick<KernelError, "code" | "op" | "why">;
}

/** What a worker's global object has, and the library's own types of a page do not know. */
interface WorkerScope {
  postMessage(value: unknown): void;
  addEventListener(
    type: "message",
    listener: (event: MessageEvent) => void,
    options?: { readonly once: boolean },
  ): void;
}

const scope = globalThis as unknown as WorkerScope;

const endpoint: Endpoint = {
  postMessage: (value) => scope.postMessage(value),
  on: (_event, listener) => scope.addEventListener("message", ({ data }) => listener(data)),
};

/** Opens what a page asked for, and serves it. */
export async function serve({ open: options, traced }: WorkerOpen): Promise<WorkerOpened> {
  const trace = new TraceSender((chunk) => endpoint.postMessage({ traced: chunk } satisfies Notice));
  trace.want(traced);
  let spaces = (): readonly AddressSpace[] => [];
  endpoint.on("message", (message) => {
    const { trace: wanted } = message as Wish;
    if (wanted !== undefined) {
      trace.want(wanted, spaces());
    }
  });
  try {
    const pm = await open(options);
    let closing = false;
    const host = new ServiceHost({
      mm: pm.mm,
      adapter: pm.adapter,
      log: new FaultLog(),
      counts: { faults: 0, pagesShown: 0, errors: 0 },
      device: () => pm.device,
      openFile: (file, fileOptions) => {
        if (typeof file === "string") {
          throw new KernelError(
            "EINVAL",
            "open",
            `"${file}" is a path: give a File or a FileSystemFileHandle in a browser`,
          );
        }
        return pm.openFile(file, fileOptions);
      },
      openUrl: (url, urlOptions) => pm.openUrl(url, urlOptions),
      populate: () => undefined,
      close: async () => {
        closing = true;
        await pm.close();
        trace.end();
      },
    });
    spaces = () => host.spaces;
    pm.device.gpu.lost.onLost(() => {
      if (!closing) {
        endpoint.postMessage({ fault: { error: wireError(pm.device.gpu.lost.error("device")), address: undefined } });
      }
    });
    serveChannel(endpoint, host);
    return { opened: true };
  } catch (error) {
    const { code, op, why } =
      error instanceof KernelError ? error : { code: "EIO" as const, op: "open", why: String(error) };
    trace.end();
    return { opened: false, failed: { code, op, why } };
  }
}

if ("WorkerGlobalScope" in globalThis) {
  scope.addEventListener("message", async ({ data }) => scope.postMessage(await serve(data as WorkerOpen)), {
    once: true,
  });
}
