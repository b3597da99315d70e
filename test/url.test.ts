/** The built command over URLs: a kernel sees the same as over the file. */
import { randomBytes } from "node:crypto";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:http";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { hasNginx, hasOpenssl, NGINX_HINT, Nginx } from "../src/testing/nginx.ts";
import { ensureBuilt, pagemirror } from "./support/built.ts";

const SUM = `
@group(0) @binding(0) var<storage, read> data: array<u32>;
@group(0) @binding(1) var<storage, read_write> sums: array<atomic<u32>, 16>;
@compute @workgroup_size(64) fn sum(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
  for (var i = id.x; i < arrayLength(&data); i += groups.x * 64) { atomicAdd(&sums[i % 16], data[i]); }
}`;
const FIRST = SUM.replace("array<u32>;", "array<u32, 1024>;").replace("arrayLength(&data)", "1024");
const WRITE = `
@group(0) @binding(0) var<storage, read_write> data: array<u32>;
@compute @workgroup_size(1) fn change() { data[0] = 1; }`;
const BYTES = randomBytes(3_000_001);

describe.skipIf(!hasNginx())(`run over a URL of ${NGINX_HINT}`, () => {
  let folder: string;
  let nginx: Nginx;
  const at = (name: string) => path.join(folder, name);
  const run = (args: readonly string[]) => pagemirror(["run", ...args], { cwd: folder });
  const sums = ["--map", "sums=new:64", "--workgroups", "64"];

  beforeAll(async () => {
    await ensureBuilt();
    folder = mkdtempSync(path.join(tmpdir(), "pagemirror-url-"));
    nginx = await Nginx.start();
    nginx.put("data.bin", BYTES);
    writeFileSync(at("data.bin"), BYTES);
    for (const [name, text] of Object.entries({ sum: SUM, first: FIRST, write: WRITE })) {
      writeFileSync(at(`${name}.wgsl`), text);
    }
  }, 180_000);

  afterAll(async () => {
    rmSync(folder, { recursive: true, force: true });
    await nginx[Symbol.asyncDispose]();
  });

  test("gives what the file gives, and the URL's bytes as an output", async () => {
    const outputs: unknown[] = [];
    for (const source of ["data.bin", `${nginx.url}/plain/data.bin`]) {
      const out = ["--out", "sums=sums.bin", "--out", "data=copy.bin", "--json"];
      const { status, stdout, stderr } = await run(["sum.wgsl", "--map", `data=${source}`, ...sums, ...out]);
      expect([status, stderr]).toEqual([0, ""]);
      expect(Buffer.compare(readFileSync(at("copy.bin")), BYTES)).toBe(0);
      outputs.push(JSON.parse(stdout).outputs);
    }
    expect(outputs[0]).toEqual(outputs[1]);
  });

  test.skipIf(!hasOpenssl())("takes https, from a server whose certificate is trusted", async () => {
    const { url = "", certificate = "" } = nginx.tls ?? {};
    const args = ["run", "sum.wgsl", "--map", `data=${url}/plain/data.bin`, ...sums, "--out", "data=copy.bin"];
    const trusting = await pagemirror(args, { cwd: folder, env: { NODE_EXTRA_CA_CERTS: certificate } });
    expect([trusting.status, trusting.stderr]).toEqual([0, ""]);
    expect(Buffer.compare(readFileSync(at("copy.bin")), BYTES)).toBe(0);
    const { status, stderr } = await pagemirror(args, { cwd: folder });
    expect(stderr).toMatch(
      /^pagemirror: map data: EIO: https:\S+: .*self-signed certificate[^\n]*: check the URL[^\n]*\n$/,
    );
    expect(status).toBe(1);
  });

  test("fetches only what the kernel binds", async () => {
    await nginx.takeLog();
    const { status, stderr } = await run([
      "first.wgsl",
      ...["--map", `data=${nginx.url}/plain/data.bin`, ...sums, "--out", "sums=sums.bin"],
    ]);
    expect([status, stderr]).toEqual([0, ""]);
    const fetched = (await nginx.takeLog()).filter(({ method }) => method === "GET");
    expect(fetched.map(({ range }) => range)).toEqual(["bytes=0-65535"]);
  });

  test.each([
    [
      "what is not there",
      "/status/404",
      /map data: ENOENT: http:\S+\/status\/404: HTTP 404: nothing is there: check the URL/,
    ],
    ["what is forbidden", "/status/403", /map data: EACCES: http:\S+\/status\/403: HTTP 403: .*check the credentials/],
    ["a server without ranges", "/no-ranges/data.bin", /map data: ENOTSUP: http:\S+: .*download it and map the file/],
  ])("%s is one clear line and exit status 1", async (_, where, line) => {
    const before = readdirSync(folder);
    const args = ["--map", `data=${nginx.url}${where}`, ...sums, "--out", "sums=never.bin"];
    const { status, stdout, stderr } = await run(["sum.wgsl", ...args]);
    expect(stderr).toMatch(/^pagemirror: [^\n]+\n$/);
    expect(stderr).toMatch(line);
    expect([status, stdout]).toEqual([1, ""]);
    expect(readdirSync(folder)).toEqual(before);
  });

  test("a kernel that writes to it is refused", async () => {
    const { status, stderr } = await run(["write.wgsl", "--map", `data=${nginx.url}/plain/data.bin`]);
    expect(stderr).toMatch(/^pagemirror: map data: EACCES: [^\n]*download it and map the file :cow or :rw\n$/);
    expect(status).toBe(1);
  });

  test("what fails while the kernel's data is fetched names the URL", async () => {
    const server: Server = createServer((request, response) => {
      const headers = { etag: '"1"', "accept-ranges": "bytes", "content-length": 4096 };
      response.writeHead(request.method === "HEAD" ? 200 : 410, request.method === "HEAD" ? headers : {}).end();
    });
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    const address = server.address();
    const port = typeof address === "object" && address !== null ? address.port : 0;
    const args = ["--map", `data=http://127.0.0.1:${port}/gone`, ...sums, "--out", "sums=never.bin"];
    const { status, stderr } = await run(["sum.wgsl", ...args]);
    expect(stderr).toMatch(/^pagemirror: [^\n]*: ENOENT: http:\S+\/gone: HTTP 410: [^\n]*check the URL\n$/);
    expect(status).toBe(1);
    await new Promise((resolve) => server.close(resolve));
  });
});
