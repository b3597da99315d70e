import { describe, expect, test } from "vitest";
import { PAGE_SIZE } from "../base/index.ts";
import { createMemory, createMm, errorCode, expectMaps, filledBytes, firstBytes, TestPager } from "../testing/mm.ts";
import { BASE } from "../testing/spaces.ts";
import { Mapping, MemoryObject, type Prot, validateMm } from "./index.ts";

const P = PAGE_SIZE;

describe("mmap", () => {
  test("gives zeros above 2^40, writable and private by default", async () => {
    await using mm = createMm();
    const m = await mm.mmap({ length: 3 * P - 5 });
    expect(m.start).toBeGreaterThan(2 ** 40);
    expect(m.length).toBe(3 * P - 5);
    expect(m.end).toBe(m.start + m.length);
    expectMaps(mm, m.start - P, ".AAA.");
    expect(await firstBytes(m)).toEqual([0, 0, 0]);
  });

  test("takes a wished address, or another one when it is taken", async () => {
    await using mm = createMm();
    const a = await mm.mmap({ length: P, addr: BASE });
    const b = await mm.mmap({ length: P, addr: BASE });
    expect(a.start).toBe(BASE);
    expect(b.start).not.toBe(BASE);
  });

  test("fixed replaces what is there, and cuts what is there in part", async () => {
    await using mm = createMm();
    const a = await mm.mmap({ length: 6 * P, addr: BASE });
    await a.write(
      0,
      filledBytes(6, (p) => p + 1),
    );
    await mm.mmap({ length: 2 * P, addr: BASE + 2 * P, fixed: true, prot: "r" });
    expectMaps(mm, BASE, "AAbbCC.");
    expect(
      await firstBytes(await mm.mmap({ length: P, addr: BASE + 9 * P })),
      "fresh memory is zeros whatever was mapped before",
    ).toEqual([0]);
    await mm.mmap({ length: 8 * P, addr: BASE - P, fixed: true });
    expectMaps(mm, BASE - P, "AAAAAAAA.");
    validateMm(mm);
  });

  test("maps a part of a file, privately or shared, past the end of a page that is not full", async () => {
    await using mm = createMm();
    const pager = new TestPager(filledBytes(3, (p) => p + 1).subarray(0, 2 * P + 10));
    const object = new MemoryObject(mm.memory, { pages: 3, pager });
    const shared = await mm.mmap({ length: 2 * P, object, offset: P, shared: true });
    const copy = await mm.mmap({ length: 2 * P, object, offset: P });
    await object.put();
    expect(shared.name).toBe("test.bin");
    const bytes = await copy.read();
    expect([bytes[0], bytes[P], bytes[P + 9], bytes[P + 10]]).toEqual([2, 3, 3, 0]);
    await shared.write(5, Uint8Array.of(77));
    expect((await copy.read(5, 1))[0]).toBe(2);
    await copy.write(6, Uint8Array.of(88));
    expect((await shared.read(6, 1))[0]).toBe(2);
  });

  const bad: readonly [string, string, Parameters<ReturnType<typeof createMm>["mmap"]>[0]][] = [
    ["no length", "EINVAL", { length: 0 }],
    ["a length that is no integer", "EINVAL", { length: 1.5 }],
    ["an address that is not page aligned", "EINVAL", { length: P, addr: BASE + 1 }],
    ["an address that is no address", "EINVAL", { length: P, addr: -P }],
    ["a range that leaves the address space", "EINVAL", { length: 2 * P, addr: 2 ** 48 - P }],
    ["an offset that is not page aligned", "EINVAL", { length: P, offset: 12 }],
    ["fixed without an address", "EINVAL", { length: P, fixed: true }],
    ["an unknown protection", "EINVAL", { length: P, prot: "x" as Prot }],
    ["no room", "ENOMEM", { length: 2 ** 48 }],
  ];
  test.each(bad)("%s is %s", async (_what, code, options) => {
    await using mm = createMm();
    expect(await errorCode(() => mm.mmap(options))).toBe(code);
    expect(mm.vmas.size).toBe(0);
  });

  test("a writable shared mapping of a read-only object is EACCES; another machine's object is EINVAL", async () => {
    await using mm = createMm();
    const pager = new TestPager(
      filledBytes(1, () => 1),
      { writable: false },
    );
    const object = new MemoryObject(mm.memory, { pages: 1, pager });
    expect(await errorCode(() => mm.mmap({ length: P, object, shared: true }))).toBe("EACCES");
    const m = await mm.mmap({ length: P, object, shared: true, prot: "r" });
    expect(await errorCode(() => mm.mprotect(m.start, P, "rw"))).toBe("EACCES");
    expect(await errorCode(() => m.lease("rw"))).toBe("EACCES");
    await object.put();
    const foreign = new MemoryObject(createMemory(), { pages: 1 });
    expect(await errorCode(() => mm.mmap({ length: P, object: foreign }))).toBe("EINVAL");
    await foreign.put();
  });

  test("a fixed mapping whose predecessor cannot be written back is EIO and changes nothing", async () => {
    await using mm = createMm();
    const pager = new TestPager(filledBytes(2, () => 1));
    const object = new MemoryObject(mm.memory, { pages: 2, pager });
    const m = await mm.mmap({ length: 2 * P, addr: BASE, object, shared: true });
    await object.put();
    await m.write(0, Uint8Array.of(9));
    pager.failWrites = true;
    expect(await errorCode(() => mm.mmap({ length: P, addr: BASE, fixed: true }))).toBe("EIO");
    expect(await errorCode(() => m.munmap())).toBe("EIO");
    expectMaps(mm, BASE, "AA.");
    pager.failWrites = false;
    await m.munmap();
    expect(pager.bytes[0]).toBe(9);
  });
});

describe("munmap and mprotect cut and join", () => {
  test("each step leaves what the picture says", async () => {
    await using mm = createMm();
    await mm.mmap({ length: 8 * P, addr: BASE });
    expectMaps(mm, BASE, "AAAAAAAA.");
    await mm.mprotect(BASE + 2 * P, 3 * P, "r");
    expectMaps(mm, BASE, "AAbbbCCC.");
    await mm.mprotect(BASE + 3 * P, P, "none");
    expectMaps(mm, BASE, "AAb-dEEE.");
    await mm.mprotect(BASE + 2 * P, 3 * P, "rw");
    expectMaps(mm, BASE, "AAAAAAAA.");
    await mm.munmap(BASE + 3 * P, P);
    expectMaps(mm, BASE, "AAA.BBBB.");
    await mm.mprotect(BASE + 4 * P, P, "r");
    expectMaps(mm, BASE, "AAA.bCCC.");
    await mm.munmap(BASE - P, 20 * P);
    expectMaps(mm, BASE - P, "..........");
  });

  test("neighbours that were mapped apart stay apart", async () => {
    await using mm = createMm();
    await mm.mmap({ length: 2 * P, addr: BASE });
    await mm.mmap({ length: 2 * P, addr: BASE + 2 * P });
    expectMaps(mm, BASE, "AABB");
    const object = new MemoryObject(mm.memory, { pages: 4 });
    await mm.mmap({ length: P, addr: BASE + 4 * P, object, shared: true });
    await mm.mmap({ length: P, addr: BASE + 6 * P, object, shared: true, offset: 2 * P });
    await mm.mmap({ length: P, addr: BASE + 5 * P, object, shared: true, offset: P });
    await object.put();
    expectMaps(mm, BASE, "AABBCCC");
  });

  test("an unreadable page faults, and keeps its bytes", async () => {
    await using mm = createMm();
    const m = await mm.mmap({ length: P });
    await m.write(0, Uint8Array.of(5));
    await mm.mprotect(m.start, P, "none");
    expect(await errorCode(() => m.lease("r"))).toBe("EFAULT");
    await mm.mprotect(m.start, P, "r");
    expect(await errorCode(() => m.lease("rw"))).toBe("EACCES");
    expect(await firstBytes(m)).toEqual([5]);
  });

  test("error codes", async () => {
    await using mm = createMm();
    const m = await mm.mmap({ length: 2 * P, addr: BASE });
    expect(await errorCode(() => mm.munmap(BASE + 1, P))).toBe("EINVAL");
    expect(await errorCode(() => mm.munmap(BASE, 0))).toBe("EINVAL");
    expect(await errorCode(() => mm.mprotect(BASE, 3 * P, "r"))).toBe("ENOMEM");
    expect(await errorCode(() => mm.mprotect(BASE + 2, P, "r"))).toBe("EINVAL");
    expect(await errorCode(() => mm.mprotect(BASE, P, "w" as Prot))).toBe("EINVAL");
    expect(await errorCode(() => mm.madvise(BASE, 3 * P, "dontneed"))).toBe("ENOMEM");
    expect(await errorCode(() => mm.madvise(BASE, P, "willneed" as "dontneed"))).toBe("EINVAL");
    expect(await errorCode(() => m.msync())).toBe("none");
    await m.munmap();
    expect(await errorCode(() => m.msync())).toBe("ENOMEM");
    expect(await errorCode(() => mm.munmap(BASE, 2 * P)), "holes are skipped").toBe("none");
  });

  test("shared memory of an object keeps its bytes while nobody maps it", async () => {
    await using mm = createMm();
    const object = new MemoryObject(mm.memory, { pages: 2 });
    const m = await mm.mmap({ length: 2 * P, object, shared: true });
    await m.write(P, Uint8Array.of(3));
    await m.munmap();
    expect(await firstBytes(await mm.mmap({ length: 2 * P, object, shared: true }))).toEqual([0, 3]);
    await object.put();
  });
});

describe("madvise dontneed", () => {
  test("private pages read as zeros or as the file again; shared ones keep their bytes", async () => {
    await using mm = createMm();
    const pager = new TestPager(filledBytes(2, (p) => p + 1));
    const object = new MemoryObject(mm.memory, { pages: 2, pager });
    for (const [options, after] of [
      [{}, [0, 9]],
      [{ object }, [1, 9]],
      [{ object, shared: true }, [9, 9]],
    ] as const) {
      const m = await mm.mmap({ length: 2 * P, ...options });
      await m.write(
        0,
        filledBytes(2, () => 9),
      );
      await mm.madvise(m.start, P, "dontneed");
      expect(await firstBytes(m)).toEqual(after);
    }
    await object.put();
  });

  test("a private copy of memory without a file reads as that memory again, also in a child", async () => {
    await using mm = createMm();
    const object = new MemoryObject(mm.memory, { pages: 1 });
    await (await mm.mmap({ length: P, object, shared: true })).write(0, Uint8Array.of(4));
    const m = await mm.mmap({ length: P, object, addr: BASE });
    await object.put();
    await m.write(0, Uint8Array.of(5));
    await using child = await mm.fork();
    await child.madvise(BASE, P, "dontneed");
    await mm.madvise(BASE, P, "dontneed");
    expect(await firstBytes(m)).toEqual([4]);
    expect(await firstBytes(new Mapping(child, m.start, P, "child"))).toEqual([4]);
  });

  test("an object that is put while mmap waits for the lock is mapped all the same, and dies when nobody maps it", async () => {
    await using mm = createMm();
    const object = new MemoryObject(mm.memory, { pages: 1 });
    const lock = await mm.mmapLock.write();
    const mapping = mm.mmap({ length: P, object, shared: true });
    await object.put();
    lock[Symbol.dispose]();
    const m = await mapping;
    expect([await firstBytes(m), object.refs]).toEqual([[0], 1]);
    await m.munmap();
    expect(object.refs).toBe(0);
  });
});
