/** A URL's pager when the connection, the server or the object is not what it was. */
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { FaultProxy } from "../../testing/fault-proxy.ts";
import { hasNginx, NGINX_HINT, Nginx } from "../../testing/nginx.ts";
import { createSpace } from "../../testing/spaces.ts";
import { pattern } from "../../testing/transfers.ts";
import { BYTES, expectBytes, K, open, PAGE, QUICK, rangesOf } from "../../testing/url-objects.ts";
import { openUrlObject } from "./open-url.ts";

describe.skipIf(!hasNginx())(`a URL's pager over ${NGINX_HINT}`, () => {
  let nginx: Nginx;
  let url: string;

  beforeAll(async () => {
    nginx = await Nginx.start();
    nginx.put("data.bin", BYTES);
    url = `${nginx.url}/plain/data.bin`;
  });
  afterAll(() => nginx[Symbol.asyncDispose]());

  const ranges = () => rangesOf(nginx);

  describe("faults", () => {
    test.each([500, 503] as const)("HTTP %d is tried again until it passes", async (status) => {
      let requests = 0;
      const healing: typeof fetch = (input, init) => {
        nginx.fail("data.bin", requests++ < 3 ? status : undefined);
        return fetch(input, init);
      };
      await using it = await open(url);
      await using other = await open(url, { fetch: healing }).finally(() => nginx.fail("data.bin", undefined));
      requests = 0;
      await nginx.takeLog();
      expectBytes(await other.read(0, PAGE), 0);
      expect((await nginx.takeLog()).map((request) => request.status)).toEqual([status, status, status, 206]);
      expectBytes(await it.read(0, PAGE), 0);
    });

    test.each([
      [404, "ENOENT", "HTTP 404: nothing is there: check the URL"],
      [416, "EIO", "HTTP 416: the server cannot send this range of it: download it and map the file"],
      [500, "EIO", "HTTP 500: try again later"],
      [503, "EIO", "HTTP 503: try again later"],
    ] as const)("HTTP %d that lasts is %s, and a read after it passes", async (status, code, why) => {
      await using it = await open(url, { retries: 1 });
      nginx.fail("data.bin", status);
      await expect(it.read(0, PAGE)).rejects.toMatchObject({ code, op: "read", why: `${url}: ${why}` });
      nginx.fail("data.bin", undefined);
      expectBytes(await it.read(0, PAGE), 0);
    });

    test("a cut connection goes on at the byte where it was cut", async () => {
      await using proxy = await FaultProxy.start(nginx.port);
      await using it = await open(`${proxy.url}/plain/data.bin`);
      proxy.hangUp();
      await ranges();
      proxy.faults.push({ kind: "cut", after: 300 * K }, { kind: "cut", after: 300 * K });
      expectBytes(await it.read(0, 2 ** 20), 0);
      const asked = await ranges();
      expect(asked.length).toBeGreaterThanOrEqual(3);
      expect(asked[0]).toBe("0-1048575");
      const starts = asked.map((range) => Number.parseInt(range, 10));
      expect(starts.every((start, i) => i === 0 || start > starts[i - 1])).toBe(true);
      expect(asked.every((range) => range.endsWith("-1048575"))).toBe(true);
    });

    test("progress resets the retries: a connection that is cut again and again still delivers", async () => {
      await using proxy = await FaultProxy.start(nginx.port);
      await using it = await open(`${proxy.url}/plain/data.bin`, { retries: 1 });
      proxy.hangUp();
      proxy.faults.push(...Array.from({ length: 12 }, () => ({ kind: "cut", after: 64 * K }) as const));
      expectBytes(await it.read(0, 2 ** 20), 0);
      expect(proxy.faults).toEqual([]);
    });

    test("connections that bring nothing are EIO after the retries", async () => {
      await using proxy = await FaultProxy.start(nginx.port);
      let requests = 0;
      const counting: typeof fetch = (input, init) => {
        requests++;
        return fetch(input, init);
      };
      await using it = await open(`${proxy.url}/plain/data.bin`, { retries: 2, fetch: counting });
      requests = 0;
      proxy.always = { kind: "cut", after: 0 };
      proxy.hangUp();
      await expect(it.read(0, PAGE)).rejects.toMatchObject({
        code: "EIO",
        why: expect.stringMatching(/^http:\/\/127.*data\.bin: .*: check the network and the server$/),
      });
      expect(requests).toBe(3);
    });

    test.each([0, 20 * K])("a server that falls silent after %d bytes is asked again", async (after) => {
      await using proxy = await FaultProxy.start(nginx.port);
      await using it = await open(`${proxy.url}/plain/data.bin`, { timeoutMs: 300 });
      proxy.hangUp();
      proxy.faults.push({ kind: "stall", after });
      expectBytes(await it.read(0, 16 * PAGE), 0);
    });

    test("silence that lasts is EIO and says how long", async () => {
      await using proxy = await FaultProxy.start(nginx.port);
      await using it = await open(`${proxy.url}/plain/data.bin`, { timeoutMs: 50, retries: 4 });
      proxy.always = { kind: "stall", after: 0 };
      proxy.hangUp();
      await expect(it.read(0, PAGE)).rejects.toMatchObject({
        code: "EIO",
        why: expect.stringContaining("the server sent nothing for 50 ms: try again later, or with a longer timeoutMs"),
      });
    });

    test("a slow server is waited for as long as something comes", async () => {
      await using it = await open(`${nginx.url}/slow/data.bin`, { timeoutMs: 2000, retries: 0 });
      expectBytes(await it.read(0, 192 * K), 0);
    });

    test("a failed read writes nothing more to its destination", async () => {
      const gate: (() => void)[] = [];
      const holding: typeof fetch = async (input, init) => {
        const range = new Headers(init?.headers).get("range");
        if (range?.startsWith("bytes=65536-")) {
          await new Promise<void>((resolve) => gate.push(resolve));
        }
        if (range?.startsWith("bytes=0-")) {
          return new Response(null, { status: 404 });
        }
        return fetch(input, init);
      };
      await using it = await open(url, { readAheadBytes: 64 * K, fetch: holding });
      const dst = new Uint8Array(128 * K);
      await expect(it.pager.read(0, dst)).rejects.toMatchObject({ code: "ENOENT" });
      dst.fill(7);
      const again = it.read(64 * K, 64 * K);
      for (const open of gate) {
        open();
      }
      expectBytes(await again, 64 * K);
      expect(dst.every((byte) => byte === 7)).toBe(true);
    });
  });

  describe("changes", () => {
    const OLD = pattern(2 ** 20, 3);
    const NEW = pattern(2 ** 20, 4);
    const where = () => `${nginx.url}/plain/changing.bin`;

    test.each([
      ["with another ETag", NEW, /its ETag went from "[\da-f-]+" to "[\da-f-]+"/],
      ["that is longer", pattern(2 ** 20 + 1), /its length went from 1048576 to 1048577 bytes/],
      ["that is too short for the range", pattern(10), /its length went from 1048576 to 10 bytes/],
    ])("an object %s is EIO that names it, and stays so", async (_, bytes, why) => {
      nginx.put("changing.bin", OLD);
      await using it = await open(where());
      expect(await it.read(0, PAGE)).toEqual(OLD.subarray(0, PAGE));
      nginx.put("changing.bin", bytes);
      const changed = { code: "EIO", op: "read", why: expect.stringMatching(why) };
      await expect(it.read(2 ** 19, PAGE)).rejects.toMatchObject(changed);
      await expect(it.read(2 ** 19, PAGE)).rejects.toThrow(`${where()} has changed since it was opened`);
      await expect(it.read(0, PAGE), "cached bytes too").rejects.toMatchObject(changed);
      nginx.put("changing.bin", OLD);
      await expect(it.read(2 ** 19, PAGE)).rejects.toMatchObject(changed);
      await using anew = await open(where());
      expect(await anew.read(2 ** 19, PAGE)).toEqual(OLD.subarray(2 ** 19, 2 ** 19 + PAGE));
    });

    test("an object known by its date only is told by that", async () => {
      nginx.put("changing.bin", OLD);
      await using it = await open(`${nginx.url}/date-only/changing.bin`);
      expect(await it.read(0, PAGE)).toEqual(OLD.subarray(0, PAGE));
      nginx.put("changing.bin", NEW);
      await expect(it.read(2 ** 19, PAGE)).rejects.toThrow(/its Last-Modified went from .* GMT to .* GMT/);
    });

    test("a server that ignores If-Range is found out by what it sends", async () => {
      nginx.put("changing.bin", OLD);
      const careless: typeof fetch = (input, init) => {
        const headers = new Headers(init?.headers);
        headers.delete("if-range");
        return fetch(input, { ...init, headers });
      };
      await using it = await open(where(), { fetch: careless });
      nginx.put("changing.bin", NEW);
      await expect(it.read(0, PAGE)).rejects.toThrow(
        /changing.bin has changed since it was opened: its ETag went from/,
      );
    });

    test("a change in the middle of a cut request leaves no mix", async () => {
      nginx.put("changing.bin", OLD);
      await using proxy = await FaultProxy.start(nginx.port);
      await using mm = createSpace();
      let requests = 0;
      const changing: typeof fetch = (input, init) => {
        if (requests++ === 2) {
          nginx.put("changing.bin", NEW);
        }
        return fetch(input, init);
      };
      const options = { ...QUICK, fetch: changing };
      const object = await openUrlObject(mm.memory, `${proxy.url}/plain/changing.bin`, options);
      const mapping = await mm.mmap({ object, length: 2 ** 20, shared: true, prot: "r" });
      await object.put();
      proxy.hangUp();
      proxy.faults.push({ kind: "cut", after: 300 * K });
      await expect(mapping.read(0, 2 ** 20)).rejects.toMatchObject({ code: "EIO" });
      await expect(mapping.read(2 ** 19, PAGE)).rejects.toMatchObject({ code: "EIO" });
    });

    test("a server that stops giving ranges is ENOTSUP", async () => {
      const plain: typeof fetch = (input, init) => {
        const moved = init?.method === "GET" ? String(input).replace("/plain/", "/no-ranges/") : input;
        return fetch(moved, init);
      };
      await using it = await open(url, { fetch: plain });
      await expect(it.read(0, PAGE)).rejects.toMatchObject({ code: "ENOTSUP", op: "read" });
    });

    test("an answer about other bytes is EIO and nothing is taken from it", async () => {
      const shifted: typeof fetch = (input, init) => {
        const headers = new Headers(init?.headers);
        headers.set("range", "bytes=4096-8191");
        return fetch(input, { ...init, headers });
      };
      await using it = await open(url, { fetch: shifted });
      await expect(it.read(0, PAGE)).rejects.toMatchObject({
        code: "EIO",
        why: expect.stringContaining("asked for bytes 0-65535, the server answers bytes 4096-8191/"),
      });
    });
  });
});
