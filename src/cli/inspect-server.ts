/** Serves the inspector's page and a store of events, on loopback, to who has the token. */
import { randomBytes, timingSafeEqual } from "node:crypto";
import { existsSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { KernelError } from "../base/index.ts";
import type { EventStore } from "../inspect/index.ts";

const TYPES: Readonly<Record<string, string>> = {
  ".html": "text/html; charset=utf-8",
  ".js": "text/javascript; charset=utf-8",
  ".css": "text/css; charset=utf-8",
  ".svg": "image/svg+xml",
};

/** Rows of one answer: a page that is far behind catches up in pieces. */
const TELL_EVERY_MS = 250;

const HEADERS = {
  "Cache-Control": "no-store",
  "Content-Security-Policy":
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
  "Cross-Origin-Resource-Policy": "same-origin",
  "Referrer-Policy": "no-referrer",
  "X-Content-Type-Options": "nosniff",
} as const;

/** What the inspector shows. */
export interface InspectOptions {
  readonly store: EventStore;
  /** More events will come. */
  readonly live: boolean;
  /** Folder of the built page. Default: beside the compiled command. */
  readonly page?: string;
}

/** The folder that `npm run build` puts the page into. */
function defaultPage(): string {
  const here = path.dirname(fileURLToPath(import.meta.url));
  const built = path.join(here, "..", "inspector");
  return existsSync(built) ? built : path.join(here, "..", "..", "dist", "inspector");
}

/** A server on a port of 127.0.0.1 that the system chooses. */
export class InspectServer {
  readonly #server: Server;
  readonly #store: EventStore;
  readonly #page: string;
  readonly #token = randomBytes(18).toString("base64url");
  readonly #watchers = new Set<ServerResponse>();
  #live: boolean;
  #told = -1;
  #timer: NodeJS.Timeout | undefined;

  private constructor({ store, live, page }: InspectOptions) {
    this.#store = store;
    this.#live = live;
    this.#page = page ?? defaultPage();
    this.#server = createServer((request, response) => {
      this.#answer(request, response).catch(() => {
        response.destroy();
      });
    });
  }

  /** @throws KernelError ENOENT the page was not built */
  static async start(options: InspectOptions): Promise<InspectServer> {
    const server = new InspectServer(options);
    if (!existsSync(path.join(server.#page, "index.html"))) {
      throw new KernelError("ENOENT", "inspect", `there is no page in ${server.#page}: run npm run build`);
    }
    await new Promise<void>((resolve, reject) => {
      server.#server.once("error", reject);
      server.#server.listen(0, "127.0.0.1", resolve);
    });
    server.#timer = setInterval(() => server.#tell(), TELL_EVERY_MS);
    return server;
  }

  get port(): number {
    const address = this.#server.address();
    return typeof address === "object" && address !== null ? address.port : 0;
  }

  /** Where to point a browser. */
  get url(): string {
    return `http://127.0.0.1:${this.port}/?token=${this.#token}`;
  }

  /** No more events will come; the page stays. */
  finish(): void {
    this.#live = false;
    this.#told = -1;
    this.#tell();
  }

  /** Ends all connections. */
  async close(): Promise<void> {
    clearInterval(this.#timer);
    for (const watcher of this.#watchers) {
      watcher.end();
    }
    this.#server.closeAllConnections();
    await new Promise<void>((resolve) => this.#server.close(() => resolve()));
  }

  #tell(): void {
    const { count } = this.#store;
    if (count !== this.#told) {
      this.#told = count;
      for (const watcher of this.#watchers) {
        watcher.write(this.#status());
      }
    }
  }

  #status(): string {
    const { count, samples, dropped } = this.#store;
    return `data: ${JSON.stringify({ count, samples: samples.length, dropped, live: this.#live })}\n\n`;
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const refusal = this.#refuse(request);
    if (refusal !== undefined) {
      response.writeHead(refusal, HEADERS).end();
      return;
    }
    const url = new URL(request.url ?? "/", "http://127.0.0.1");
    // The page's own code is no secret; what was traced is.
    if (url.pathname.startsWith("/assets/")) {
      await this.#file(url.pathname, response);
      return;
    }
    if (!this.#knows(url.searchParams.get("token"))) {
      response.writeHead(403, HEADERS).end("the token is missing or wrong: use the address that the command printed\n");
      return;
    }
    switch (url.pathname) {
      case "/":
        await this.#file("/index.html", response);
        break;
      case "/events": {
        const number = (name: string) => Math.trunc(Number(url.searchParams.get(name) ?? 0)) || 0;
        const bytes = this.#store.encode(number("from"), number("samples"));
        response.writeHead(200, { ...HEADERS, "Content-Type": "application/octet-stream" }).end(bytes);
        break;
      }
      case "/live":
        response.writeHead(200, { ...HEADERS, "Content-Type": "text/event-stream" });
        response.write(this.#status());
        this.#watchers.add(response);
        response.on("close", () => this.#watchers.delete(response));
        break;
      default:
        response.writeHead(404, HEADERS).end();
    }
  }

  /** A name that was rebound to this machine, or a page of another origin, may not read. */
  #refuse({ method, headers }: IncomingMessage): number | undefined {
    if (method !== "GET") {
      return 405;
    }
    const hosts = [`127.0.0.1:${this.port}`, `localhost:${this.port}`];
    if (headers.host === undefined || !hosts.includes(headers.host)) {
      return 421;
    }
    return headers.origin === undefined || hosts.includes(headers.origin.replace("http://", "")) ? undefined : 403;
  }

  #knows(token: string | null): boolean {
    const [given, wanted] = [Buffer.from(token ?? ""), Buffer.from(this.#token)];
    return given.length === wanted.length && timingSafeEqual(given, wanted);
  }

  async #file(name: string, response: ServerResponse): Promise<void> {
    const file = path.join(this.#page, path.normalize(name));
    const type = TYPES[path.extname(file)];
    if (type === undefined || !file.startsWith(this.#page + path.sep)) {
      response.writeHead(404, HEADERS).end();
      return;
    }
    try {
      const bytes = await readFile(file);
      response.writeHead(200, { ...HEADERS, "Content-Type": type }).end(bytes);
    } catch {
      response.writeHead(404, HEADERS).end();
    }
  }
}
