import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { PhysicalMemory } from "../../mm/index.ts";
import { hasNginx, NGINX_HINT, Nginx } from "../../testing/nginx.ts";
import { createSpace } from "../../testing/spaces.ts";
import { pattern } from "../../testing/transfers.ts";
import { SoftwareMmu } from "../software/cpu-mmu.ts";
import { type OpenUrlOptions, openUrlObject } from "./open-url.ts";

const memory = new PhysicalMemory(new SoftwareMmu());
const QUICK = { retries: 2, backoffMs: 1 };
const BYTES = pattern(300_001);

test.each([
  ["no url at all", "EINVAL", "is not a URL"],
  ["ftp://host/file", "EINVAL", "ftp: URLs cannot be mapped"],
  ["file:///etc/hostname", "EINVAL", "open the file itself"],
])("refuses %s", async (url, code, message) => {
  await expect(openUrlObject(memory, url)).rejects.toMatchObject({ code, message: expect.stringContaining(message) });
});

test.each<[OpenUrlOptions, string]>([
  [{ requestBytes: 5000 }, "requestBytes 5000: give a multiple of 4096 from 4096 up"],
  [{ requestBytes: 0 }, "requestBytes 0: give a multiple of 4096 from 4096 up"],
  [{ concurrency: 0 }, "concurrency 0: give a whole number from 1 up"],
  [{ retries: -1 }, "retries -1: give a whole number from 0 up"],
  [{ timeoutMs: Number.NaN }, "timeoutMs NaN: give a whole number from 1 up"],
])("refuses the option %o", async (options, why) => {
  await expect(openUrlObject(memory, "http://127.0.0.1:9/x", options)).rejects.toMatchObject({ code: "EINVAL", why });
});

test.each([
  ["http://127.0.0.1:2/x", "ECONNREFUSED"],
  ["http://nobody.invalid/x", "ENOTFOUND|EAI_AGAIN"],
])("the server of %s is not there: EIO with the reason", async (url, reason) => {
  await expect(openUrlObject(memory, url, QUICK)).rejects.toMatchObject({
    code: "EIO",
    why: expect.stringMatching(new RegExp(`^${url}: .*(${reason}).*: check the`)),
  });
});

test("a port that fetch refuses is not asked again and again", async () => {
  const opening = openUrlObject(memory, "http://127.0.0.1:1/x", { retries: 1000, backoffMs: 60_000 });
  await expect(opening).rejects.toMatchObject({
    code: "EIO",
    why: "http://127.0.0.1:1/x: bad port: check the URL and its server",
  });
});

describe.skipIf(!hasNginx())(`opening a URL of ${NGINX_HINT}`, () => {
  let nginx: Nginx;

  beforeAll(async () => {
    nginx = await Nginx.start();
    nginx.put("data.bin", BYTES);
    nginx.put("empty.bin", new Uint8Array(0));
  });
  afterAll(() => nginx[Symbol.asyncDispose]());

  async function firstPages(path: string, options: OpenUrlOptions = {}): Promise<Uint8Array> {
    const object = await openUrlObject(memory, `${nginx.url}${path}`, { ...QUICK, ...options });
    const bytes = new Uint8Array(8192);
    await object.pager?.read(0, bytes);
    await object.put();
    return bytes;
  }

  test("asks with one HEAD and fetches nothing", async () => {
    await nginx.takeLog();
    const object = await openUrlObject(memory, `${nginx.url}/plain/data.bin`);
    expect(object.pages).toBe(Math.ceil(BYTES.length / 4096));
    expect(object.pager).toMatchObject({
      name: `${nginx.url}/plain/data.bin`,
      length: BYTES.length,
      writable: false,
    });
    await object.put();
    expect((await nginx.takeLog()).map(({ method, status }) => [method, status])).toEqual([["HEAD", 200]]);
  });

  test.each(["/plain/", "/no-head/", "/date-only/", "/gzip/", "/moved/", "/elsewhere/"])(
    "maps what is under %s",
    async (prefix) => {
      expect(await firstPages(`${prefix}data.bin`)).toEqual(BYTES.subarray(0, 8192));
    },
  );

  test("a server that refuses HEAD is asked for one byte", async () => {
    await nginx.takeLog();
    await firstPages("/no-head/data.bin", { requestBytes: 8192 });
    const log = await nginx.takeLog();
    expect(log.map(({ method, status, range }) => [method, status, range])).toEqual([
      ["HEAD", 405, "-"],
      ["GET", 206, "bytes=0-0"],
      ["GET", 206, "bytes=0-8191"],
    ]);
  });

  test("redirects are followed once: reads go to where they led", async () => {
    await nginx.takeLog();
    await firstPages("/moved/data.bin", { requestBytes: 8192 });
    expect((await nginx.takeLog()).map(({ method, path }) => [method, path])).toEqual([
      ["HEAD", "/moved/data.bin"],
      ["HEAD", "/plain/data.bin"],
      ["GET", "/plain/data.bin"],
    ]);
  });

  test("credentials go with every request, but not to another origin", async () => {
    const headers = { Authorization: "Bearer secret" };
    await nginx.takeLog();
    await firstPages("/moved/data.bin", { headers });
    const same = await nginx.takeLog();
    expect(same.map(({ authorization }) => authorization)).toEqual(Array(3).fill("Bearer secret"));
    await firstPages("/elsewhere/data.bin", { headers });
    const other = await nginx.takeLog();
    expect(other.map(({ authorization }) => authorization)).toEqual(["Bearer secret", "-", "-"]);
  });

  test("a user and a password in the URL become a header and are never shown", async () => {
    const url = nginx.url.replace("http://", "http://jo:s%C3%A9same@");
    await nginx.takeLog();
    const object = await openUrlObject(memory, `${url}/plain/data.bin?X-Signature=abc&part=1#top`, QUICK);
    expect(object.pager?.name).toBe(`${nginx.url}/plain/data.bin?X-Signature=...&part=1`);
    await object.put();
    const [head] = await nginx.takeLog();
    expect(head).toMatchObject({
      path: "/plain/data.bin?X-Signature=abc&part=1",
      authorization: `Basic ${btoa("jo:s\u00c3\u00a9same")}`,
    });
  });

  test.each([
    ["/status/404", "ENOENT", "HTTP 404: nothing is there: check the URL"],
    ["/status/410", "ENOENT", "HTTP 410: nothing is there any more: check the URL"],
    [
      "/status/401",
      "EACCES",
      "HTTP 401: the server asks for credentials: give them in the URL or in the headers option",
    ],
    [
      "/status/403",
      "EACCES",
      "HTTP 403: the server forbids it: check the credentials, and that a signed URL has not expired",
    ],
    ["/status/418", "EIO", "HTTP 418: no answer to a GET: check the URL and the server"],
    ["/status/500", "EIO", "HTTP 500: try again later"],
    ["/plain/empty.bin", "EINVAL", "is empty: there is nothing to map"],
    ["/no-head/empty.bin", "EINVAL", "is empty: there is nothing to map"],
    [
      "/no-ranges/data.bin",
      "ENOTSUP",
      "the server sends no ranges of it (HTTP 200 to a Range request): download it and map the file",
    ],
    [
      "/encoded/data.bin",
      "ENOTSUP",
      "the server sends it br-encoded though it was asked not to: turn the encoding off for it, or download it and map the file",
    ],
    [
      "/no-validator/data.bin",
      "ENOTSUP",
      "the server sends neither a strong ETag nor Last-Modified, so a change could not be noticed: download it and map the file",
    ],
  ])("%s is %s: %s", async (path, code, why) => {
    await expect(openUrlObject(memory, `${nginx.url}${path}`, QUICK)).rejects.toMatchObject({
      code,
      op: "open",
      why: expect.stringMatching(/^http:\/\/127/),
      message: expect.stringContaining(`${nginx.url}${path}`),
    });
    await expect(openUrlObject(memory, `${nginx.url}${path}`, QUICK)).rejects.toThrow(why);
  });

  test("Retry-After is waited for, and the failure says so in the end", async () => {
    await nginx.takeLog();
    await expect(openUrlObject(memory, `${nginx.url}/later/x`, { retries: 1, backoffMs: 1 })).rejects.toMatchObject({
      code: "EIO",
      why: `${nginx.url}/later/x: HTTP 503: try again in 1 s, as the server asks`,
    });
    expect((await nginx.takeLog()).map(({ method, status }) => `${method} ${status}`)).toEqual([
      "HEAD 503",
      "GET 503",
      "GET 503",
    ]);
  });

  test("a signal cancels the opening", async () => {
    const signal = AbortSignal.abort();
    await expect(openUrlObject(memory, `${nginx.url}/plain/data.bin`, { signal })).rejects.toMatchObject({
      code: "EINTR",
    });
    const controller = new AbortController();
    const opening = openUrlObject(memory, `${nginx.url}/later/x`, { signal: controller.signal });
    controller.abort();
    await expect(opening).rejects.toMatchObject({ code: "EINTR" });
  });

  test("a mapping reads the object's bytes, with zeros to the end of the last page", async () => {
    await using mm = createSpace();
    const object = await openUrlObject(mm.memory, `${nginx.url}/plain/data.bin`);
    const length = object.pages * 4096;
    const mapping = await mm.mmap({ object, length, shared: true, prot: "r" });
    await object.put();
    const bytes = await mapping.read(0, length);
    expect(Buffer.compare(bytes.subarray(0, BYTES.length), BYTES)).toBe(0);
    expect(bytes.subarray(BYTES.length).every((byte) => byte === 0)).toBe(true);
  });

  test("a private mapping is a copy that can be written; a shared one cannot", async () => {
    await using mm = createSpace();
    const object = await openUrlObject(mm.memory, `${nginx.url}/plain/data.bin`);
    await expect(mm.mmap({ object, length: 4096, shared: true, prot: "rw" })).rejects.toMatchObject({ code: "EACCES" });
    const mapping = await mm.mmap({ object, length: 8192 });
    await object.put();
    await mapping.write(5, new Uint8Array([1, 2, 3]));
    const expected = BYTES.slice(0, 8192);
    expected.set([1, 2, 3], 5);
    expect(Buffer.compare(await mapping.read(0, 8192), expected)).toBe(0);
  });
});
