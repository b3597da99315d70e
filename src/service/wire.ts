/** Operations over a message port, with errors that stay KernelErrors. */
import { KernelError } from "../base/index.ts";
import type { Channel, Operation, Operations, WireError } from "./protocol.ts";

/** What a port or a worker of either side can do. */
export interface Endpoint {
  postMessage(value: unknown): void;
  on(event: "message", listener: (value: unknown) => void): unknown;
}

interface Request {
  readonly id: number;
  readonly op: Operation;
  readonly args: Operations[Operation][0];
}

interface Reply {
  readonly id: number;
  readonly value?: unknown;
  readonly error?: WireError;
}

function wireError(error: unknown): WireError {
  return error instanceof KernelError
    ? { code: error.code, op: error.op, why: error.why }
    : { op: "service", why: error instanceof Error ? (error.stack ?? error.message) : String(error) };
}

function fromWire({ code, op, why }: WireError): Error {
  return code === undefined ? new Error(`${op}: ${why}`) : new KernelError(code, op, why);
}

/** Answers the requests that come over an endpoint. */
export function serveChannel(endpoint: Endpoint, host: Channel): void {
  endpoint.on("message", (message) => {
    const { id, op, args } = message as Request;
    if (op === undefined) {
      return;
    }
    host.call(op, args).then(
      (value) => endpoint.postMessage({ id, value } satisfies Reply),
      (error: unknown) => endpoint.postMessage({ id, error: wireError(error) } satisfies Reply),
    );
  });
}

/** The client's side. When the other side dies, every call fails with `ESRCH`. */
export class PortChannel implements Channel {
  readonly #endpoint: Endpoint;
  readonly #calls = new Map<number, { resolve: (value: unknown) => void; reject: (error: Error) => void }>();
  #next = 0;
  #dead: KernelError | undefined;

  constructor(endpoint: Endpoint) {
    this.#endpoint = endpoint;
    endpoint.on("message", (message) => {
      const { id, value, error } = message as Reply;
      const call = this.#calls.get(id);
      this.#calls.delete(id);
      if (error === undefined) {
        call?.resolve(value);
      } else {
        call?.reject(fromWire(error));
      }
    });
  }

  call<K extends Operation>(op: K, args: Operations[K][0]): Promise<Operations[K][1]> {
    if (this.#dead !== undefined) {
      return Promise.reject(this.#dead);
    }
    const id = this.#next++;
    return new Promise((resolve, reject) => {
      this.#calls.set(id, { resolve: (value) => resolve(value as Operations[K][1]), reject });
      this.#endpoint.postMessage({ id, op, args } satisfies Request);
    });
  }

  /** Fails what is under way and all that comes. */
  die(why: string): void {
    this.#dead ??= new KernelError("ESRCH", "service", why);
    for (const { reject } of this.#calls.values()) {
      reject(this.#dead);
    }
    this.#calls.clear();
  }
}
