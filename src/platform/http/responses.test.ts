import { expect, test } from "vitest";
import { differenceFrom, parseContentRange, statusError, versionOf } from "./responses.ts";
import { retryAfterMs, Transient } from "./retry.ts";
import { parseTarget, redirectedTarget } from "./target.ts";

test.each([
  ["bytes 0-99/1000", { range: { start: 0, end: 100 }, total: 1000 }],
  ["bytes 5-5/*", { range: { start: 5, end: 6 }, total: undefined }],
  ["bytes */7", { range: undefined, total: 7 }],
  ["Bytes 4294967296-8589934591/99999999999", { range: { start: 2 ** 32, end: 2 ** 33 }, total: 99_999_999_999 }],
  ["items 0-1/2", undefined],
  ["bytes 0-1", undefined],
  [null, undefined],
])("the Content-Range %s is read", (header, expected) => {
  expect(parseContentRange(header)).toEqual(expected);
});

test("a strong ETag is compared alone; Last-Modified only where there is none", () => {
  const strong = versionOf(new Headers({ etag: '"a"', "last-modified": "Mon" }), 10);
  expect(differenceFrom(strong, new Headers({ etag: '"a"', "last-modified": "Tue" }), 10)).toBeUndefined();
  expect(differenceFrom(strong, new Headers({ etag: '"b"' }), 10)).toBe('its ETag went from "a" to "b"');
  expect(differenceFrom(strong, new Headers(), 10)).toBe('its ETag went from "a" to none');
  expect(differenceFrom(strong, new Headers({ etag: '"a"' }), 11)).toBe("its length went from 10 to 11 bytes");
  const dated = versionOf(new Headers({ etag: 'W/"a"', "last-modified": "Mon" }), 10);
  expect(differenceFrom(dated, new Headers({ etag: 'W/"b"', "last-modified": "Mon" }), 10)).toBeUndefined();
  expect(differenceFrom(dated, new Headers(), undefined)).toBeUndefined();
  expect(differenceFrom(dated, new Headers({ "last-modified": "Tue" }), 10)).toBe(
    "its Last-Modified went from Mon to Tue",
  );
});

test.each([
  [null, 0],
  ["3", 3000],
  ["Thu, 01 Jan 1970 00:01:40 GMT", 90_000],
  ["Thu, 01 Jan 1970 00:00:05 GMT", 0],
  ["soon", 0],
])("Retry-After %s waits %d ms", (header, ms) => {
  expect(retryAfterMs(header, 10_000)).toBe(ms);
});

test.each([408, 425, 429, 500, 502, 503, 504, 522])("HTTP %d may pass", (status) => {
  expect(statusError("read", "http://x/", new Response(null, { status }))).toBeInstanceOf(Transient);
});

test.each([400, 401, 403, 404, 405, 410, 412, 416, 501, 505])("HTTP %d will not pass", (status) => {
  expect(statusError("read", "http://x/", new Response(null, { status }))).toMatchObject({ name: "KernelError" });
});

test("credentials stay behind when a redirect leads to another origin; other headers go along", () => {
  const target = parseTarget("https://a.test/x", { Authorization: "Basic x", Cookie: "y", "X-Part": "1" });
  expect(redirectedTarget(target, "https://a.test/y").headers).toEqual({
    authorization: "Basic x",
    cookie: "y",
    "x-part": "1",
  });
  expect(redirectedTarget(target, "https://b.test/y#part")).toEqual({
    href: "https://b.test/y",
    shown: "https://b.test/y",
    headers: { "x-part": "1" },
  });
  expect(redirectedTarget(target, "https://a.test/x")).toBe(target);
});
