import fc from "fast-check";
import { expect, test } from "vitest";
import type { AddressSpace, MmuNotifierRange } from "../mm/index.ts";
import { mmuNotifierSynchronize } from "../mmu-notifier/index.ts";
import { lockdepTask, Mutex } from "../sync/index.ts";
import { fixed, P, type Setup, setUp as setUpRanges } from "../testing/ranges.ts";
import { BASE, begin, createSpace, invalidation, turn } from "../testing/spaces.ts";
import { HMM_RANGE_DEFAULT_TIMEOUT, HmmMirror, HmmRange } from "./index.ts";

/** Pages 0 to 15 are mapped, and the even ones written. */
async function setUp(): Promise<Setup> {
  const s = await setUpRanges();
  const mapping = await s.mm.mmap(fixed(0, 16));
  for (let page = 0; page < 16; page += 2) {
    await mapping.write(page * P, new Uint8Array([page]));
  }
  return s;
}

async function snapshot(mm: AddressSpace, range: HmmRange): Promise<number | string> {
  using lock = await mm.mmapLock.read();
  return range.snapshotLocked(lock);
}

test("EINVAL: bounds that are not page aligned, empty ranges, too few pfns", async () => {
  await using s = await setUp();
  for (const [start, end] of [
    [BASE + 1, BASE + P],
    [BASE, BASE + P - 1],
    [BASE, BASE],
    [BASE + P, BASE],
  ]) {
    const range = new HmmRange({ start, end });
    expect(() => range.register(s.mirror)).toThrow(expect.objectContaining({ code: "EINVAL" }));
    expect(range.isRegistered).toBe(false);
  }
  const short = new HmmRange({ start: BASE, end: BASE + 2 * P, pfns: new Uint32Array(1) });
  expect(() => short.register(s.mirror)).toThrow(expect.objectContaining({ code: "EINVAL" }));
  expect(() => new HmmRange({ start: -P, end: P })).toThrow(expect.objectContaining({ code: "EINVAL" }));
});

test("EFAULT: a range of a space that has exited", async () => {
  const mm = createSpace();
  const mirror = new HmmMirror({ name: "test", syncCpuDevicePagetables: () => 0 });
  await mirror.register(mm);
  await mm.mmput();
  const range = new HmmRange({ start: BASE, end: BASE + P });
  expect(() => range.register(mirror)).toThrow(expect.objectContaining({ code: "EFAULT" }));
  expect(range.valid).toBe(false);
  await mirror.unregister();
  await mmuNotifierSynchronize();
});

test("a registered range keeps the address space alive; the last unregister runs the exit path", async () => {
  const mm = createSpace();
  const log: string[] = [];
  const mirror = new HmmMirror({
    name: "t",
    syncCpuDevicePagetables: () => 0,
    release: () => void log.push("release"),
  });
  await mirror.register(mm);
  const range = new HmmRange({ start: BASE, end: BASE + P });
  range.register(mirror);
  await mm.mmput();
  expect(log).toEqual([]);
  await range.unregister();
  expect(log).toEqual(["release"]);
  await mirror.unregister();
  await mmuNotifierSynchronize();
});

test("I-HMM-8: use before registration, after unregistration, twice, or on an unregistered mirror", async () => {
  await using s = await setUp();
  const range = new HmmRange({ start: BASE, end: BASE + P });
  using lock = await s.mm.mmapLock.read();
  const uses = [() => range.unregister(), () => range.snapshotLocked(lock), () => range.faultLocked(lock)];
  for (const use of uses) {
    expect(use).toThrow("I-HMM-8");
  }
  await expect(range.waitUntilValid()).rejects.toThrow("I-HMM-8");
  range.register(s.mirror);
  expect(() => range.register(s.mirror)).toThrow("I-HMM-8");
  await range.unregister();
  for (const use of uses) {
    expect(use).toThrow("I-HMM-8");
  }
  const never = new HmmMirror({ name: "never", syncCpuDevicePagetables: () => 0 });
  expect(() => range.register(never)).toThrow("I-HMM-8");
});

test("unregister leaves the entries as they are", async () => {
  await using s = await setUp();
  const range = s.range(0, 4);
  await snapshot(s.mm, range);
  const before = [...range.pfns];
  await range.unregister();
  expect([...range.pfns]).toEqual(before);
  expect(before[0]).not.toBe(0);
  expect(range.valid).toBe(false);
});

test("only overlapping invalidations count: one that ends where the range begins does not", async () => {
  await using s = await setUp();
  const range = s.range(4, 8);
  const before = begin(invalidation(s.mm, 0, 4));
  const after = begin(invalidation(s.mm, 8, 9));
  expect(range.valid).toBe(true);
  const inside = begin(invalidation(s.mm, 7, 9));
  expect(range.valid).toBe(false);
  await inside();
  await before();
  await after();
});

test("a range is blocked until all of its own invalidations have ended, and by no other", async () => {
  await using s = await setUp();
  const range = s.range(0, 4);
  const other = s.range(10, 12);
  const first = begin(invalidation(s.mm, 0, 2));
  const second = begin(invalidation(s.mm, 1, 3));
  const elsewhere = begin(invalidation(s.mm, 8, 12));
  expect(await range.waitUntilValid({ timeoutMs: 0 })).toBe(false);
  await first();
  expect(await range.waitUntilValid({ timeoutMs: 0 })).toBe(false);
  await second();
  expect(await range.waitUntilValid({ timeoutMs: 0 })).toBe(true);
  expect(await other.waitUntilValid({ timeoutMs: 0 })).toBe(false);
  await elsewhere();
});

test("a range registered in the middle of an invalidation is blocked by it if it overlaps", async () => {
  await using s = await setUp();
  const end = begin(invalidation(s.mm, 0, 2));
  const inside = s.range(1, 3);
  const outside = s.range(4, 5);
  expect([inside.valid, outside.valid]).toEqual([false, true]);
  await inside.unregister();
  inside.register(s.mirror);
  expect(inside.valid).toBe(false);
  await end();
  expect(await inside.waitUntilValid({ timeoutMs: 0 })).toBe(true);
  expect(inside.valid).toBe(true);
});

test("waitUntilValid wakes at the end, times out with false after 1000 ms by default, and ends when the range goes", async () => {
  await using s = await setUp();
  expect(HMM_RANGE_DEFAULT_TIMEOUT).toBe(1000);
  const range = s.range(0, 1);
  const going = s.range(0, 1);
  const end = begin(invalidation(s.mm, 0, 1));
  expect(await range.waitUntilValid({ timeoutMs: 1 })).toBe(false);
  const waiting = range.waitUntilValid();
  const gone = going.waitUntilValid();
  await going.unregister();
  expect(await gone).toBe(false);
  const abort = new AbortController();
  const aborted = range.waitUntilValid({ signal: abort.signal });
  abort.abort();
  await expect(aborted).rejects.toMatchObject({ code: "EINTR" });
  await end();
  expect(await waiting).toBe(true);
});

test("I-SYNC-3: waiting for validity under the mmap lock or the update lock is reported", async () => {
  await using s = await setUp();
  const range = s.range(0, 1);
  await lockdepTask("under mmap", async () => {
    using _ = await s.mm.mmapLock.read();
    await expect(range.waitUntilValid()).rejects.toThrow("I-SYNC-3");
  });
  await lockdepTask("under update", async () => {
    using _ = await new Mutex("update").lock();
    await expect(range.waitUntilValid()).rejects.toThrow("I-SYNC-3");
  });
});

test("snapshot of a blocked range is EBUSY, and its entries are none", async () => {
  await using s = await setUp();
  const range = s.range(0, 2);
  await snapshot(s.mm, range);
  const end = begin(invalidation(s.mm, 0, 1));
  expect(await snapshot(s.mm, range)).toBe("EBUSY");
  expect([...range.pfns]).toEqual([0, 0]);
  await end();
  expect(range.valid).toBe(false);
  expect(await snapshot(s.mm, range)).toBe(2);
  expect(range.valid).toBe(true);
});

/** The flag of Linux 5.4, beside the generation: false at a start, true again at the end. */
class FlagTwin {
  valid = true;
  #active = 0;
  readonly #range: HmmRange;

  constructor(range: HmmRange) {
    this.#range = range;
  }

  start(update: MmuNotifierRange): void {
    this.#active++;
    if (update.start < this.#range.end && update.end > this.#range.start) {
      this.valid = false;
    }
  }

  end(): void {
    if (--this.#active === 0) {
      this.valid = true;
    }
  }
}

test("the ABA hole: an invalidation that starts and ends after the snapshot goes unseen by a flag, not by the generation", async () => {
  await using s = await setUp();
  const range = s.range(0, 4);
  const twin = new FlagTwin(range);
  await snapshot(s.mm, range);
  const stale = range.pfns[0];
  expect([range.valid, twin.valid]).toEqual([true, true]);

  const update = invalidation(s.mm, 0, 4);
  twin.start(update);
  const end = begin(update);
  s.mm.pageTable.set(BASE / P, 0);
  await end();
  twin.end();

  expect(s.mm.pageTable.get(BASE / P)).not.toBe(stale);
  expect(twin.valid).toBe(true);
  expect(range.valid).toBe(false);
  await snapshot(s.mm, range);
  expect(range.valid).toBe(true);
  expect(range.pfns[0]).toBe(0);
});

test("valid exactly when nothing overlapping happened since the last snapshot and nothing is under way", () => {
  const step = fc.oneof(
    fc.record({ op: fc.constant("start" as const), page: fc.nat(14), length: fc.integer({ min: 1, max: 4 }) }),
    fc.record({ op: fc.constant("end" as const), pick: fc.nat() }),
    fc.record({ op: fc.constant("snapshot" as const), pick: fc.nat() }),
  );
  return fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 40 }), async (steps) => {
      await using s = await setUp();
      const ranges = [s.range(0, 4), s.range(2, 9), s.range(9, 16)];
      const fresh = ranges.map(() => true);
      let active: { update: MmuNotifierRange; end: () => unknown }[] = [];
      const blocked = (range: HmmRange) =>
        active.some(({ update }) => update.start < range.end && update.end > range.start);
      for (const step of steps) {
        if (step.op === "start") {
          const update = invalidation(s.mm, step.page, Math.min(16, step.page + step.length));
          active.push({ update, end: begin(update) });
          ranges.forEach((range, i) => {
            fresh[i] &&= !(update.start < range.end && update.end > range.start);
          });
        } else if (step.op === "end" && active.length > 0) {
          const gone = active[step.pick % active.length];
          active = active.filter((other) => other !== gone);
          await gone.end();
        } else if (step.op === "snapshot") {
          const i = step.pick % ranges.length;
          const answer = await snapshot(s.mm, ranges[i]);
          expect(answer).toBe(blocked(ranges[i]) ? "EBUSY" : ranges[i].pages);
          fresh[i] = answer !== "EBUSY";
        }
        expect(ranges.map((range) => range.valid)).toEqual(ranges.map((range, i) => fresh[i] && !blocked(range)));
      }
      for (const { end } of active) {
        await end();
      }
    }),
    { numRuns: 50 },
  );
});

test("the walk of an invalidation visits the ranges that overlap, not the others", async () => {
  await using s = await setUp();
  let looked = 0;
  const ranges: HmmRange[] = [];
  for (let i = 0; i < 2000; i++) {
    const range = new HmmRange({ start: BASE + i * P, end: BASE + (i + 1) * P });
    range.register(s.mirror);
    const block = range.block.bind(range);
    range.block = () => {
      looked++;
      block();
    };
    ranges.push(range);
  }
  await begin(invalidation(s.mm, 100, 110))();
  expect(looked).toBe(10);
  expect(ranges.filter((range) => !range.valid)).toHaveLength(10);
  await Promise.all(ranges.map((range) => range.unregister()));
  await turn();
});

test("a fault without entries grants the same, leaves pfns alone, and still fails where nothing is mapped", async () => {
  await using s = await setUp();
  const range = s.range(0, 16, { pfns: new Uint32Array(16).fill(77) });
  range.defaultFlags = range.flags.valid;
  using lock = await s.mm.mmapLock.read();
  expect(await range.faultLocked(lock, { noEntries: true })).toBe(16);
  expect(range.valid).toBe(true);
  expect([...range.pfns]).toEqual(new Array(16).fill(77));
  expect(s.mm.pageTable.get(BASE / P + 1) & 1).toBe(1);
  const beyond = s.range(12, 20);
  beyond.defaultFlags = beyond.flags.valid;
  await expect((async () => await beyond.faultLocked(lock, { noEntries: true }))()).rejects.toMatchObject({
    code: "EFAULT",
  });
  expect(beyond.valid).toBe(false);
});

test("a fault of parts faults those, tells of all that the range has, and fails for what is not mapped in them only", async () => {
  await using s = await setUp();
  using lock = await s.mm.mmapLock.read();
  const present = () => Array.from({ length: 16 }, (_, i) => s.mm.pageTable.get(BASE / P + i) & 1);
  await fc.assert(
    fc.asyncProperty(fc.uniqueArray(fc.nat(16), { minLength: 2, maxLength: 8 }), async (bounds) => {
      const parts = bounds.sort((a, b) => a - b).slice(0, bounds.length & ~1);
      const wanted = Array.from({ length: 16 }, (_, i) => parts.findLastIndex((p) => p <= i) % 2 === 0);
      const before = present();
      const range = s.range(0, 16);
      range.defaultFlags = range.flags.valid;
      expect(await range.faultLocked(lock, { noEntries: true, parts })).toBe(16);
      expect(range.valid).toBe(true);
      expect(present()).toEqual(before.map((was, i) => Number(was === 1 || wanted[i])));
      await range.unregister();
    }),
  );
  const beyond = s.range(0, 20);
  beyond.defaultFlags = beyond.flags.valid;
  await expect((async () => await beyond.faultLocked(lock, { parts: [1, 2, 17, 18] }))()).rejects.toMatchObject({
    code: "EFAULT",
  });
});
