import { describe, expect, test } from "vitest";
import { isPromise, ledgerCounts, PAGE_SIZE } from "../base/index.ts";
import { createMm, drawEntries, errorCode, filledBytes, gate, TestHooks, TestPager } from "../testing/mm.ts";
import { BASE, turn } from "../testing/spaces.ts";
import { Mapping, MemoryObject, poisonPages } from "./index.ts";

const P = PAGE_SIZE;

describe("lease", () => {
  test("answers at once when nothing has to wait, and shows the mapping's bytes in every type", async () => {
    await using mm = createMm();
    const m = await mm.mmap({ length: 2 * P });
    const lease = m.lease("rw", { offset: 8, length: 22 });
    expect(isPromise(lease)).toBe(false);
    if (!isPromise(lease)) {
      lease.u8.set([1, 2, 3, 4]);
      expect(lease.u32[0]).toBe(0x04030201);
      expect([lease.u8.length, lease.u32.length, lease.i32.length, lease.f32.length, lease.f64.length]).toEqual([
        22, 5, 5, 5, 2,
      ]);
      expect(lease.range).toEqual({ start: m.start + 8, end: m.start + 30 });
      lease.release();
      lease.release();
    }
    expect(ledgerCounts().lease ?? 0).toBe(0);
  });

  test("a typed array of a range that is not aligned for it is EINVAL; the bytes can be had", async () => {
    await using mm = createMm();
    const m = await mm.mmap({ length: P });
    using lease = await m.lease("r", { offset: 4 });
    expect(lease.u32.length).toBe(1023);
    expect(await errorCode(() => lease.f64)).toBe("EINVAL");
    using odd = await m.lease("r", { offset: 2 });
    expect(await errorCode(() => odd.f32)).toBe("EINVAL");
    expect(odd.u8.length).toBe(P - 2);
  });

  test("sets entries readable, then writable", async () => {
    await using mm = createMm();
    const m = await mm.mmap({ length: 4 * P });
    (await m.lease("r", { offset: P, length: 2 * P })).release();
    expect(drawEntries(mm, m.start, 4)).toBe(".rr.");
    (await m.lease("rw", { offset: 2 * P - 1, length: 2 })).release();
    expect(drawEntries(mm, m.start, 4)).toBe(".ww.");
    (await m.lease("r")).release();
    expect(drawEntries(mm, m.start, 4)).toBe("rwwr");
  });

  test("a mode that is none is EINVAL: JavaScript has no types to refuse it", async () => {
    await using mm = createMm();
    const m = await mm.mmap({ length: P });
    expect(await errorCode(() => m.lease("w" as "rw"))).toBe("EINVAL");
  });

  test("ranges outside the mapping are EINVAL", async () => {
    await using mm = createMm();
    const m = await mm.mmap({ length: P });
    for (const part of [
      { offset: -1 },
      { offset: P },
      { length: P + 1 },
      { length: 0 },
      { offset: 0.5 },
      { length: 1.5 },
    ]) {
      expect(await errorCode(() => m.lease("r", part))).toBe("EINVAL");
      expect(await errorCode(() => m.range(part.offset ?? 0, part.length))).toBe("EINVAL");
    }
  });

  test("spans mappings that share one object; others are EINVAL, a hole is EFAULT, and nothing was faulted in", async () => {
    await using mm = createMm();
    const m = await mm.mmap({ length: 4 * P, addr: BASE });
    await mm.mprotect(BASE + P, P, "r");
    using whole = await m.lease("r");
    expect(whole.u8.length).toBe(4 * P);
    expect(await errorCode(() => m.lease("rw"))).toBe("EACCES");
    await mm.mmap({ length: P, addr: BASE + 4 * P });
    const five = new Mapping(mm, m.start, 5 * P, "five");
    const other = new Mapping(mm, m.range(3 * P).start, 2 * P, "two");
    expect(await errorCode(() => five.lease("r"))).toBe("EINVAL");
    expect(await errorCode(() => other.lease("r"))).toBe("EINVAL");
    expect(drawEntries(mm, BASE, 5)).toBe("rrrr.");
    await mm.munmap(BASE + P, P);
    expect(await errorCode(() => m.lease("r"))).toBe("EFAULT");
  });

  test("a range across a multiple of 4 GiB has no single window: EINVAL; its halves have", async () => {
    await using mm = createMm();
    const m = await mm.mmap({ length: 2 ** 32 + P });
    expect(await errorCode(() => m.lease("r", { offset: 2 ** 32 - P, length: 2 * P }))).toBe("EINVAL");
    await m.write(2 ** 32, Uint8Array.of(4));
    expect((await m.read(2 ** 32, 1))[0]).toBe(4);
  });

  test("waits while somebody waits to change mappings, and gets the changed ones", async () => {
    await using mm = createMm();
    const m = await mm.mmap({ length: P, addr: BASE });
    const reader = await mm.mmapLock.read();
    const unmapped = m.munmap();
    const lease = m.lease("r");
    expect(isPromise(lease)).toBe(true);
    const code = errorCode(() => lease);
    reader.release();
    await unmapped;
    expect(await code).toBe("EFAULT");
  });

  test("waits for notifiers before it grants a write, and for nothing when it may write already", async () => {
    await using mm = createMm();
    const m = await mm.mmap({ length: P });
    const hooks = TestHooks.on(mm);
    const { wait, open } = gate();
    hooks.delay = () => wait;
    const lease = m.lease("rw");
    await turn();
    expect(drawEntries(mm, m.start, 1)).toBe(".");
    expect(hooks.open.size).toBe(1);
    open();
    (await lease)[Symbol.dispose]();
    expect(hooks.told.map(({ event, start, end }) => [event, end - start, start])).toEqual([["clear", P, m.start]]);
    const again = m.lease("rw");
    expect(isPromise(again)).toBe(false);
    (await again).release();
    expect(hooks.told.length).toBe(1);
  });

  test("of a lost page is EHWPOISON until the page is dropped", async () => {
    await using mm = createMm();
    const m = await mm.mmap({ length: 2 * P });
    await m.write(
      0,
      filledBytes(2, () => 7),
    );
    const object = mm.vmas.find(m.start)?.object;
    if (object !== undefined) {
      poisonPages(object, 1, 2);
    }
    expect(await errorCode(() => m.lease("r"))).toBe("EHWPOISON");
    expect(await errorCode(() => m.lease("rw", { offset: P }))).toBe("EHWPOISON");
    expect((await m.read(0, 1))[0]).toBe(7);
    await mm.madvise(m.start + P, P, "dontneed");
    expect((await m.read(P, 1))[0]).toBe(0);
  });

  test("a page lost before a fork is lost for both; one dropped by the parent stays lost for the child", async () => {
    await using mm = createMm();
    const m = await mm.mmap({ length: P });
    await m.write(0, Uint8Array.of(7));
    const object = mm.vmas.find(m.start)?.object;
    if (object !== undefined) {
      poisonPages(object, 0, 1);
    }
    await using child = await mm.fork();
    const c = new Mapping(child, m.start, P, "child");
    expect(await errorCode(() => c.lease("r"))).toBe("EHWPOISON");
    await mm.madvise(m.start, P, "dontneed");
    expect((await m.read())[0]).toBe(0);
    expect(await errorCode(() => c.lease("r")), "never silently zero").toBe("EHWPOISON");
  });

  test("a file that cannot be read is EIO; nothing is mapped, nothing lost, and the next try may succeed", async () => {
    for (const wait of [undefined, turn]) {
      await using mm = createMm();
      const pager = new TestPager(filledBytes(2, (p) => p + 1));
      pager.delay = wait;
      const object = new MemoryObject(mm.memory, { pages: 2, pager });
      const shared = await mm.mmap({ length: 2 * P, object, shared: true });
      const copy = await mm.mmap({ length: 2 * P, object });
      await object.put();
      for (const m of [shared, copy]) {
        pager.failReads = true;
        expect(await errorCode(() => m.lease("r"))).toBe("EIO");
        expect(drawEntries(mm, m.start, 2)).toBe("..");
        pager.failReads = false;
        expect((await m.read(P, 1))[0]).toBe(2);
      }
    }
  });

  test("a page whose file could not be read shows none of the failed read's bytes once it is dropped", async () => {
    await using mm = createMm();
    const pager = new TestPager(filledBytes(1, () => 1));
    const object = new MemoryObject(mm.memory, { pages: 1, pager });
    const m = await mm.mmap({ length: P, addr: BASE, object });
    await object.put();
    await using child = await mm.fork();
    const c = await child.mremap(m.start, P, 2 * P);
    pager.failReads = true;
    expect(await errorCode(() => c.lease("r"))).toBe("EIO");
    pager.failReads = false;
    expect((await c.read())[0]).toBe(1);
  });
});
