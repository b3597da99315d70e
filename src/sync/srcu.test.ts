import fc from "fast-check";
import { expect, test } from "vitest";
import { takeBugs } from "../testing/bugs.ts";
import { lockdepTask } from "./lockdep.ts";
import { Srcu } from "./srcu.ts";

const tick = () => new Promise((resolve) => setTimeout(resolve));

test("a callback never runs inside call, even with no reader", async () => {
  const srcu = new Srcu();
  let ran = 0;
  srcu.call(() => ran++);
  expect(ran).toBe(0);
  await srcu.barrier();
  expect(ran).toBe(1);
});

test("a callback waits for the readers that were there, and not for later ones", async () => {
  const srcu = new Srcu();
  const early = srcu.readLock();
  let ran = false;
  srcu.call(() => {
    ran = true;
  });
  await tick();
  const late = srcu.readLock();
  expect(late).not.toBe(early);
  expect(ran).toBe(false);
  srcu.readUnlock(early);
  expect(ran).toBe(false);
  await tick();
  expect(ran).toBe(true);
  expect(srcu.hasReaders).toBe(true);
  srcu.readUnlock(late);
});

test("callbacks queued during a grace period share the next one", async () => {
  const srcu = new Srcu();
  const order: string[] = [];
  const first = srcu.readLock();
  srcu.call(() => order.push("a"));
  await tick();
  const second = srcu.readLock();
  srcu.call(() => order.push("b"));
  srcu.call(() => order.push("c"));
  srcu.readUnlock(first);
  await tick();
  expect(order).toEqual(["a"]);
  srcu.readUnlock(second);
  await tick();
  expect(order).toEqual(["a", "b", "c"]);
});

test("barrier resolves after every callback queued before it, synchronize after the open read sections", async () => {
  const srcu = new Srcu();
  const order: string[] = [];
  const reader = srcu.readLock();
  srcu.call(() => order.push("callback"));
  const barrier = srcu.barrier().then(() => order.push("barrier"));
  const synchronize = srcu.synchronize().then(() => order.push("synchronize"));
  await tick();
  expect(order).toEqual([]);
  srcu.readUnlock(reader);
  await Promise.all([barrier, synchronize]);
  expect(order).toEqual(["callback", "barrier", "synchronize"]);
});

test("I-SYNC-6: a callback that throws is reported and the others run", async () => {
  const srcu = new Srcu();
  let ran = false;
  srcu.call(() => {
    throw new Error("broken");
  });
  srcu.call(() => {
    ran = true;
  });
  await srcu.barrier();
  expect(ran).toBe(true);
  expect(takeBugs()).toEqual(["I-SYNC-6"]);
});

test("I-SYNC-7: an unlock without a lock is refused", () => {
  const srcu = new Srcu();
  expect(() => srcu.readUnlock(0)).toThrow("I-SYNC-7");
  expect(() => srcu.readUnlock(7)).toThrow("I-SYNC-7");
});

test("read sections end with their body: value, promise or throw", async () => {
  const srcu = new Srcu();
  expect(srcu.read(() => (srcu.hasReaders ? 1 : 2))).toBe(1);
  expect(srcu.hasReaders).toBe(false);
  const slow = srcu.read(() => tick().then(() => 3));
  expect(srcu.hasReaders).toBe(true);
  expect(await slow).toBe(3);
  expect(srcu.hasReaders).toBe(false);
  expect(() =>
    srcu.read(() => {
      throw new Error("broken");
    }),
  ).toThrow("broken");
  expect(srcu.hasReaders).toBe(false);
});

test("I-SYNC-4: waiting for a grace period inside a read section is reported, not waited for", async () => {
  const srcu = new Srcu();
  await lockdepTask("reader", async () => {
    const index = srcu.readLock();
    await expect(srcu.synchronize()).rejects.toThrow("I-SYNC-4");
    await expect(srcu.barrier()).rejects.toThrow("I-SYNC-4");
    srcu.readUnlock(index);
    await srcu.synchronize();
  });
  await srcu.read(async () => {
    await lockdepTask("inner", () => expect(srcu.synchronize()).rejects.toThrow("I-SYNC-4"));
  });
});

test("in every schedule no callback runs while a reader from before its call is open", async () => {
  await fc.assert(
    fc.asyncProperty(fc.scheduler(), fc.array(fc.boolean(), { minLength: 2, maxLength: 12 }), async (s, actors) => {
      const srcu = new Srcu();
      const open = new Set<number>();
      let calls = 0;
      const all = actors.map(async (isReader, i) => {
        await s.schedule(Promise.resolve(), `${i} begins`);
        if (isReader) {
          const index = srcu.readLock();
          open.add(i);
          await s.schedule(Promise.resolve(), `${i} reads`);
          open.delete(i);
          srcu.readUnlock(index);
        } else {
          const before = new Set(open);
          srcu.call(() => {
            calls++;
            expect([...before].filter((reader) => open.has(reader))).toEqual([]);
          });
        }
      });
      await s.waitFor(Promise.all(all));
      await srcu.barrier();
      expect(takeBugs()).toEqual([]);
      expect(calls).toBe(actors.filter((isReader) => !isReader).length);
    }),
  );
});
