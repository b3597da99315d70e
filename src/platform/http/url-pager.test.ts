import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type MemoryObject, type Pager, PhysicalMemory } from "../../mm/index.ts";
import { FaultProxy } from "../../testing/fault-proxy.ts";
import { hasNginx, NGINX_HINT, Nginx } from "../../testing/nginx.ts";
import { createSpace } from "../../testing/spaces.ts";
import { pattern } from "../../testing/transfers.ts";
import { SoftwareMmu } from "../software/cpu-mmu.ts";
import { type OpenUrlOptions, openUrlObject } from "./open-url.ts";

const memory = new PhysicalMemory(new SoftwareMmu());
const K = 1024;
const PAGE = 4 * K;
const QUICK = { retries: 3, backoffMs: 1 };
const BYTES = pattern(8 * 2 ** 20 + 123);

/** An object that ends with its scope, and its pager. */
class Opened implements AsyncDisposable {
  readonly object: MemoryObject;
  readonly pager: Pager;

  constructor(object: MemoryObject) {
    if (object.pager === undefined) {
      throw new Error("the object has no pager");
    }
    this.object = object;
    this.pager = object.pager;
  }

  async read(offset: number, length: number): Promise<Uint8Array> {
    const bytes = new Uint8Array(length).fill(0xee);
    await this.pager.read(offset, bytes);
    return bytes;
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.object.put();
  }
}

async function open(url: string, options: OpenUrlOptions = {}): Promise<Opened> {
  return new Opened(await openUrlObject(memory, url, { ...QUICK, ...options }));
}

/** The object's bytes, zeros past its end. */
function expected(offset: number, length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  bytes.set(BYTES.subarray(offset, offset + length));
  return bytes;
}

function expectAll(reads: readonly Uint8Array[], offsets: readonly number[]): void {
  for (const [i, bytes] of reads.entries()) {
    expectBytes(bytes, offsets[i]);
  }
}

function expectBytes(bytes: Uint8Array, offset: number): void {
  expect(Buffer.compare(bytes, expected(offset, bytes.length)), `bytes from ${offset}`).toBe(0);
}

describe.skipIf(!hasNginx())(`a URL's pager over ${NGINX_HINT}`, () => {
  let nginx: Nginx;
  let url: string;

  beforeAll(async () => {
    nginx = await Nginx.start();
    nginx.put("data.bin", BYTES);
    url = `${nginx.url}/plain/data.bin`;
  });
  afterAll(() => nginx[Symbol.asyncDispose]());

  /** The ranges that were asked for since the last call, in order of their first byte. */
  async function ranges(): Promise<string[]> {
    const log = (await nginx.takeLog()).filter(({ method }) => method === "GET");
    return log
      .map(({ range }) => range.replace("bytes=", ""))
      .sort((a, b) => Number.parseInt(a, 10) - Number.parseInt(b, 10));
  }

  test("one page costs one request of the least size, its neighbours none", async () => {
    await using it = await open(url);
    await ranges();
    expectBytes(await it.read(10 * PAGE, PAGE), 10 * PAGE);
    expect(await ranges()).toEqual(["0-65535"]);
    const bytes = new Uint8Array(PAGE);
    expect(it.pager.read(3 * PAGE, bytes), "cached bytes need no wait").toBeUndefined();
    expectBytes(bytes, 3 * PAGE);
    expect(await ranges()).toEqual([]);
  });

  test("concurrent reads of neighbouring and overlapping ranges are one request", async () => {
    await using it = await open(url);
    await ranges();
    const offsets = [256, 192, 128, 64, 100, 300, 60].map((k) => k * K);
    const read = await Promise.all(offsets.map((offset) => it.read(offset, 16 * PAGE)));
    expectAll(read, offsets);
    expect(await ranges()).toEqual(["0-393215"]);
  });

  test("a read of what is being fetched joins the request", async () => {
    await using it = await open(`${nginx.url}/slow/data.bin`);
    await ranges();
    const first = it.read(0, 96 * K);
    await new Promise((resolve) => setTimeout(resolve, 20));
    const second = it.read(64 * K, PAGE);
    expectBytes(await first, 0);
    expectBytes(await second, 64 * K);
    expect(await ranges()).toEqual(["0-131071"]);
  });

  test("a long read is cut into requests of the most size, and the last one ends with the object", async () => {
    await using it = await open(url);
    await ranges();
    const length = Math.ceil(BYTES.length / PAGE) * PAGE;
    expectBytes(await it.read(0, length), 0);
    expect(await ranges()).toEqual(["0-4194303", "4194304-8388607", `8388608-${BYTES.length - 1}`]);
  });

  test("a sequence of single pages takes few requests, which grow", async () => {
    await using it = await open(url);
    await ranges();
    for (let offset = 0; offset < 4 * 2 ** 20; offset += PAGE) {
      expectBytes(await it.read(offset, PAGE), offset);
    }
    const asked = await ranges();
    const sizes = asked.map((range) => {
      const [first, last] = range.split("-").map(Number);
      return last + 1 - first;
    });
    expect(sizes.length).toBeLessThanOrEqual(10);
    expect(sizes[0]).toBe(64 * K);
    expect(Math.max(...sizes)).toBeGreaterThanOrEqual(2 ** 20);
  });

  test("scattered reads fetch one chunk each and nothing twice", async () => {
    await using it = await open(url, { requestBytes: PAGE });
    await ranges();
    const pages = [5, 900, 17, 3, 1200, 640];
    for (const page of [...pages, ...pages]) {
      expectBytes(await it.read(page * PAGE, PAGE - 1), page * PAGE);
    }
    expect(await ranges()).toHaveLength(pages.length);
  });

  test("never more requests at a time than the limit", async () => {
    let running = 0;
    let most = 0;
    const counting: typeof fetch = async (input, init) => {
      most = Math.max(most, ++running);
      const response = await fetch(input, init);
      const bytes = await response.arrayBuffer();
      running--;
      return new Response(response.status === 206 ? bytes : null, response);
    };
    await using it = await open(url, { concurrency: 3, requestBytes: PAGE, fetch: counting });
    const offsets = Array.from({ length: 40 }, (_, i) => i * 16 * PAGE);
    expectAll(await Promise.all(offsets.map((offset) => it.read(offset, PAGE))), offsets);
    expect(most).toBe(3);
  });

  test("the cache keeps to its bound: the least recently used chunk is fetched again", async () => {
    await using it = await open(url, { requestBytes: PAGE, cacheBytes: 2 * PAGE });
    const touch = async (page: number) => {
      expectBytes(await it.read(page * PAGE, 8), page * PAGE);
      return (await ranges()).length;
    };
    await ranges();
    const fetched: number[] = [];
    for (const page of [0, 10, 0, 20, 0, 10]) {
      fetched.push(await touch(page));
    }
    expect(fetched).toEqual([1, 1, 0, 1, 0, 1]);
  });

  test("bytes past the end are zeros, and a read past the end fetches nothing", async () => {
    await using it = await open(url);
    await ranges();
    const past = Math.ceil(BYTES.length / PAGE) * PAGE;
    expectBytes(await it.read(past, PAGE), past);
    expect(await ranges()).toEqual([]);
    expectBytes(await it.read(past - PAGE, 2 * PAGE), past - PAGE);
  });

  test("any concurrent reads give the object's bytes, whatever the policy and through cut connections", async () => {
    const reads = fc.array(fc.record({ offset: fc.nat(BYTES.length), length: fc.integer({ min: 1, max: 300 * K }) }), {
      minLength: 1,
      maxLength: 12,
    });
    const options = fc.record({
      requestBytes: fc.constantFrom(PAGE, 3 * PAGE, 64 * K),
      readAheadBytes: fc.constantFrom(PAGE, 128 * K, 2 ** 20),
      cacheBytes: fc.constantFrom(0, PAGE, 256 * K, 2 ** 24),
      concurrency: fc.integer({ min: 1, max: 6 }),
    });
    const cuts = fc.array(fc.integer({ min: 0, max: 200 * K }), { maxLength: 2 });
    await using proxy = await FaultProxy.start(nginx.port);
    await fc.assert(
      fc.asyncProperty(
        fc.array(reads, { minLength: 1, maxLength: 3 }),
        options,
        cuts,
        async (batches, policy, after) => {
          await using it = await open(`${proxy.url}/plain/data.bin`, { ...policy, retries: 6 });
          proxy.faults.push(...after.map((bytes) => ({ kind: "cut", after: bytes }) as const));
          proxy.hangUp();
          for (const batch of batches) {
            const read = await Promise.all(batch.map(({ offset, length }) => it.read(offset, length)));
            expectAll(
              read,
              batch.map(({ offset }) => offset),
            );
          }
          proxy.faults.length = 0;
        },
      ),
      { numRuns: 40 },
    );
  });

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

  describe("ends", () => {
    test("closing ends requests that are going on: their reads fail with EINTR", async () => {
      const it = await open(`${nginx.url}/slow/data.bin`);
      const reads = [it.read(0, 2 ** 20), it.read(4 * 2 ** 20, PAGE)];
      await new Promise((resolve) => setTimeout(resolve, 30));
      const settled = Promise.allSettled(reads);
      await it.object.put();
      for (const result of await settled) {
        expect(result).toMatchObject({ status: "rejected", reason: { code: "EINTR" } });
      }
    });

    test("closing ends a wait between retries, and reads that no request was made for", async () => {
      const it = await open(url, { backoffMs: 60_000 });
      nginx.fail("data.bin", 503);
      const waiting = expect(it.read(0, PAGE)).rejects.toMatchObject({ code: "EINTR" });
      await nginx.takeLog();
      const queued = expect(it.read(2 ** 20, PAGE)).rejects.toMatchObject({ code: "EINTR" });
      await it.object.put();
      await Promise.all([waiting, queued]);
      nginx.fail("data.bin", undefined);
    });

    test("a signal cancels reads, then and later", async () => {
      const controller = new AbortController();
      await using it = await open(`${nginx.url}/slow/data.bin`, { signal: controller.signal });
      const reading = it.read(0, 2 ** 20);
      controller.abort();
      await expect(reading).rejects.toMatchObject({ code: "EINTR" });
      await expect(it.read(0, PAGE)).rejects.toMatchObject({ code: "EINTR" });
    });
  });
});
