/** A TCP relay that cuts and stalls what goes through it. */
import { connect, createServer, type Server, type Socket } from "node:net";

/** What happens to one connection: cut, or silent, after this many bytes from the server. */
export interface Fault {
  readonly kind: "cut" | "stall";
  readonly after: number;
}

/** Relays connections to a port of loopback; the next connections meet the faults that are queued. */
export class FaultProxy implements AsyncDisposable {
  readonly faults: Fault[] = [];
  /** What every connection meets when no fault is queued. */
  always: Fault | undefined;
  readonly #server: Server;
  readonly #sockets = new Set<Socket>();

  private constructor(target: number) {
    this.#server = createServer((client) => this.#relay(client, target));
  }

  static async start(target: number): Promise<FaultProxy> {
    const proxy = new FaultProxy(target);
    await new Promise<void>((resolve) => proxy.#server.listen(0, "127.0.0.1", resolve));
    return proxy;
  }

  get url(): string {
    const address = this.#server.address();
    return `http://127.0.0.1:${typeof address === "object" && address !== null ? address.port : 0}`;
  }

  /** Ends the connections that are there, so that the next request makes a new one. */
  hangUp(): void {
    for (const socket of this.#sockets) {
      socket.destroy();
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    this.hangUp();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  #relay(client: Socket, target: number): void {
    const fault = this.faults.shift() ?? this.always;
    const server = connect(target, "127.0.0.1");
    let left = fault?.after ?? Number.POSITIVE_INFINITY;
    server.on("data", (bytes) => {
      if (left > 0) {
        client.write(bytes.subarray(0, Math.min(left, bytes.length)));
      }
      left -= bytes.length;
      if (left <= 0 && fault?.kind === "cut") {
        client.end();
        server.destroy();
      }
    });
    client.on("data", (bytes) => server.write(bytes));
    for (const [socket, other] of [
      [client, server],
      [server, client],
    ]) {
      this.#sockets.add(socket);
      socket.on("error", () => other.destroy());
      socket.on("close", () => {
        this.#sockets.delete(socket);
        other.end();
      });
    }
  }
}
