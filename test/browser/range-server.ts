/** A web server of another origin than the tests' page, with files that a page may read, and some that it may not. */
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import type { TestProject } from "vitest/node";

const BYTES = Uint8Array.from({ length: 3 * 2 ** 20 }, (_, i) => (i * 7 + (i >> 8)) & 0xff);

const CORS = { "access-control-allow-origin": "*", "access-control-allow-headers": "range, if-range, accept-encoding" };
const EXPOSED = { "access-control-expose-headers": "accept-ranges, content-range, etag, last-modified" };

/** What each path lacks is an error that a test expects. */
const HEADERS: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  "/open.bin": { ...CORS, ...EXPOSED },
  "/hidden.bin": CORS,
  "/closed.bin": {},
};

export async function setup({ provide }: TestProject): Promise<() => Promise<void>> {
  const server = createServer((request, response) => {
    const headers = HEADERS[request.url ?? ""];
    if (headers === undefined) {
      response.writeHead(404, CORS).end();
    } else if (request.method === "OPTIONS") {
      response.writeHead(204, headers).end();
    } else {
      const [, from, to] = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? "") ?? [];
      const common = { ...headers, etag: '"v1"', "accept-ranges": "bytes" };
      if (from === undefined) {
        response.writeHead(200, { ...common, "content-length": BYTES.length });
        response.end(request.method === "HEAD" ? undefined : BYTES);
      } else {
        const part = BYTES.subarray(Number(from), Number(to) + 1);
        const range = `bytes ${from}-${Number(from) + part.length - 1}/${BYTES.length}`;
        response.writeHead(206, { ...common, "content-length": part.length, "content-range": range }).end(part);
      }
    }
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  provide("ranges", `http://127.0.0.1:${(server.address() as AddressInfo).port}`);
  return () => new Promise((resolve) => server.close(() => resolve()));
}
