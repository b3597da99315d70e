import { describe, expect, test } from "vitest";
import { isPromise, type MaybePromise } from "../base/index.ts";
import type { AddressSpace, MmuNotifierRange } from "../mm/index.ts";
import { takeBugs } from "../testing/bugs.ts";
import { errorCode, gate } from "../testing/mm.ts";
import { BASE, begin, createSpace, invalidation, turn } from "../testing/spaces.ts";
import { type IntervalFinish, MmuIntervalNotifier, mmuNotifierRegister, mmuNotifierUnregister } from "./index.ts";
import { MmuNotifier } from "./notifier.ts";
import { Subscriptions } from "./subscriptions.ts";

const P = 4096;

type Answer = (range: MmuNotifierRange, seq: number) => MaybePromise<boolean | IntervalFinish>;

/** A notifier that notes what it is told. */
function logging(events: string[], name: string, answer: Answer = () => true): MmuIntervalNotifier {
  return new MmuIntervalNotifier({
    name,
    invalidate(notifier, range, curSeq) {
      events.push(`${name} ${range.event}`);
      notifier.setSeq(curSeq);
      return answer(range, curSeq);
    },
  });
}

const intervals = (mm: AddressSpace) => {
  if (!(mm.notifiers instanceof Subscriptions)) {
    throw new Error("no subscriptions");
  }
  return mm.notifiers.intervals;
};

describe("insert", () => {
  test("subscribes to a range: invalidations that overlap call it, others do not", async () => {
    await using mm = createSpace();
    const events: string[] = [];
    const sub = logging(events, "a");
    await sub.insert(mm, BASE + P, 2 * P);
    expect([sub.start, sub.end, sub.mm === mm]).toEqual([BASE + P, BASE + 3 * P, true]);
    for (const [page, end] of [
      [0, 1],
      [3, 4],
      [0, 2],
      [2, 9],
    ]) {
      await begin(invalidation(mm, page, end))();
    }
    expect(events).toEqual(["a clear", "a clear"]);
    await sub.remove();
    await begin(invalidation(mm, 0, 9))();
    expect(events).toHaveLength(2);
  });

  test("EOVERFLOW: no length, or a range that leaves the address space; EINVAL: no address", async () => {
    await using mm = createSpace();
    const sub = logging([], "a");
    const codes: string[] = [];
    for (const [start, length] of [
      [BASE, 0],
      [BASE, -1],
      [BASE, 0.5],
      [2 ** 48 - P, 2 * P],
      [-1, P],
    ]) {
      codes.push(await errorCode(() => sub.insert(mm, start, length)));
    }
    expect(codes).toEqual(["EOVERFLOW", "EOVERFLOW", "EOVERFLOW", "EOVERFLOW", "EINVAL"]);
    await sub.insert(mm, 0, 2 ** 48);
    await sub.remove();
  });

  test("I-MN-5: a space that has exited is refused with EINVAL, and reported", async () => {
    const mm = createSpace();
    await mm.mmput();
    expect(await errorCode(() => logging([], "a").insert(mm, BASE, P))).toBe("EINVAL");
    expect(takeBugs()).toEqual(["I-MN-5"]);
  });

  test("ENOMEM leaves nothing behind", async () => {
    await using mm = createSpace();
    const sub = logging([], "a");
    mm.memory.failAfter(0);
    expect(await errorCode(() => sub.insert(mm, BASE, P))).toBe("ENOMEM");
    mm.memory.failAfter();
    expect([sub.isInserted, mm.count]).toEqual([false, 1]);
  });

  test("with the lock held, and I-SYNC-2 without it", async () => {
    await using mm = createSpace();
    const sub = logging([], "a");
    const lock = await mm.mmapLock.write();
    sub.insertLocked(lock, mm, BASE, P);
    expect(() => sub.insertLocked(lock, mm, BASE, P)).toThrow("I-MN-12");
    lock.release();
    expect(() => logging([], "b").insertLocked(lock, mm, BASE, P)).toThrow("I-SYNC-2");
    await sub.remove();
    expect(() => sub.remove()).toThrow("I-MN-12");
  });

  test("while an interval is invalidated waits for the end to come into the tree, and so does its reader", async () => {
    await using mm = createSpace();
    const events: string[] = [];
    const first = logging(events, "first");
    await first.insert(mm, BASE, P);
    const end = begin(invalidation(mm, 0, 1));
    const late = logging(events, "late");
    expect(isPromise(late.insert(mm, BASE, P))).toBe(false);
    const reading = Promise.resolve(late.readBegin());
    await begin(invalidation(mm, 0, 1))();
    expect(events).toEqual(["first clear", "first clear"]);
    await end();
    expect(late.readRetry(await reading)).toBe(false);
    await begin(invalidation(mm, 0, 1))();
    expect(events.slice(2).sort()).toEqual(["first clear", "late clear"]);
    await first.remove();
    await late.remove();
  });

  test("while an invalidation that met nobody is under way makes its reader wait for that too", async () => {
    await using mm = createSpace();
    const far = logging([], "far");
    await far.insert(mm, BASE + 100 * P, P);
    const end = begin(invalidation(mm, 0, 1));
    expect(intervals(mm).isInvalidating).toBe(false);
    const late = logging([], "late");
    await late.insert(mm, BASE, P);
    expect(intervals(mm).isInvalidating).toBe(true);
    const reading = Promise.resolve(late.readBegin());
    await turn();
    await end();
    expect(late.readRetry(await reading)).toBe(false);
    await far.remove();
    await late.remove();
  });
});

describe("remove", () => {
  test("waits for an invalidation that may be calling it", async () => {
    await using mm = createSpace();
    const { wait, open } = gate();
    const events: string[] = [];
    const sub = logging(events, "a", () => wait.then(() => true));
    await sub.insert(mm, BASE, P);
    const range = invalidation(mm, 0, 1);
    const started = mm.notifiers?.invalidateRangeStart(range);
    const removed = Promise.resolve(sub.remove()).then(() => events.push("removed"));
    expect(() => sub.remove()).toThrow("I-MN-12");
    await turn();
    open();
    await started;
    expect(events).toEqual(["a clear"]);
    await mm.notifiers?.invalidateRangeEnd(range);
    await removed;
    expect(events).toEqual(["a clear", "removed"]);
    expect(mm.count).toBe(1);
  });

  test("of one that is not in the tree yet does not wait", async () => {
    await using mm = createSpace();
    const first = logging([], "first");
    await first.insert(mm, BASE, P);
    const end = begin(invalidation(mm, 0, 1));
    const late = logging([], "late");
    await late.insert(mm, BASE, P);
    expect(isPromise(late.remove())).toBe(false);
    await end();
    expect(intervals(mm).size).toBe(1);
    await first.remove();
  });

  test("I-MN-11: inside a callback, also behind an await", async () => {
    await using mm = createSpace();
    const errors: unknown[] = [];
    const sub: MmuIntervalNotifier = logging([], "a", async () => {
      const tryRemove = () => {
        try {
          return sub.remove();
        } catch (error) {
          return void errors.push(error);
        }
      };
      tryRemove();
      await turn();
      tryRemove();
      return true;
    });
    await sub.insert(mm, BASE, P);
    const range = invalidation(mm, 0, 1);
    await mm.notifiers?.invalidateRangeStart(range);
    await mm.notifiers?.invalidateRangeEnd(range);
    expect(errors.map((error) => (error as { invariant?: string }).invariant)).toEqual(["I-MN-11", "I-MN-11"]);
    await sub.remove();
  });
});

describe("the sequence", () => {
  test("I-MN-2: is odd while an interval is invalidated, and moves on when the last invalidation ends", async () => {
    await using mm = createSpace();
    const sub = logging([], "a");
    await sub.insert(mm, BASE, P);
    const { seq } = intervals(mm);
    expect(seq % 2).toBe(0);
    const ends = [begin(invalidation(mm, 7, 8)), begin(invalidation(mm, 0, 1)), begin(invalidation(mm, 0, 2))];
    expect(intervals(mm).seq).toBe(seq + 1);
    await ends[1]();
    await ends[2]();
    expect(intervals(mm).seq, "the first one is still under way").toBe(seq + 1);
    await ends[0]();
    expect(intervals(mm).seq).toBe(seq + 2);
    await begin(invalidation(mm, 7, 8))();
    expect(intervals(mm).seq).toBe(seq + 2);
    await sub.remove();
  });

  test("I-MN-2: wraps, and readers on both sides of the wrap start over exactly when they must", async () => {
    await using mm = createSpace();
    const sub = logging([], "a");
    await sub.insert(mm, BASE, P);
    intervals(mm).seq = Number.MAX_SAFE_INTEGER - 1;
    const before = await sub.readBegin();
    await begin(invalidation(mm, 0, 1))();
    expect(sub.readRetry(before)).toBe(true);
    expect(intervals(mm).isInvalidating).toBe(false);
    const across = await sub.readBegin();
    expect(sub.readRetry(across)).toBe(false);
    const late = logging([], "late");
    await late.insert(mm, BASE, P);
    const first = await late.readBegin();
    await begin(invalidation(mm, 0, 1))();
    expect([sub.readRetry(across), late.readRetry(first)]).toEqual([true, true]);
    expect(intervals(mm).seq).toBeLessThan(10);
    await sub.remove();
    await late.remove();
  });

  test("a reader that begins in an invalidation waits for its end, and is told of the next", async () => {
    await using mm = createSpace();
    const sub = logging([], "a");
    await sub.insert(mm, BASE, P);
    const calm = await sub.readBegin();
    const end = begin(invalidation(mm, 0, 1));
    expect([sub.checkRetry(calm), sub.readRetry(calm)]).toEqual([true, true]);
    await expect(Promise.resolve(sub.readBegin({ timeoutMs: 1 }))).rejects.toMatchObject({ code: "EBUSY" });
    const abort = new AbortController();
    const aborted = Promise.resolve(sub.readBegin({ signal: abort.signal }));
    abort.abort();
    await expect(aborted).rejects.toMatchObject({ code: "EINTR" });
    const reading = Promise.resolve(sub.readBegin());
    await end();
    const seq = await reading;
    expect(sub.readRetry(seq)).toBe(false);
    await begin(invalidation(mm, 0, 1))();
    expect(sub.readRetry(seq)).toBe(true);
    await sub.remove();
  });
});

describe("invalidate", () => {
  test("begins all, then finishes all", async () => {
    await using mm = createSpace();
    const events: string[] = [];
    const finishing = (name: string) =>
      logging(events, name, () => async () => {
        await turn();
        events.push(`${name} finished`);
      });
    const subs = [finishing("a"), logging(events, "b"), finishing("c")];
    for (const sub of subs) {
      await sub.insert(mm, BASE, P);
    }
    const range = invalidation(mm, 0, 1);
    expect(await mm.notifiers?.invalidateRangeStart(range)).toBe(0);
    expect(events.slice(0, 3).sort()).toEqual(["a clear", "b clear", "c clear"]);
    expect(events.slice(3).sort()).toEqual(["a finished", "c finished"]);
    await mm.notifiers?.invalidateRangeEnd(range);
    await Promise.all(subs.map((sub) => sub.remove()));
  });

  test("EAGAIN where it must not block: the core ends it, what had begun is finished, other notifiers are not told", async () => {
    await using mm = createSpace();
    const events: string[] = [];
    const subs = [
      logging(events, "a", () => () => void events.push("a finished")),
      logging(events, "b", (range) => range.blockable),
    ];
    for (const sub of subs) {
      await sub.insert(mm, BASE, P);
    }
    const listed = new MmuNotifier({
      name: "list",
      invalidateRangeStart() {
        events.push("list");
        return 0;
      },
    });
    await mmuNotifierRegister(listed, mm);
    const urgent = invalidation(mm, 0, 1, { blockable: false });
    expect(mm.notifiers?.invalidateRangeStart(urgent)).toBe("EAGAIN");
    expect([...events].sort()).toEqual(["a clear", "a finished", "b clear"]);
    expect([intervals(mm).active, intervals(mm).isInvalidating]).toEqual([0, false]);
    await begin(invalidation(mm, 0, 1))();
    expect(events).toContain("list");
    await mmuNotifierUnregister(listed);
    await Promise.all(subs.map((sub) => sub.remove()));
  });

  test("I-MN-7, I-MN-8, I-MN-9, I-MN-10: broken contracts are reported, and the others are called all the same", async () => {
    await using mm = createSpace();
    const events: string[] = [];
    const silent = new MmuIntervalNotifier({ name: "silent", invalidate: () => true });
    const broken: Answer[] = [
      () => false,
      () => {
        throw new Error("oops");
      },
      () => Promise.reject(new Error("late")),
    ];
    const subs = [silent, ...broken.map((answer, i) => logging(events, `b${i}`, answer)), logging(events, "good")];
    for (const sub of subs) {
      await sub.insert(mm, BASE, P);
    }
    const range = invalidation(mm, 0, 1);
    expect(await mm.notifiers?.invalidateRangeStart(range)).toBe(0);
    await mm.notifiers?.invalidateRangeEnd(range);
    expect(takeBugs().sort()).toEqual(["I-MN-10", "I-MN-10", "I-MN-7", "I-MN-8"]);
    expect(events).toContain("good clear");
    const urgent = invalidation(mm, 0, 1, { blockable: false });
    expect(mm.notifiers?.invalidateRangeStart(urgent)).toBe("EAGAIN");
    await turn();
    expect(takeBugs().sort()).toEqual(["I-MN-10", "I-MN-10", "I-MN-8", "I-MN-9"]);
    await Promise.all(subs.map((sub) => sub.remove()));
  });

  test("exit is an invalidation of the whole space with the event release; removing afterwards is in order", async () => {
    const mm = createSpace();
    const told: MmuNotifierRange[] = [];
    const sub = logging([], "a", (range) => {
      told.push(range);
      return true;
    });
    await sub.insert(mm, BASE, P);
    const seq = await sub.readBegin();
    await mm.mmput();
    expect(told.map(({ event, start, end }) => [event, start, end])).toEqual([["release", 0, 2 ** 48]]);
    expect([sub.readRetry(seq), mm.count]).toEqual([true, 1]);
    await sub.remove();
    expect(mm.count).toBe(0);
  });
});
