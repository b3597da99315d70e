import { expect, test } from "vitest";
import { KernelError } from "../base/index.ts";
import type { AddressSpace } from "../mm/index.ts";
import { lockdepTask } from "../sync/index.ts";
import { takeBugs } from "../testing/bugs.ts";
import { logging } from "../testing/notifiers.ts";
import { BASE, begin, createSpace, invalidation, turn } from "../testing/spaces.ts";
import {
  MmuNotifier,
  type MmuNotifierOps,
  mmuNotifierGet,
  mmuNotifierGetLocked,
  mmuNotifierPut,
  mmuNotifierSynchronize,
} from "./index.ts";

test("one notifier per (ops, mm): the same table shares, another table or another space does not", async () => {
  await using mm = createSpace();
  await using other = createSpace();
  const { ops, events } = logging();
  const twin: MmuNotifierOps = { ...ops };
  const first = await mmuNotifierGet(ops, mm);
  expect(await mmuNotifierGet(ops, mm)).toBe(first);
  expect(first.users).toBe(2);
  expect(first.mm).toBe(mm);
  const second = await mmuNotifierGet(twin, mm);
  const third = await mmuNotifierGet(ops, other);
  expect(new Set([first, second, third]).size).toBe(3);
  expect(events).toEqual(["alloc", "alloc", "alloc"]);
  for (const notifier of [first, first, second, third]) {
    mmuNotifierPut(notifier);
  }
  await mmuNotifierSynchronize();
  expect(events.filter((e) => e === "free")).toHaveLength(3);
});

test("two concurrent gets on one space make one notifier", async () => {
  await using mm = createSpace();
  const { ops, events } = logging();
  const [a, b] = await Promise.all([
    lockdepTask("a", () => mmuNotifierGet(ops, mm)),
    lockdepTask("b", () => mmuNotifierGet(ops, mm)),
  ]);
  expect(a).toBe(b);
  expect(events).toEqual(["alloc"]);
  mmuNotifierPut(a);
  mmuNotifierPut(b);
  await mmuNotifierSynchronize();
});

test("a table without allocNotifier gets a plain notifier", async () => {
  await using mm = createSpace();
  const notifier = await mmuNotifierGet({ name: "plain" }, mm);
  expect(notifier).toBeInstanceOf(MmuNotifier);
  mmuNotifierPut(notifier);
  await mmuNotifierSynchronize();
});

test("getLocked is synchronous, and asks for the write lock of this very space", async () => {
  await using mm = createSpace();
  await using other = createSpace();
  const { ops } = logging();
  const lock = await mm.mmapLock.write();
  const notifier = mmuNotifierGetLocked(ops, mm, lock);
  expect(notifier).toBeInstanceOf(MmuNotifier);
  expect(() => mmuNotifierGetLocked(ops, other, lock)).toThrow("I-SYNC-2");
  lock.release();
  expect(() => mmuNotifierGetLocked(ops, mm, lock)).toThrow("I-SYNC-2");
  mmuNotifierPut(notifier as MmuNotifier);
  await mmuNotifierSynchronize();
});

test("what allocNotifier throws comes out unchanged, and nothing stays behind", async () => {
  await using mm = createSpace();
  const error = new KernelError("ENOMEM", "alloc", "no memory");
  const { ops } = logging({
    allocNotifier: () => {
      throw error;
    },
  });
  await expect(mmuNotifierGet(ops, mm)).rejects.toBe(error);
  expect(mm.mmapLock.isHeld).toBe(false);
  expect(mm.count).toBe(1);
});

test("a registration that fails frees what was allocated: ENOMEM", async () => {
  await using mm = createSpace();
  const { ops, events } = logging();
  mm.memory.failAfter(0);
  await expect(mmuNotifierGet(ops, mm)).rejects.toMatchObject({ code: "ENOMEM" });
  mm.memory.failAfter();
  expect(events).toEqual(["alloc", "free"]);
  expect(mm.count).toBe(1);
});

test("EINTR: a get that is aborted while it waits for the mmap lock, or for an invalidation to end", async () => {
  await using mm = createSpace();
  const { ops, events } = logging();
  const held = await mm.mmapLock.read();
  const abort = new AbortController();
  const waiting = mmuNotifierGet(ops, mm, { signal: abort.signal });
  abort.abort();
  await expect(waiting).rejects.toMatchObject({ code: "EINTR" });
  held.release();
  expect(events).toEqual([]);

  const first = await mmuNotifierGet({ name: "first" }, mm);
  const end = begin(invalidation(mm, 0, 1));
  const again = new AbortController();
  const registering = mmuNotifierGet(ops, mm, { signal: again.signal });
  await turn();
  again.abort();
  await expect(registering).rejects.toMatchObject({ code: "EINTR" });
  expect(events).toEqual(["alloc", "free"]);
  await end();
  mmuNotifierPut(first);
  await mmuNotifierSynchronize();
});

test("I-MN-1: a notifier that comes in the middle of an invalidation sees neither start nor end of it", async () => {
  await using mm = createSpace();
  const first = await mmuNotifierGet({ name: "first" }, mm);
  const { ops, events } = logging();
  const end = begin(invalidation(mm, 0, 1));
  const late = mmuNotifierGet(ops, mm);
  await turn();
  await end();
  const notifier = await late;
  expect(events).toEqual(["alloc"]);
  await begin(invalidation(mm, 0, 1))();
  expect(events).toEqual(["alloc", "start", "end"]);
  mmuNotifierPut(notifier);
  mmuNotifierPut(first);
  await mmuNotifierSynchronize();
});

test("EOVERFLOW: the user count does not wrap", async () => {
  await using mm = createSpace();
  const { ops } = logging();
  const notifier = await mmuNotifierGet(ops, mm);
  notifier.state.users = 0xffff_ffff;
  await expect(mmuNotifierGet(ops, mm)).rejects.toMatchObject({ code: "EOVERFLOW" });
  expect(notifier.users).toBe(0xffff_ffff);
  notifier.state.users = 1;
  mmuNotifierPut(notifier);
  await mmuNotifierSynchronize();
});

test("I-MN-4: put without get is reported and does nothing", async () => {
  await using mm = createSpace();
  const { ops, events } = logging();
  const notifier = await mmuNotifierGet(ops, mm);
  mmuNotifierPut(notifier);
  mmuNotifierPut(notifier);
  expect(takeBugs()).toEqual(["I-MN-4"]);
  await mmuNotifierSynchronize();
  expect(events).toEqual(["alloc", "free"]);
  mmuNotifierPut(notifier);
  expect(takeBugs()).toEqual(["I-MN-4"]);
});

test("put does not call release, and frees later than it returns", async () => {
  await using mm = createSpace();
  const { ops, events } = logging();
  const notifier = await mmuNotifierGet(ops, mm);
  mmuNotifierPut(notifier);
  expect(events).toEqual(["alloc"]);
  expect(mm.count).toBe(2);
  await mmuNotifierSynchronize();
  expect(events).toEqual(["alloc", "free"]);
  expect(mm.count).toBe(1);
});

test("a get after the last put and before the free makes a new notifier, which the free leaves alone", async () => {
  await using mm = createSpace();
  const { ops, events } = logging();
  const old = await mmuNotifierGet(ops, mm);
  using lock = await mm.mmapLock.write();
  mmuNotifierPut(old);
  const next = await mmuNotifierGetLocked(ops, mm, lock);
  expect(next).not.toBe(old);
  await mmuNotifierSynchronize();
  expect(events).toEqual(["alloc", "alloc", "free"]);
  expect(await mmuNotifierGetLocked(ops, mm, lock)).toBe(next);
  mmuNotifierPut(next);
  mmuNotifierPut(next);
  await mmuNotifierSynchronize();
});

test("I-MN-3: free waits for a callback that runs, and no callback comes after the free", async () => {
  await using mm = createSpace();
  let finish = (): void => {};
  const { ops, events } = logging({
    invalidateRangeStart: () => {
      events.push("start");
      return new Promise<0>((resolve) => {
        finish = () => resolve(0);
      });
    },
  });
  const notifier = await mmuNotifierGet(ops, mm);
  const range = invalidation(mm, 0, 1);
  const started = mm.notifiers?.invalidateRangeStart(range);
  mmuNotifierPut(notifier);
  const synchronized = mmuNotifierSynchronize().then(() => events.push("synchronized"));
  await turn();
  expect(events).toEqual(["alloc", "start"]);
  finish();
  await started;
  await synchronized;
  await mm.notifiers?.invalidateRangeEnd(range);
  expect(events).toEqual(["alloc", "start", "free", "synchronized"]);
});

test("a notifier pins the structure of its space, not its mappings", async () => {
  const mm = createSpace();
  const { ops, events } = logging();
  const notifier = await mmuNotifierGet(ops, mm);
  await mm.mmput();
  expect(events).toEqual(["alloc", "release"]);
  expect(mm.count).toBe(1);
  expect(notifier.mm.tryGetUsers()).toBe(false);
  mmuNotifierPut(notifier);
  await mmuNotifierSynchronize();
  expect(mm.count).toBe(0);
  expect(events).toEqual(["alloc", "release", "free"]);
});

test("put inside release is legal", async () => {
  const mm = createSpace();
  const { ops, events } = logging({
    release: (notifier) => {
      events.push("release");
      mmuNotifierPut(notifier);
    },
  });
  await mmuNotifierGet(ops, mm);
  await mm.mmput();
  await mmuNotifierSynchronize();
  expect(events).toEqual(["alloc", "release", "free"]);
  expect(mm.count).toBe(0);
});

test("after exit no callback but free comes", async () => {
  const mm = createSpace();
  const { ops, events } = logging();
  const notifier = await mmuNotifierGet(ops, mm);
  await mm.mmput();
  await begin(invalidation(mm, 0, 4))();
  expect(events).toEqual(["alloc", "release"]);
  mmuNotifierPut(notifier);
  await mmuNotifierSynchronize();
});

test("I-MN-5: registering on a space that has exited is refused", async () => {
  const mm = createSpace();
  const { ops } = logging();
  await mm.mmput();
  await expect(mmuNotifierGet(ops, mm)).rejects.toThrow("I-MN-5");
});

test("I-MN-6: a space that dies with a notifier listed is reported", async () => {
  const mm = createSpace();
  const notifier = await mmuNotifierGet({ name: "unpinned" }, mm);
  expect(() => mm.notifiers?.destroy()).toThrow("I-MN-6");
  mmuNotifierPut(notifier);
  await mmuNotifierSynchronize();
  await mm.mmput();
});

test("synchronize waits for every put before it", async () => {
  const { ops, events } = logging();
  const spaces: AddressSpace[] = [createSpace(), createSpace(), createSpace()];
  for (const mm of spaces) {
    mmuNotifierPut(await mmuNotifierGet(ops, mm));
  }
  await mmuNotifierSynchronize();
  expect(events.filter((e) => e === "free")).toHaveLength(3);
  await Promise.all(spaces.map((mm) => mm.mmput()));
});

test("a munmap is announced as unmap, with start before and end after the change", async () => {
  await using mm = createSpace();
  const mapping = await mm.mmap({ length: 8192, addr: BASE, fixed: true });
  await mapping.write(0, new Uint8Array([1]));
  const seen: string[] = [];
  const present = () => mm.pageTable.get(BASE / 4096) !== 0;
  const notifier = await mmuNotifierGet(
    {
      name: "watch",
      invalidateRangeStart: (_, range) => {
        seen.push(`start ${range.event} ${range.start - BASE} ${range.end - BASE} ${present()}`);
        return 0;
      },
      invalidateRangeEnd: () => void seen.push(`end ${present()}`),
    },
    mm,
  );
  await mm.munmap(BASE, 8192);
  expect(seen).toEqual(["start unmap 0 8192 true", "end false"]);
  mmuNotifierPut(notifier);
  await mmuNotifierSynchronize();
});
