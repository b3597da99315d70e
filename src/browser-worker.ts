/**
 * The worker that owns an address space and a device for a page: `new Worker(…, { type: "module" })` over this module, and
 * `openWorker` on the page's side. It does nothing but serve.
 */
import { KernelError } from "./base/index.ts";
import { open } from "./browser.ts";
import { FaultLog } from "./platform/userfaultfd/fault-log.ts";
import { ServiceHost } from "./service/host.ts";
import { type Endpoint, serveChannel, wireError } from "./service/wire.ts";

/** What the page sends first. */
export interface WorkerOpen {
  readonly open: { readonly deviceMemory?: number | undefined };
}

/** What it is answered: nothing is wrong, or an error. */
export interface WorkerOpened {
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
export async function serve({ open: options }: WorkerOpen): Promise<WorkerOpened> {
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
      close: () => {
        closing = true;
        return pm.close();
      },
    });
    pm.device.gpu.lost.onLost(() => {
      if (!closing) {
        endpoint.postMessage({ fault: { error: wireError(pm.device.gpu.lost.error("device")), address: undefined } });
      }
    });
    serveChannel(endpoint, host);
    return {};
  } catch (error) {
    const { code, op, why } =
      error instanceof KernelError ? error : { code: "EIO" as const, op: "open", why: String(error) };
    return { failed: { code, op, why } };
  }
}

if ("WorkerGlobalScope" in globalThis) {
  scope.addEventListener("message", async ({ data }) => scope.postMessage(await serve(data as WorkerOpen)), {
    once: true,
  });
}
