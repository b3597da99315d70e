import fc from "fast-check";
import { expect, test } from "vitest";
import { BugError } from "../base/index.ts";
import type { MmapRead, MmapWrite } from "./guard.ts";
import { Mutex } from "./mutex.ts";
import { RwSemaphore } from "./rw-semaphore.ts";

const tick = () => new Promise((resolve) => setTimeout(resolve));

test("readers share, a writer is alone", async () => {
  const sem = new RwSemaphore("x-a");
  const first = await sem.read();
  const second = sem.tryRead();
  expect(second).toBeDefined();
  expect(sem.tryWrite()).toBeUndefined();
  first.release();
  second?.release();
  using write = sem.tryWrite();
  expect(write?.mode).toBe("write");
  expect(sem.tryRead()).toBeUndefined();
});

test("a waiting writer stops new readers, and is served in its turn", async () => {
  const sem = new RwSemaphore("x-a");
  const order: string[] = [];
  const reader = await sem.read();
  const writer = sem.write().then((guard) => {
    order.push("write");
    guard.release();
  });
  const late = sem.read().then((guard) => {
    order.push("read");
    guard.release();
  });
  expect(sem.tryRead()).toBeUndefined();
  await tick();
  expect(order).toEqual([]);
  reader.release();
  await Promise.all([writer, late]);
  expect(order).toEqual(["write", "read"]);
});

test("an aborted wait ends in EINTR, leaves the queue and lets those behind it in", async () => {
  const sem = new RwSemaphore("x-a");
  const reader = await sem.read();
  const abort = new AbortController();
  const writer = sem.write({ signal: abort.signal });
  const behind = sem.read();
  abort.abort(new Error("enough"));
  await expect(writer).rejects.toMatchObject({ code: "EINTR" });
  (await behind).release();
  reader.release();
  expect(sem.isHeld).toBe(false);
});

test("a signal that fired before is EINTR even when the lock is free", async () => {
  const sem = new RwSemaphore("x-a");
  await expect(sem.write({ signal: AbortSignal.abort() })).rejects.toMatchObject({ code: "EINTR" });
  await expect(sem.read({ signal: AbortSignal.abort() })).rejects.toMatchObject({ code: "EINTR" });
  expect(sem.isHeld).toBe(false);
});

test("a wait that times out ends in EBUSY and leaves the queue", async () => {
  const sem = new RwSemaphore("x-a");
  const writer = await sem.write();
  await expect(sem.read({ timeoutMs: 1 })).rejects.toMatchObject({ code: "EBUSY" });
  writer.release();
  expect(sem.tryWrite()?.release()).toBeUndefined();
  expect(sem.isHeld).toBe(false);
});

test("an abort after the grant changes nothing", async () => {
  const sem = new RwSemaphore("x-a");
  const abort = new AbortController();
  const first = await sem.write();
  const second = sem.write({ signal: abort.signal });
  first.release();
  abort.abort();
  const guard = await second;
  guard.assertHeld();
  guard.release();
  expect(sem.isHeld).toBe(false);
});

test("downgrade lets readers in but no writer", async () => {
  const sem = new RwSemaphore("x-a");
  const write = await sem.write();
  const reader = sem.read();
  const read = write.downgrade();
  (await reader).release();
  expect(() => write.assertHeld()).toThrow("I-SYNC-2");
  expect(sem.tryWrite()).toBeUndefined();
  write.release();
  expect(sem.isHeld).toBe(true);
  read.release();
  expect(sem.isHeld).toBe(false);
});

test("I-SYNC-2: a released guard proves nothing, and release is idempotent", async () => {
  const sem = new RwSemaphore("x-a");
  const guard = await sem.read();
  sem.assertHeld("op");
  expect(() => sem.assertHeldWrite("op")).toThrow("I-SYNC-2");
  sem.assertGuard(guard, "op");
  expect(() => new RwSemaphore("x-a").assertGuard(guard, "op")).toThrow("belongs to another lock");
  guard.release();
  guard.release();
  expect(() => guard.assertHeld()).toThrow(BugError);
  expect(() => sem.assertGuard(guard, "op")).toThrow("was released");
  expect(() => sem.assertHeld("op")).toThrow("I-SYNC-2");
  expect(sem.tryWrite()).toBeDefined();
});

test("a write guard is accepted where a read guard is asked for, and not the other way", async () => {
  const sem = new RwSemaphore("mmap");
  const reads = (_lock: MmapRead): void => {};
  const writes = (_lock: MmapWrite): void => {};
  using write = await sem.write();
  reads(write);
  writes(write);
  using read = write.downgrade();
  reads(read);
  // @ts-expect-error a read guard does not allow writing
  writes(read);
  // @ts-expect-error a guard of another class proves nothing about the mmap lock
  reads(new RwSemaphore("update").tryRead());
  // @ts-expect-error only a write guard can be downgraded
  expect(() => read.downgrade()).not.toThrow(TypeError);
});

test("a mutex has one holder", async () => {
  const mutex = new Mutex("x-m");
  expect(() => mutex.assertHeld("op")).toThrow("I-SYNC-2");
  const first = await mutex.lock();
  mutex.assertHeld("op");
  expect(mutex.isHeld).toBe(true);
  expect(mutex.tryLock()).toBeUndefined();
  await expect(mutex.lock({ timeoutMs: 0 })).rejects.toMatchObject({ code: "EBUSY" });
  const second = mutex.lock();
  first.release();
  (await second).release();
  expect(mutex.isHeld).toBe(false);
});

test("in every schedule: never a writer beside anyone, and nobody is left waiting", async () => {
  const user = fc.record({ mode: fc.constantFrom("read" as const, "write" as const), abort: fc.boolean() });
  await fc.assert(
    fc.asyncProperty(fc.scheduler(), fc.array(user, { minLength: 2, maxLength: 8 }), async (s, users) => {
      const sem = new RwSemaphore("x-a");
      let readers = 0;
      let writers = 0;
      const all = users.map(async ({ mode, abort }, i) => {
        const controller = new AbortController();
        await s.schedule(Promise.resolve(), `${i} asks`);
        const wait = sem[mode]({ signal: controller.signal });
        if (abort) {
          void s.schedule(Promise.resolve(), `${i} aborts`).then(() => controller.abort());
        }
        try {
          using _ = await wait;
          mode === "read" ? readers++ : writers++;
          expect(writers === 0 || (writers === 1 && readers === 0)).toBe(true);
          await s.schedule(Promise.resolve(), `${i} works`);
          mode === "read" ? readers-- : writers--;
        } catch (error) {
          expect(error).toMatchObject({ code: "EINTR" });
        }
      });
      await s.waitFor(Promise.all(all));
      expect(sem.isHeld).toBe(false);
    }),
  );
});
