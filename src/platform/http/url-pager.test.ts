import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { Pager } from "../../mm/index.ts";
import { FaultProxy } from "../../testing/fault-proxy.ts";
import { hasNginx, NGINX_HINT, Nginx } from "../../testing/nginx.ts";
import { BYTES, expectAll, expectBytes, K, open, PAGE, rangesOf } from "../../testing/url-objects.ts";

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

  test("what was brought near is read at once; what would not stay there is not asked for", async () => {
    await using it = await open(url, { requestBytes: PAGE, readAheadBytes: 16 * K, cacheBytes: 64 * K });
    const { pager } = it;
    await Promise.all([pager.near?.(10 * PAGE, 3 * PAGE), pager.near?.(12 * PAGE, PAGE)]);
    expect(await ranges()).toEqual([`${10 * PAGE}-${13 * PAGE - 1}`]);
    const bytes = new Uint8Array(3 * PAGE);
    expect(pager.read(10 * PAGE, bytes)).toBeUndefined();
    expectBytes(bytes, 10 * PAGE);
    expect(pager.near?.(11 * PAGE, 2 * PAGE)).toBeUndefined();
    expect(pager.near?.(0, 33 * K)).toBeUndefined();
    expect(pager.near?.(BYTES.length, PAGE)).toBeUndefined();
    expect(await ranges()).toEqual([]);
  });

  test("bringing bytes near ends with the pager, and without an error", async () => {
    let coming: Promise<void> | undefined;
    let pager: Pager | undefined;
    {
      await using it = await open(url);
      pager = it.pager;
      coming = pager.near?.(100 * PAGE, PAGE);
    }
    await coming;
    expect(pager.near?.(0, PAGE)).toBeUndefined();
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
