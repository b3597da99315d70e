/** A real web server for a test file: nginx on loopback, over a folder of its own. */
import { type ChildProcess, spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, utimesSync, writeFileSync } from "node:fs";
import { type AddressInfo, createServer } from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";

/** What an HTTPS server needs; `certificate` is the file of the authority to trust, too. */
interface Tls {
  readonly port: number;
  readonly certificate: string;
  readonly key: string;
}

/** One line of the access log. */
export interface LoggedRequest {
  readonly method: string;
  readonly path: string;
  readonly status: number;
  /** The Range header, `-` without one. */
  readonly range: string;
  readonly bytes: number;
  readonly authorization: string;
}

/** True where nginx is installed. */
export function hasNginx(): boolean {
  return spawnSync("nginx", ["-v"]).status === 0;
}

/** True where certificates can be made. */
export function hasOpenssl(): boolean {
  return spawnSync("openssl", ["version"]).status === 0;
}

/** Why a file's tests are skipped where it is not; part of the name of their group. */
export const NGINX_HINT = hasNginx() ? "nginx" : "nginx (skipped: not installed here: apt-get install nginx-light)";

/**
 * A server with two ports. What a path begins with says how it behaves:
 *
 *     /plain/       as it comes                     /no-ranges/     max_ranges 0
 *     /slow/        64 KiB/s                        /encoded/       says that it is encoded
 *     /no-head/     405 to HEAD                     /no-validator/  neither ETag nor Last-Modified
 *     /date-only/   no ETag                         /gzip/          gzip on
 *     /moved/       302 to /plain/                  /elsewhere/     302 to /plain/ of the second port
 *     /status/N     answers N                       /later/         503 with Retry-After: 1
 *
 * A path under /plain/ for which {@link Nginx.fail} was called answers that status.
 */
export class Nginx implements AsyncDisposable {
  readonly url: string;
  readonly port: number;
  /** The same over TLS, where there is openssl. */
  readonly tls: { readonly url: string; readonly certificate: string } | undefined;
  readonly #folder: string;
  readonly #child: ChildProcess;
  #sentinels = 0;
  #logStart = 0;
  #seconds = 1_700_000_000;

  private constructor(folder: string, port: number, tls: Tls | undefined, child: ChildProcess) {
    this.#folder = folder;
    this.port = port;
    this.url = `http://127.0.0.1:${port}`;
    this.tls = tls === undefined ? undefined : { url: `https://127.0.0.1:${tls.port}`, certificate: tls.certificate };
    this.#child = child;
    // A test run that ends early leaves no server behind.
    process.once("exit", this.#kill);
  }

  static async start(): Promise<Nginx> {
    const folder = mkdtempSync(path.join(tmpdir(), "pagemirror-nginx-"));
    mkdirSync(path.join(folder, "files"));
    mkdirSync(path.join(folder, "flags"));
    const [port, secondPort, tlsPort] = await freePorts(3);
    const tls = hasOpenssl() ? makeCertificate(folder, tlsPort) : undefined;
    writeFileSync(path.join(folder, "nginx.conf"), config(folder, port, secondPort, tls));
    writeFileSync(path.join(folder, "access.log"), "");
    const child = spawn("nginx", ["-e", path.join(folder, "error.log"), "-c", path.join(folder, "nginx.conf")], {
      stdio: ["ignore", "ignore", "pipe"],
    });
    let stderr = "";
    child.stderr.on("data", (text) => {
      stderr += text;
    });
    const server = new Nginx(folder, port, tls, child);
    while (!(await fetch(`${server.url}/status/204`).catch(() => undefined))) {
      if (child.exitCode !== null) {
        throw new Error(`nginx ended:\n${stderr}`);
      }
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    return server;
  }

  /** Writes a file. Each one is some seconds newer than the last, so that its ETag differs. */
  put(name: string, bytes: Uint8Array): void {
    const file = path.join(this.#folder, "files", name);
    writeFileSync(`${file}.new`, bytes);
    this.#seconds += 10;
    utimesSync(`${file}.new`, this.#seconds, this.#seconds);
    renameSync(`${file}.new`, file);
  }

  /** Answers a status for a file under /plain/ until it is undefined again. */
  fail(name: string, status: 404 | 416 | 500 | 503 | undefined): void {
    for (const each of [404, 416, 500, 503]) {
      rmSync(path.join(this.#folder, "flags", `${name}.${each}`), { force: true });
    }
    if (status !== undefined) {
      writeFileSync(path.join(this.#folder, "flags", `${name}.${status}`), "");
    }
  }

  /** The requests since the last call. */
  async takeLog(): Promise<LoggedRequest[]> {
    const sentinel = `/status/204?${this.#sentinels++}`;
    await fetch(`${this.url}${sentinel}`);
    for (;;) {
      const lines = readFileSync(path.join(this.#folder, "access.log"), "utf8").split("\n");
      const end = lines.findIndex((line, i) => i >= this.#logStart && line.split("|")[1] === sentinel);
      if (end >= 0) {
        const taken = lines.slice(this.#logStart, end);
        this.#logStart = end + 1;
        return taken.map(parseLine).filter((request) => !request.path.startsWith("/status/204"));
      }
      await new Promise((resolve) => setTimeout(resolve, 5));
    }
  }

  readonly #kill = () => {
    this.#child.kill("SIGTERM");
  };

  async [Symbol.asyncDispose](): Promise<void> {
    const ended = new Promise((resolve) => this.#child.once("exit", resolve));
    this.#kill();
    await ended;
    process.off("exit", this.#kill);
    rmSync(this.#folder, { recursive: true, force: true });
  }
}

function parseLine(line: string): LoggedRequest {
  const [method = "", target = "", status, range = "", bytes, authorization = ""] = line.split("|");
  return { method, path: target, status: Number(status), range, bytes: Number(bytes), authorization };
}

/** Ports that differ: all are held until each is known. */
async function freePorts(count: number): Promise<number[]> {
  const servers = Array.from({ length: count }, () => createServer().listen(0, "127.0.0.1"));
  await Promise.all(servers.map((server) => once(server, "listening")));
  const ports = servers.map((server) => (server.address() as AddressInfo).port);
  await Promise.all(servers.map((server) => new Promise((resolve) => server.close(resolve))));
  return ports;
}

function makeCertificate(folder: string, port: number): Tls {
  const [certificate, key] = [path.join(folder, "certificate.pem"), path.join(folder, "key.pem")];
  const { status, stderr } = spawnSync(
    "openssl",
    [
      ...["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"],
      ...["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate],
    ],
    { encoding: "utf8" },
  );
  if (status !== 0) {
    throw new Error(`openssl made no certificate:\n${stderr}`);
  }
  return { port, certificate, key };
}

function config(folder: string, port: number, secondPort: number, tls: Tls | undefined): string {
  const statuses = [401, 403, 404, 410, 416, 418, 500].map(
    (status) => `location = /status/${status} { return ${status}; }`,
  );
  const faults = [404, 416, 500, 503].map((status) => `if (-f ${folder}/flags/$1.${status}) { return ${status}; }`);
  return `
daemon off;
master_process off;
pid ${folder}/nginx.pid;
error_log ${folder}/error.log;
events { worker_connections 256; }
http {
  log_format requests '$request_method|$request_uri|$status|$http_range|$body_bytes_sent|$http_authorization';
  access_log ${folder}/access.log requests;
  ${["client_body", "proxy", "fastcgi", "uwsgi", "scgi"].map((name) => `${name}_temp_path ${folder}/${name};`).join("\n  ")}
  default_type application/octet-stream;
  keepalive_requests 100000;
  server {
    listen 127.0.0.1:${port};
    listen 127.0.0.1:${secondPort};
    ${tls === undefined ? "" : `listen 127.0.0.1:${tls.port} ssl; ssl_certificate ${tls.certificate}; ssl_certificate_key ${tls.key};`}
    location ~ ^/plain/(.*)$ { ${faults.join(" ")} alias ${folder}/files/$1; }
    location /slow/ { alias ${folder}/files/; limit_rate 64k; }
    location /no-head/ { if ($request_method = HEAD) { return 405; } alias ${folder}/files/; }
    location /no-ranges/ { alias ${folder}/files/; max_ranges 0; }
    location /encoded/ { alias ${folder}/files/; add_header Content-Encoding br; }
    location /no-validator/ { alias ${folder}/files/; etag off; add_header Last-Modified ""; }
    location /date-only/ { alias ${folder}/files/; etag off; }
    location /gzip/ { alias ${folder}/files/; gzip on; gzip_types *; gzip_min_length 1; }
    location ~ ^/moved/(.*)$ { return 302 /plain/$1; }
    location ~ ^/elsewhere/(.*)$ { return 302 http://127.0.0.1:${secondPort}/plain/$1; }
    location = /status/204 { return 204; }
    ${statuses.join("\n    ")}
    location /later/ { add_header Retry-After 1 always; return 503; }
  }
}
`;
}
