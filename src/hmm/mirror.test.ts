import { expect, test } from "vitest";
import type { MaybePromise } from "../base/index.ts";
import type { AddressSpace } from "../mm/index.ts";
import { mmuNotifierPut, mmuNotifierSynchronize } from "../mmu-notifier/index.ts";
import { lockdepTask } from "../sync/index.ts";
import { takeBugs } from "../testing/bugs.ts";
import { BASE, begin, createSpace, invalidation, turn } from "../testing/spaces.ts";
import { HmmMirror, type HmmMirrorOps, HmmRange } from "./index.ts";

type Sync = HmmMirrorOps["syncCpuDevicePagetables"];

async function mirrorOf(mm: AddressSpace, sync: Sync = () => 0, more: Partial<HmmMirrorOps> = {}): Promise<HmmMirror> {
  const mirror = new HmmMirror({ name: "test", syncCpuDevicePagetables: sync, ...more });
  await mirror.register(mm);
  return mirror;
}

async function unregisterAll(...mirrors: HmmMirror[]): Promise<void> {
  for (const mirror of mirrors) {
    await mirror.unregister();
  }
  await mmuNotifierSynchronize();
}

const answering =
  (answer: unknown): Sync =>
  () =>
    answer as 0;

test("mirrors of one space share one hmm, of two spaces none; the latest is called first with the whole update", async () => {
  await using mm = createSpace();
  await using other = createSpace();
  const calls: unknown[] = [];
  const a = await mirrorOf(mm, (mirror, update) => {
    calls.push([mirror === a, update.end - update.start]);
    return 0;
  });
  const b = await mirrorOf(mm, (mirror, update) => {
    calls.push([mirror === b, update.end - update.start]);
    return 0;
  });
  const c = await mirrorOf(other);
  expect(a.hmm).toBe(b.hmm);
  expect(c.hmm).not.toBe(a.hmm);
  expect(a.mm).toBe(mm);
  await begin(invalidation(mm, 0, 3))();
  expect(calls).toEqual([
    [true, 3 * 4096],
    [true, 3 * 4096],
  ]);
  await unregisterAll(a, b, c);
  await begin(invalidation(mm, 0, 3))();
  expect(calls).toHaveLength(2);
});

test("EINVAL: a mirror without ops, or without an address space", async () => {
  await using mm = createSpace();
  const bare = new HmmMirror(undefined as unknown as HmmMirrorOps);
  await expect(bare.register(mm)).rejects.toMatchObject({ code: "EINVAL" });
  const mirror = new HmmMirror({ name: "test", syncCpuDevicePagetables: () => 0 });
  await expect(mirror.register(undefined as unknown as AddressSpace)).rejects.toMatchObject({ code: "EINVAL" });
});

test("registering asks for the mmap lock, held for writing", async () => {
  await using mm = createSpace();
  const mirror = new HmmMirror({ name: "test", syncCpuDevicePagetables: () => 0 });
  const lock = await mm.mmapLock.write();
  lock.release();
  await expect(mirror.registerLocked(lock, mm)).rejects.toThrow("I-SYNC-2");
});

test("a registration that fails changes nothing: ENOMEM at each allocation in turn, EINTR, EBUSY", async () => {
  await using mm = createSpace();
  const mirror = new HmmMirror({ name: "test", syncCpuDevicePagetables: () => 0 });
  for (let n = 0; ; n++) {
    mm.memory.failAfter(n);
    const error = await mirror.register(mm).catch((e: unknown) => e);
    mm.memory.failAfter();
    if (error === undefined) {
      expect(n).toBe(2);
      break;
    }
    expect(error).toMatchObject({ code: "ENOMEM" });
    expect(mirror.isRegistered).toBe(false);
    await mmuNotifierSynchronize();
    expect(mm.count).toBe(1);
  }
  const second = new HmmMirror({ name: "second", syncCpuDevicePagetables: () => 0 });
  const busy = await mirror.hmm.mirrorsSem.read();
  await expect(second.register(mm, { timeoutMs: 1 })).rejects.toMatchObject({ code: "EBUSY" });
  busy.release();
  await expect(second.register(mm, { signal: AbortSignal.abort() })).rejects.toMatchObject({ code: "EINTR" });
  expect(mirror.hmm.users).toBe(1);
  await unregisterAll(mirror);
});

test("I-HMM-8: a mirror is registered once and unregistered once", async () => {
  await using mm = createSpace();
  const mirror = new HmmMirror({ name: "test", syncCpuDevicePagetables: () => 0 });
  expect(() => mirror.hmm).toThrow("I-HMM-8");
  await expect(mirror.unregister()).rejects.toThrow("I-HMM-8");
  await mirror.register(mm);
  await expect(mirror.register(mm)).rejects.toThrow("I-HMM-8");
  await mirror.unregister();
  await expect(mirror.unregister()).rejects.toThrow("I-HMM-8");
  await mmuNotifierSynchronize();
});

test("unregister waits for a sync callback that runs, and none comes after it", async () => {
  await using mm = createSpace();
  const log: string[] = [];
  let finish = (): void => {};
  const mirror = await mirrorOf(mm, () => {
    log.push("sync");
    return new Promise<0>((resolve) => {
      finish = () => resolve(0);
    });
  });
  const range = invalidation(mm, 0, 1);
  const started = mm.notifiers?.invalidateRangeStart(range);
  const gone = mirror.unregister().then(() => log.push("gone"));
  await turn();
  expect(log).toEqual(["sync"]);
  finish();
  await started;
  await gone;
  await mm.notifiers?.invalidateRangeEnd(range);
  await begin(invalidation(mm, 0, 1))();
  expect(log).toEqual(["sync", "gone"]);
  await mmuNotifierSynchronize();
});

test("I-HMM-3: unregistering inside a sync or release callback is refused, not waited for", async () => {
  const mm = createSpace();
  const seen: string[] = [];
  const tryIt = (m: HmmMirror) => m.unregister().catch((error: Error) => void seen.push(error.message.slice(0, 7)));
  const mirror = await mirrorOf(
    mm,
    async (m): Promise<0> => {
      await tryIt(m);
      await turn();
      await tryIt(m);
      return 0;
    },
    { release: tryIt },
  );
  await lockdepTask("test", async () => {
    const range = invalidation(mm, 0, 1);
    await mm.notifiers?.invalidateRangeStart(range);
    await mm.notifiers?.invalidateRangeEnd(range);
    await mm.mmput();
  });
  expect(seen).toEqual(["I-HMM-3", "I-HMM-3", "I-HMM-3"]);
  await unregisterAll(mirror);
});

test("release is called once at exit, with the mirror still registered", async () => {
  const mm = createSpace();
  const log: boolean[] = [];
  const mirror = await mirrorOf(mm, undefined, { release: (m) => void log.push(m.isRegistered) });
  const silent = await mirrorOf(mm);
  await mm.mmput();
  expect(log).toEqual([true]);
  expect(mirror.isRegistered).toBe(true);
  await unregisterAll(mirror, silent);
  expect(log).toEqual([true]);
  expect(mm.count).toBe(0);
});

test("I-HMM-9: an answer other than 0 is reported and ignored while it may block, and the other mirrors are called", async () => {
  await using mm = createSpace();
  let called = 0;
  const last = await mirrorOf(mm, () => {
    called++;
    return 0;
  });
  const bad = await mirrorOf(mm, answering("EAGAIN"));
  const worse = await mirrorOf(mm, async () => "EIO" as unknown as 0);
  const range = invalidation(mm, 0, 1);
  expect(await mm.notifiers?.invalidateRangeStart(range)).toBe(0);
  await mm.notifiers?.invalidateRangeEnd(range);
  expect(takeBugs()).toEqual(["I-HMM-9", "I-HMM-9"]);
  expect(called).toBe(1);
  await worse.unregister();
  const wrong = await mirrorOf(mm, answering("EIO"));
  const urgent = invalidation(mm, 0, 1, { blockable: false });
  await bad.unregister();
  expect(mm.notifiers?.invalidateRangeStart(urgent)).toBe(0);
  await mm.notifiers?.invalidateRangeEnd(urgent);
  expect(takeBugs()).toEqual(["I-HMM-9"]);
  expect(called).toBe(2);
  await unregisterAll(last, wrong);
});

test("a non-blockable EAGAIN stops the loop, and hmm takes its own part back", async () => {
  await using mm = createSpace();
  let called = 0;
  const first = await mirrorOf(mm, () => {
    called++;
    return 0;
  });
  const busy = await mirrorOf(mm, answering("EAGAIN"));
  const range = new HmmRange({ start: BASE, end: BASE + 4096 });
  range.register(first);
  expect(mm.notifiers?.invalidateRangeStart(invalidation(mm, 0, 1, { blockable: false }))).toBe("EAGAIN");
  expect(called).toBe(0);
  expect(await range.waitUntilValid({ timeoutMs: 0 })).toBe(true);
  await range.unregister();
  await unregisterAll(first, busy);
});

test("a non-blockable start that meets a writer of mirrorsSem is EAGAIN; a blockable one waits", async () => {
  await using mm = createSpace();
  let called = 0;
  const mirror = await mirrorOf(mm, () => {
    called++;
    return 0;
  });
  const writer = await mirror.hmm.mirrorsSem.write();
  expect(mm.notifiers?.invalidateRangeStart(invalidation(mm, 0, 1, { blockable: false }))).toBe("EAGAIN");
  const range = invalidation(mm, 0, 1);
  const started = mm.notifiers?.invalidateRangeStart(range);
  await turn();
  expect(called).toBe(0);
  writer.release();
  expect(await started).toBe(0);
  expect(called).toBe(1);
  await mm.notifiers?.invalidateRangeEnd(range);
  await unregisterAll(mirror);
});

test("an invalidation with idle mirrors runs no microtask", async () => {
  await using mm = createSpace();
  const mirror = await mirrorOf(mm);
  const range = invalidation(mm, 0, 1);
  expect(mm.notifiers?.invalidateRangeStart(range)).toBe(0);
  expect(mm.notifiers?.invalidateRangeEnd(range)).toBeUndefined();
  await unregisterAll(mirror);
});

test("I-HMM-10: a callback that throws is reported; it counts as EAGAIN only where that is allowed", async () => {
  const mm = createSpace();
  const fail = (): MaybePromise<0> => {
    throw new Error("broken");
  };
  let called = 0;
  const other = await mirrorOf(mm, () => {
    called++;
    return 0;
  });
  const sync = await mirrorOf(mm, fail, { release: () => Promise.reject(new Error("broken")) });
  const later = await mirrorOf(mm, async () => fail());
  const range = invalidation(mm, 0, 1);
  expect(await mm.notifiers?.invalidateRangeStart(range)).toBe(0);
  await mm.notifiers?.invalidateRangeEnd(range);
  expect(takeBugs()).toEqual(["I-HMM-10", "I-HMM-10"]);
  expect(called).toBe(1);
  await later.unregister();
  expect(mm.notifiers?.invalidateRangeStart(invalidation(mm, 0, 1, { blockable: false }))).toBe("EAGAIN");
  expect(takeBugs()).toEqual(["I-HMM-10"]);
  await mm.mmput();
  expect(takeBugs()).toEqual(["I-HMM-10"]);
  await unregisterAll(other, sync);
});

test("I-HMM-11: a sync callback that waits though it must not is reported and counts as EAGAIN", async () => {
  await using mm = createSpace();
  const mirror = await mirrorOf(mm, () => turn().then(() => 0));
  expect(mm.notifiers?.invalidateRangeStart(invalidation(mm, 0, 1, { blockable: false }))).toBe("EAGAIN");
  expect(takeBugs()).toEqual(["I-HMM-11"]);
  await unregisterAll(mirror);
});

test("I-HMM-5: a range that was never unregistered is reported when hmm is freed", async () => {
  const mm = createSpace();
  const mirror = await mirrorOf(mm);
  const range = new HmmRange({ start: BASE, end: BASE + 4096 });
  range.register(mirror);
  await unregisterAll(mirror);
  expect(takeBugs()).toEqual(["I-HMM-5"]);
  await range.unregister();
  await mm.mmput();
});

test("I-HMM-6: a mirror that is still registered when the last reference goes is reported", async () => {
  await using mm = createSpace();
  const mirror = await mirrorOf(mm);
  mm.mmgrab();
  mmuNotifierPut(mirror.hmm);
  await mmuNotifierSynchronize();
  expect(takeBugs()).toEqual(["I-HMM-6"]);
  await mirror.unregister();
  expect(takeBugs()).toEqual(["I-MN-4"]);
  mm.mmdrop();
});

test("I-HMM-4: a range at exit is reported, for it should have held a user", async () => {
  const mm = createSpace();
  const mirror = await mirrorOf(mm);
  const range = new HmmRange({ start: BASE, end: BASE + 4096 });
  range.register(mirror);
  await mm.mmput();
  expect(mm.users).toBe(1);
  const exit = mm.mmput();
  await exit;
  expect(takeBugs()).toEqual(["I-HMM-4"]);
  range.unregister();
  expect(takeBugs()).toEqual(["I-REF-1"]);
  await unregisterAll(mirror);
});

test("I-HMM-7: an end that hmm saw no start of is reported", async () => {
  await using mm = createSpace();
  const mirror = await mirrorOf(mm);
  const end = begin(invalidation(mm, 0, 1));
  await mm.notifiers?.invalidateRangeEnd(invalidation(mm, 0, 1));
  expect(takeBugs()).toEqual(["I-HMM-7"]);
  expect(end()).toBeUndefined();
  expect(takeBugs()).toEqual(["I-MN-1"]);
  await unregisterAll(mirror);
});
