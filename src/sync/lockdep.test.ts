import { afterEach, expect, test } from "vitest";
import {
  lockdepDetached,
  lockdepHolds,
  lockdepReset,
  lockdepTask,
  mightWaitFor,
  setLockdepContext,
} from "./lockdep.ts";
import { Mutex } from "./mutex.ts";
import { RwSemaphore } from "./rw-semaphore.ts";

afterEach(lockdepReset);

test("I-SYNC-3: an order against LOCK_ORDER is reported the first time", async () => {
  const mmap = new RwSemaphore("mmap");
  const update = new Mutex("update");
  await lockdepTask("driver", async () => {
    using _ = await update.lock();
    await expect(mmap.read()).rejects.toThrow("I-SYNC-3");
  });
  expect(mmap.isHeld).toBe(false);
});

test("I-SYNC-3: two orders of one pair are reported with the stack that taught the first", async () => {
  const a = new Mutex("x-a");
  const b = new Mutex("x-b");
  async function teach(): Promise<void> {
    using _a = await a.lock();
    using _b = await b.lock();
  }
  await lockdepTask("teacher", teach);
  await lockdepTask("culprit", async () => {
    using _ = await b.lock();
    await expect(a.lock()).rejects.toThrow(/x-a under x-b.*other way round[\s\S]*"teacher"[\s\S]*teach/);
  });
});

test("I-SYNC-3: an order through a third class is found", async () => {
  const [a, b, c] = [new Mutex("x-a"), new Mutex("x-b"), new Mutex("x-c")];
  for (const [outer, inner] of [
    [a, b],
    [b, c],
  ]) {
    await lockdepTask("teacher", async () => {
      using _outer = await outer.lock();
      using _inner = await inner.lock();
    });
  }
  await lockdepTask("culprit", async () => {
    using _ = await c.lock();
    await expect(a.lock()).rejects.toThrow("I-SYNC-3");
  });
});

test("I-SYNC-4: re-entering a read lock is reported, for it deadlocks when a writer waits in between", async () => {
  const sem = new RwSemaphore("mmap");
  await lockdepTask("reader", async () => {
    using _ = await sem.read();
    const writer = lockdepTask("writer elsewhere", () => sem.tryWrite());
    expect(writer).toBeUndefined();
    await expect(sem.read()).rejects.toThrow("deadlocks as soon as a writer waits");
    await expect(new RwSemaphore("mmap").read()).rejects.toThrow("a second lock of class mmap");
  });
});

test("tasks that run side by side do not see each other's locks", async () => {
  const a = new Mutex("x-a");
  const b = new Mutex("x-b");
  const [first, second] = await Promise.all([
    lockdepTask("one", async () => {
      using _ = await a.lock();
      await Promise.resolve();
      return [lockdepHolds("x-a"), lockdepHolds("x-b")];
    }),
    lockdepTask("two", async () => {
      using _ = await b.lock();
      await Promise.resolve();
      return [lockdepHolds("x-a"), lockdepHolds("x-b")];
    }),
  ]);
  expect(first).toEqual([true, false]);
  expect(second).toEqual([false, true]);
});

test("a task inherits its caller's locks until they are released", async () => {
  const a = new Mutex("x-a");
  await lockdepTask("outer", async () => {
    const guard = await a.lock();
    await lockdepTask("inner", async () => {
      expect(lockdepHolds("x-a")).toBe(true);
      guard.release();
      expect(lockdepHolds("x-a")).toBe(false);
    });
  });
});

test("a lock that had to be waited for is held by the task that waited", async () => {
  const a = new Mutex("x-a");
  const guard = await lockdepTask("holder", () => a.lock());
  const waiter = lockdepTask("waiter", async () => {
    using _ = await a.lock();
    return lockdepHolds("x-a");
  });
  guard.release();
  expect(await waiter).toBe(true);
});

test("an aborted wait holds nothing", async () => {
  const a = new Mutex("x-a");
  using _ = await a.lock();
  await lockdepTask("waiter", async () => {
    const abort = new AbortController();
    const wait = a.lock({ signal: abort.signal });
    expect(lockdepHolds("x-a")).toBe(false);
    abort.abort();
    await expect(wait).rejects.toMatchObject({ code: "EINTR" });
    expect(lockdepHolds("x-a")).toBe(false);
  });
});

test("mightWaitFor counts as taking and giving back", async () => {
  const update = new Mutex("update");
  await lockdepTask("driver", async () => {
    mightWaitFor("validity");
    using _ = await update.lock();
    expect(() => mightWaitFor("validity")).toThrow("I-SYNC-3");
  });
});

test("without a task or a context nothing is tracked", async () => {
  const a = new RwSemaphore("mmap");
  using _ = await a.read();
  expect(lockdepHolds("mmap")).toBe(false);
  const former = setLockdepContext(undefined);
  try {
    lockdepTask("off", () => {
      a.tryRead()?.release();
      mightWaitFor("validity");
      expect(lockdepHolds("mmap")).toBe(false);
    });
  } finally {
    setLockdepContext(former);
  }
});

test("work that nobody waits for holds nothing of what whoever started it holds", async () => {
  const mmap = new RwSemaphore("mmap");
  const update = new Mutex("update");
  await lockdepTask("caller", async () => {
    using _ = await update.lock();
    await lockdepDetached("later", async () => {
      expect(lockdepHolds("update")).toBe(false);
      (await mmap.read()).release();
    });
    expect(lockdepHolds("update")).toBe(true);
  });
});
