/** Operations over a message port, with errors that stay KernelErrors. */
import { KernelError, throwIfAborted } from "../base/index.ts";
import type { Channel, Notice, Operation, Operations, WireError } from "./protocol.ts";

/** What a port of either side can do. */
export interface Endpoint {
  postMessage(value: unknown): void;
  on(event: "message", listener: (value: unknown) => void): unknown;
}

interface Request {
  readonly id: number;
  readonly op: Operation;
  readonly args: Operations[Operation][0];
  /** An {@link Abort} may come. */
  readonly abortable: boolean;
}

/** The caller of a request wants it to end. */
interface Abort {
  readonly abort: number;
}

interface Reply {
  readonly id: number;
  readonly value?: unknown;
  readonly error?: WireError;
}

/** A request that was not answered yet. */
interface Call {
  readonly op: Operation;
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: Error) => void;
}

/** An error as it can be sent. */
export function wireError(error: unknown): WireError {
  return error instanceof KernelError
    ? { code: error.code, op: error.op, why: error.why }
    : { op: "service", why: error instanceof Error ? (error.stack ?? error.message) : String(error) };
}

/** The error that was sent. */
export function fromWire({ code, op, why }: WireError): Error {
  return code === undefined ? new Error(`${op}: ${why}`) : new KernelError(code, op, why);
}

/** The error of a notice. */
export function errorOf({ error }: NonNullable<Notice["fault"]>): KernelError {
  const sent = fromWire(error);
  return sent instanceof KernelError ? sent : new KernelError("EIO", "service", sent.message);
}

/** Answers the requests that come over an endpoint. */
export function serveChannel(endpoint: Endpoint, host: Channel): void {
  const running = new Map<number, AbortController>();
  endpoint.on("message", (message) => {
    const { id, op, args, abortable, abort } = message as Request & Partial<Abort>;
    if (abort !== undefined) {
      running.get(abort)?.abort();
      return;
    }
    if (op === undefined) {
      return;
    }
    // Most calls have no signal, and a controller costs more than a message.
    const controller = abortable ? new AbortController() : undefined;
    if (controller !== undefined) {
      running.set(id, controller);
    }
    host
      .call(op, args, controller?.signal)
      .then(
        (value) => endpoint.postMessage({ id, value } satisfies Reply),
        (error: unknown) => endpoint.postMessage({ id, error: wireError(error) } satisfies Reply),
      )
      .finally(() => running.delete(id));
  });
}

/** The client's side. When the other side dies, every call fails with `ESRCH`. */
export class PortChannel implements Channel {
  readonly #endpoint: Endpoint;
  readonly #calls = new Map<number, Call>();
  readonly #onBusy: (busy: boolean) => void;
  #next = 0;
  #dead: string | undefined;

  /** `onBusy` is told when the first call is under way, and when the last one is over. */
  constructor(endpoint: Endpoint, onBusy: (busy: boolean) => void = () => undefined) {
    this.#endpoint = endpoint;
    this.#onBusy = onBusy;
    endpoint.on("message", (message) => {
      const { id, value, error } = message as Reply;
      const call = this.#calls.get(id);
      this.#forget(id);
      if (error === undefined) {
        call?.resolve(value);
      } else {
        call?.reject(fromWire(error));
      }
    });
  }

  #forget(id: number): void {
    if (this.#calls.delete(id) && this.#calls.size === 0) {
      this.#onBusy(false);
    }
  }

  async call<K extends Operation>(op: K, args: Operations[K][0], signal?: AbortSignal): Promise<Operations[K][1]> {
    if (this.#dead !== undefined) {
      throw new KernelError("ESRCH", op, this.#dead);
    }
    throwIfAborted(signal, op);
    const id = this.#next++;
    const abort = () => this.#endpoint.postMessage({ abort: id } satisfies Abort);
    signal?.addEventListener("abort", abort);
    try {
      return await new Promise((resolve, reject) => {
        // First, because arguments that cannot be sent throw.
        this.#send({ id, op, args, abortable: signal !== undefined });
        this.#calls.set(id, { op, resolve: (value) => resolve(value as Operations[K][1]), reject });
        if (this.#calls.size === 1) {
          this.#onBusy(true);
        }
      });
    } finally {
      signal?.removeEventListener("abort", abort);
    }
  }

  #send(request: Request): void {
    try {
      this.#endpoint.postMessage(request);
    } catch (error) {
      const why = `an argument cannot be sent to another thread (${String(error)}): give plain values`;
      throw new KernelError("EINVAL", request.op, why, { cause: error });
    }
  }

  /** Fails what is under way and all that comes. */
  die(why: string): void {
    this.#dead ??= why;
    for (const [id, { op, reject }] of [...this.#calls]) {
      this.#forget(id);
      reject(new KernelError("ESRCH", op, this.#dead));
    }
  }
}
