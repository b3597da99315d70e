import { expect, test, vi } from "vitest";
import { WaitQueue } from "./wait-queue.ts";

test("a condition that holds needs no wait", async () => {
  expect(await new WaitQueue().wait(() => true, { timeoutMs: 0 })).toBe(true);
});

test("wakes those whose condition holds and leaves the others", async () => {
  const queue = new WaitQueue();
  let value = 0;
  const one = queue.wait(() => value >= 1);
  const two = queue.wait(() => value >= 2);
  value = 1;
  queue.wakeAll();
  expect(await one).toBe(true);
  expect(queue.size).toBe(1);
  value = 2;
  queue.wakeAll();
  expect(await two).toBe(true);
  expect(queue.size).toBe(0);
});

test("a wait that times out answers false, not an error", async () => {
  const queue = new WaitQueue();
  expect(await queue.wait(() => false, { timeoutMs: 1 })).toBe(false);
  expect(queue.size).toBe(0);
});

test("an abort ends the wait in EINTR and clears its timer", async () => {
  vi.useFakeTimers();
  try {
    const queue = new WaitQueue();
    const abort = new AbortController();
    const wait = queue.wait(() => false, { signal: abort.signal, timeoutMs: 1000 });
    expect(vi.getTimerCount()).toBe(1);
    abort.abort();
    await expect(wait).rejects.toMatchObject({ code: "EINTR" });
    expect(vi.getTimerCount()).toBe(0);
    expect(queue.size).toBe(0);
    await expect(queue.wait(() => true, { signal: abort.signal })).rejects.toMatchObject({ code: "EINTR" });
  } finally {
    vi.useRealTimers();
  }
});

test("a condition that throws ends its own wait only", async () => {
  const queue = new WaitQueue();
  let broken = false;
  let ready = false;
  const bad = queue.wait(() => {
    if (broken) {
      throw new Error("broken");
    }
    return false;
  });
  const good = queue.wait(() => ready);
  broken = true;
  ready = true;
  queue.wakeAll();
  await expect(bad).rejects.toThrow("broken");
  expect(await good).toBe(true);
});
