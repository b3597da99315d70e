import { afterEach, expect, test } from "vitest";
import type { MaybePromise } from "../base/index.ts";
import type { AddressSpace } from "../mm/index.ts";
import { takeBugs } from "../testing/bugs.ts";
import { BASE, begin, createSpace, invalidation, turn } from "../testing/spaces.ts";
import {
  MmuNotifier,
  mmuNotifierGet,
  mmuNotifierPut,
  mmuNotifierRegister,
  mmuNotifierSynchronize,
  mmuNotifierUnregister,
  rangeUpdateToReadOnly,
} from "./index.ts";

let notifiers: MmuNotifier[] = [];

afterEach(() => {
  notifiers = [];
});

/** Subscribes a, b, c … in this order; each start answers what it is told. Calls go into the returned log. */
async function subscribe(mm: AddressSpace, starts: readonly (() => MaybePromise<unknown>)[]): Promise<string[]> {
  const log: string[] = [];
  for (const [i, start] of starts.entries()) {
    const name = String.fromCharCode(97 + i);
    const notifier = await mmuNotifierGet(
      {
        name,
        invalidateRangeStart: () => {
          log.push(`${name} start`);
          return start() as 0;
        },
        invalidateRangeEnd: () => void log.push(`${name} end`),
      },
      mm,
    );
    notifiers.push(notifier);
  }
  return log;
}

async function putAll(): Promise<void> {
  notifiers.forEach(mmuNotifierPut);
  await mmuNotifierSynchronize();
}

const ok = () => 0;
const again = () => "EAGAIN";

test("the most recently registered is called first, and synchronous callbacks need no microtask", async () => {
  await using mm = createSpace();
  const log = await subscribe(mm, [ok, ok, ok]);
  const range = invalidation(mm, 0, 2);
  expect(mm.notifiers?.invalidateRangeStart(range)).toBe(0);
  expect(mm.notifiers?.invalidateRangeEnd(range)).toBeUndefined();
  expect(log).toEqual(["c start", "b start", "a start", "c end", "b end", "a end"]);
  await putAll();
});

test("callbacks that wait run one after another", async () => {
  await using mm = createSpace();
  const later = () => turn().then(() => 0);
  const log = await subscribe(mm, [ok, later, later]);
  const range = invalidation(mm, 0, 2);
  const started = mm.notifiers?.invalidateRangeStart(range);
  expect(log).toEqual(["c start"]);
  expect(await started).toBe(0);
  expect(log).toEqual(["c start", "b start", "a start"]);
  await mm.notifiers?.invalidateRangeEnd(range);
  await putAll();
});

test("a non-blockable start that fails: the chain goes on, EAGAIN is the answer, and those that succeeded get their end", async () => {
  await using mm = createSpace();
  const log = await subscribe(mm, [ok, again, ok]);
  const range = invalidation(mm, 0, 1, { blockable: false });
  expect(mm.notifiers?.invalidateRangeStart(range)).toBe("EAGAIN");
  expect(log).toEqual(["c start", "b start", "a start", "c end", "a end"]);
  // The caller calls no end. A registration must not wait for one.
  mmuNotifierPut(await mmuNotifierGet({ name: "next" }, mm));
  await putAll();
});

test("I-MN-7: a failure of a blockable start, or another value than EAGAIN, is reported and ignored", async () => {
  await using mm = createSpace();
  const log = await subscribe(mm, [again, async () => "EAGAIN", () => "EIO"]);
  const range = invalidation(mm, 0, 1);
  expect(await mm.notifiers?.invalidateRangeStart(range)).toBe(0);
  expect(takeBugs()).toEqual(["I-MN-7", "I-MN-7", "I-MN-7"]);
  await mm.notifiers?.invalidateRangeEnd(range);
  expect(log.slice(3)).toEqual(["c end", "b end", "a end"]);
  const urgent = invalidation(mm, 0, 1, { blockable: false });
  await putAll();
  notifiers = [];
  await subscribe(mm, [() => "EIO"]);
  expect(mm.notifiers?.invalidateRangeStart(urgent)).toBe(0);
  expect(takeBugs()).toEqual(["I-MN-7"]);
  await mm.notifiers?.invalidateRangeEnd(urgent);
  await putAll();
});

test("I-MN-9: a non-blockable start that waits is reported, counts as EAGAIN, and still gets its end", async () => {
  await using mm = createSpace();
  const log = await subscribe(mm, [ok, async () => 0]);
  expect(mm.notifiers?.invalidateRangeStart(invalidation(mm, 0, 1, { blockable: false }))).toBe("EAGAIN");
  expect(takeBugs()).toEqual(["I-MN-9"]);
  await turn();
  expect(log).toEqual(["b start", "a start", "a end", "b end"]);
  await putAll();
});

test("I-MN-9: a non-blockable end that waits is reported", async () => {
  await using mm = createSpace();
  const notifier = await mmuNotifierGet({ name: "slow", invalidateRangeEnd: () => turn() }, mm);
  const range = invalidation(mm, 0, 1, { blockable: false });
  expect(mm.notifiers?.invalidateRangeStart(range)).toBe(0);
  expect(mm.notifiers?.invalidateRangeEnd(range)).toBeUndefined();
  expect(takeBugs()).toEqual(["I-MN-9"]);
  mmuNotifierPut(notifier);
  await mmuNotifierSynchronize();
});

test("I-MN-10: a callback that throws is reported; it fails the chain only where failing is allowed", async () => {
  await using mm = createSpace();
  const fail = () => {
    throw new Error("broken");
  };
  const log = await subscribe(mm, [ok, fail, async () => fail()]);
  const range = invalidation(mm, 0, 1);
  expect(await mm.notifiers?.invalidateRangeStart(range)).toBe(0);
  expect(takeBugs()).toEqual(["I-MN-10", "I-MN-10"]);
  await mm.notifiers?.invalidateRangeEnd(range);
  expect(log.slice(3)).toEqual(["c end", "b end", "a end"]);
  await putAll();
  notifiers = [];
  await subscribe(mm, [fail]);
  expect(mm.notifiers?.invalidateRangeStart(invalidation(mm, 0, 1, { blockable: false }))).toBe("EAGAIN");
  expect(takeBugs()).toEqual(["I-MN-10"]);
  await putAll();
});

test("I-MN-10: an end or a release that throws does not stop the others", async () => {
  const mm = createSpace();
  const log: string[] = [];
  for (const name of ["a", "b"]) {
    notifiers.push(
      await mmuNotifierGet(
        {
          name,
          invalidateRangeEnd: () => {
            log.push(`${name} end`);
            throw new Error("broken");
          },
          release: async () => {
            log.push(`${name} release`);
            throw new Error("broken");
          },
        },
        mm,
      ),
    );
  }
  await begin(invalidation(mm, 0, 1))();
  await mm.mmput();
  expect(log).toEqual(["b end", "a end", "b release", "a release"]);
  expect(takeBugs()).toEqual(["I-MN-10", "I-MN-10", "I-MN-10", "I-MN-10"]);
  await putAll();
});

test("I-MN-1: an end without a start is reported", async () => {
  await using mm = createSpace();
  await subscribe(mm, [ok]);
  expect(mm.notifiers?.invalidateRangeEnd(invalidation(mm, 0, 1))).toBeUndefined();
  expect(takeBugs()).toEqual(["I-MN-1"]);
  await putAll();
});

test("pairs nest and overlap", async () => {
  await using mm = createSpace();
  const log = await subscribe(mm, [ok]);
  const outer = begin(invalidation(mm, 0, 4));
  const inner = begin(invalidation(mm, 2, 8));
  await outer();
  await inner();
  expect(log).toEqual(["a start", "a start", "a end", "a end"]);
  expect(takeBugs()).toEqual([]);
  await putAll();
});

test("a notifier put while a chain waits is skipped by the rest of it", async () => {
  await using mm = createSpace();
  const log = await subscribe(mm, [ok, () => turn().then(() => 0)]);
  const range = invalidation(mm, 0, 1);
  const started = mm.notifiers?.invalidateRangeStart(range);
  const gone = notifiers.shift();
  if (gone !== undefined) {
    mmuNotifierPut(gone);
  }
  await started;
  await mm.notifiers?.invalidateRangeEnd(range);
  expect(log).toEqual(["b start", "b end"]);
  await putAll();
});

test("only a protection change that leaves reading allowed is an update to read-only", async () => {
  await using mm = createSpace();
  await mm.mmap({ length: 2 * 4096, addr: BASE, fixed: true });
  const seen: [string, boolean][] = [];
  const notifier = new MmuNotifier({
    name: "watcher",
    invalidateRangeStart(_, range) {
      seen.push([range.event, rangeUpdateToReadOnly(range)]);
      return 0;
    },
  });
  await mmuNotifierRegister(notifier, mm);
  await mm.mprotect(BASE, 2 * 4096, "r");
  await mm.mprotect(BASE, 4096, "none");
  await mm.madvise(BASE, 4096, "dontneed");
  expect(seen).toEqual([
    ["protection-vma", true],
    ["protection-vma", false],
    ["clear", false],
  ]);
  await mmuNotifierUnregister(notifier);
});
