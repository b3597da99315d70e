import dns from "node:dns";
import { afterEach, beforeEach, expect, test } from "vitest";
import { rememberLookups } from "./name-lookups.ts";

type Callback = (error: Error | null, address?: string, family?: number) => void;

const { lookup } = dns;
let asked: Callback[] = [];

beforeEach(() => {
  asked = [];
  // Like a pool whose threads all wait: nothing is answered before a test says so.
  dns.lookup = ((_host: string, _options: object, callback: Callback) => asked.push(callback)) as never;
  rememberLookups();
});

afterEach(() => {
  dns.lookup = lookup;
});

const ask = (host: string, options: object = {}) =>
  new Promise<unknown[]>((resolve) => dns.lookup(host, options, (...answer) => resolve(answer)));

test("a name that was looked up once is answered although no thread is free", async () => {
  const first = ask("one.example", { all: false });
  asked[0]?.(null, "10.0.0.1", 4);
  expect(await first).toEqual([null, "10.0.0.1", 4]);
  expect(await ask("one.example", { all: false })).toEqual([null, "10.0.0.1", 4]);
  expect(asked).toHaveLength(2);
});

test("the answer is renewed in the background", async () => {
  const first = ask("one.example");
  asked[0]?.(null, "10.0.0.1", 4);
  await first;
  await ask("one.example");
  asked[1]?.(null, "10.0.0.2", 4);
  expect(await ask("one.example")).toEqual([null, "10.0.0.2", 4]);
});

test("errors are not remembered, and other options are another question", async () => {
  const first = ask("one.example");
  asked[0]?.(new Error("no"));
  expect(await first).toEqual([new Error("no")]);
  const second = ask("one.example");
  const third = ask("one.example", { family: 6 });
  asked[1]?.(null, "10.0.0.1", 4);
  asked[2]?.(null, "::1", 6);
  expect([await second, await third]).toEqual([
    [null, "10.0.0.1", 4],
    [null, "::1", 6],
  ]);
});

test("options may be left out", async () => {
  const answer = new Promise((resolve) => dns.lookup("one.example", (_error, address) => resolve(address)));
  asked[0]?.(null, "10.0.0.1", 4);
  expect(await answer).toBe("10.0.0.1");
});
