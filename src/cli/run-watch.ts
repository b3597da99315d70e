/** What `run` sends its events to: a trace file, the live inspector. */
import { KernelError, listenToTrace } from "../base/index.ts";
import { EventStore } from "../inspect/index.ts";
import { type TraceFile, writeTrace } from "../platform/node/trace-file.ts";
import { InspectServer } from "./inspect-server.ts";
import { fileIdentity } from "./output.ts";

/** What was asked for. */
export interface WatchPlan {
  readonly trace: string | undefined;
  readonly inspect: boolean;
}

/** Listens until it is disposed of; then the trace file is complete. */
export class Watch implements AsyncDisposable {
  #stop: (() => void) | undefined;
  #file: TraceFile | undefined;
  #server: InspectServer | undefined;

  /** Starts to listen. @throws KernelError of the trace file; ENOENT the inspector's page was not built */
  static async start({ trace, inspect }: WatchPlan): Promise<Watch> {
    const watch = new Watch();
    if (trace !== undefined) {
      watch.#file = writeTrace(trace);
    }
    if (inspect) {
      await watch.#serve();
    }
    return watch;
  }

  async #serve(): Promise<void> {
    const store = new EventStore();
    const origin = performance.now();
    const server = await InspectServer.start({ store, live: true });
    this.#server = server;
    this.#stop = listenToTrace(({ name, fields, at, duration }) =>
      store.add(name, fields, (at - origin) * 1000, duration * 1000),
    );
    process.stderr.write(`pagemirror: inspector: ${server.url}\n`);
  }

  /** The trace file is complete on return. Idempotent. @throws KernelError ENOSPC, EIO it could not be written */
  async endTrace(): Promise<void> {
    await this.#file?.close();
  }

  /** The run is over: serves what it has seen until Ctrl-C. Returns at once without an inspector. */
  async linger(): Promise<void> {
    const server = this.#server;
    if (server === undefined) {
      return;
    }
    server.finish();
    process.stderr.write("pagemirror: the run is over; the inspector stays until Ctrl-C\n");
    await untilInterrupted();
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.#stop?.();
    await this.#server?.close();
    // A run that failed has said why; the trace may fail for the same reason, and only one line is told.
    await this.endTrace().catch(() => undefined);
  }
}

/** Resolves at the first Ctrl-C, or when the process is asked to end. */
export function untilInterrupted(): Promise<void> {
  return new Promise((resolve) => {
    for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
      process.once(signal, () => resolve());
    }
  });
}

/** @throws KernelError EINVAL the trace would overwrite a file that the run uses */
export async function checkTracePath(trace: string | undefined, used: readonly string[]): Promise<void> {
  if (trace === undefined) {
    return;
  }
  const own = await fileIdentity(trace);
  for (const path of used) {
    if ((await fileIdentity(path)) === own) {
      throw new KernelError("EINVAL", "trace", `${trace} is used by the run itself: choose another file`);
    }
  }
}
