import fc from "fast-check";
import { expect, test } from "vitest";
import { lockdepTask } from "../sync/index.ts";
import { logging } from "../testing/notifiers.ts";
import { begin, createSpace, invalidation, turn } from "../testing/spaces.ts";
import {
  MmuNotifier,
  mmuNotifierRegister,
  mmuNotifierRegisterLocked,
  mmuNotifierSynchronize,
  mmuNotifierUnregister,
} from "./index.ts";

test("unregister calls release when exit has not, and then waits until nothing runs", async () => {
  await using mm = createSpace();
  const { ops, events } = logging();
  const notifier = new MmuNotifier(ops);
  await mmuNotifierRegister(notifier, mm);
  expect(mm.count).toBe(2);
  await begin(invalidation(mm, 0, 1))();
  await mmuNotifierUnregister(notifier);
  expect(events).toEqual(["start", "end", "release"]);
  expect(mm.count).toBe(1);
  await begin(invalidation(mm, 0, 1))();
  expect(events).toEqual(["start", "end", "release"]);
});

test("unregister after exit does not call release again", async () => {
  const mm = createSpace();
  const { ops, events } = logging();
  const notifier = new MmuNotifier(ops);
  await mmuNotifierRegister(notifier, mm);
  await mm.mmput();
  await mmuNotifierUnregister(notifier);
  expect(events).toEqual(["release"]);
  expect(mm.count).toBe(0);
});

test("exit and unregister at once share one release, in every schedule", async () => {
  await fc.assert(
    fc.asyncProperty(fc.scheduler(), async (s) => {
      const mm = createSpace();
      let running = 0;
      let released = 0;
      const notifier = new MmuNotifier({
        name: "slow",
        release: async () => {
          running++;
          released++;
          await s.schedule(Promise.resolve(), "release");
          running--;
        },
      });
      await mmuNotifierRegister(notifier, mm);
      const exit = lockdepTask("exit", async () => {
        await s.schedule(Promise.resolve(), "exit");
        await mm.mmput();
      });
      const unregister = lockdepTask("unregister", async () => {
        await s.schedule(Promise.resolve(), "unregister");
        await mmuNotifierUnregister(notifier);
        expect(running).toBe(0);
      });
      await s.waitFor(Promise.all([exit, unregister]));
      expect(released).toBe(1);
      expect(mm.count).toBe(0);
    }),
  );
});

test("I-MN-11: waiting for callbacks inside a callback is refused, not waited for", async () => {
  await using mm = createSpace();
  const seen: unknown[] = [];
  const note = (error: unknown): void => void seen.push(error);
  const notifier = new MmuNotifier({
    name: "self",
    invalidateRangeStart: async (self): Promise<0> => {
      await mmuNotifierUnregister(self).catch(note);
      await turn();
      await mmuNotifierUnregister(self).catch(note);
      await mmuNotifierSynchronize().catch(note);
      return 0;
    },
  });
  await mmuNotifierRegister(notifier, mm);
  const range = invalidation(mm, 0, 1);
  await mm.notifiers?.invalidateRangeStart(range);
  await mm.notifiers?.invalidateRangeEnd(range);
  expect(seen.map((error) => (error as { invariant: string }).invariant)).toEqual(["I-MN-11", "I-MN-11", "I-MN-11"]);
  await mmuNotifierUnregister(notifier);
});

test("I-MN-12: a notifier is registered once, with ops, and unregistered once", async () => {
  await using mm = createSpace();
  const bare = new MmuNotifier();
  expect(() => bare.mm).toThrow("I-MN-12");
  await expect(mmuNotifierRegister(bare, mm)).rejects.toThrow("I-MN-12");
  await expect(mmuNotifierUnregister(bare)).rejects.toThrow("I-MN-12");
  const notifier = new MmuNotifier({ name: "once" });
  {
    using lock = await mm.mmapLock.write();
    await mmuNotifierRegisterLocked(notifier, mm, lock);
    expect(() => mmuNotifierRegisterLocked(notifier, mm, lock)).toThrow("I-MN-12");
  }
  await mmuNotifierUnregister(notifier);
  await expect(mmuNotifierUnregister(notifier)).rejects.toThrow("I-MN-12");
  await mmuNotifierRegister(notifier, mm);
  await mmuNotifierUnregister(notifier);
});
