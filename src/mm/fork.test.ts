import { describe, expect, test } from "vitest";
import { PAGE_SIZE } from "../base/index.ts";
import { createMm, drawEntries, expectMaps, filledBytes, firstBytes, TestPager } from "../testing/mm.ts";
import { BASE } from "../testing/spaces.ts";
import { type AddressSpace, Mapping, MemoryObject, validateMm } from "./index.ts";

const P = PAGE_SIZE;
const numbered = (pages: number) => filledBytes(pages, (p) => p + 1);
const inSpace = (mm: AddressSpace, m: Mapping) => new Mapping(mm, m.start, m.length, m.name);
const put = (m: Mapping, page: number, value: number) => m.write(page * P, Uint8Array.of(value));

describe("fork", () => {
  test("parent and child see what was there, and neither sees the other's writes", async () => {
    await using mm = createMm();
    const m = await mm.mmap({ length: 3 * P, addr: BASE });
    await m.write(0, numbered(3));
    await using child = await mm.fork();
    const c = inSpace(child, m);
    expectMaps(child, BASE, "AAA.");
    expect(drawEntries(mm, BASE, 3), "the parent's next write is a fault").toBe("rrr");
    await put(m, 0, 10);
    await put(c, 1, 20);
    expect(await firstBytes(m)).toEqual([10, 2, 3]);
    expect(await firstBytes(c)).toEqual([1, 20, 3]);
    validateMm(mm);
    validateMm(child);
  });

  test("copies only pages that one of the two touches", async () => {
    await using mm = createMm();
    const m = await mm.mmap({ length: 4 * P, addr: BASE });
    await m.write(0, numbered(4));
    await using child = await mm.fork();
    await put(m, 1, 10);
    const object = child.vmas.find(BASE)?.object;
    expect(Array.from({ length: 4 }, (_, p) => object?.flagsOf(p) !== 0)).toEqual([false, true, false, false]);
  });

  test("pages that the child has unmapped are not copied for it", async () => {
    await using mm = createMm();
    const m = await mm.mmap({ length: 3 * P, addr: BASE });
    await m.write(0, numbered(3));
    await using child = await mm.fork();
    const object = child.vmas.find(BASE)?.object;
    await child.munmap(BASE + P, P);
    for (const page of [0, 1, 2]) {
      await put(m, page, 9);
    }
    expect(Array.from({ length: 3 }, (_, p) => object?.flagsOf(p) !== 0)).toEqual([true, false, true]);
  });

  test("grandchildren keep what they saw, whoever writes first", async () => {
    for (const order of [
      [0, 1, 2],
      [2, 1, 0],
      [1, 0, 2],
    ]) {
      await using mm = createMm();
      const m = await mm.mmap({ length: 2 * P });
      await m.write(0, numbered(2));
      await using child = await mm.fork();
      await put(inSpace(child, m), 1, 7);
      await using grandchild = await child.fork();
      const all = [m, inSpace(child, m), inSpace(grandchild, m)];
      for (const i of order) {
        await put(all[i], 0, 100 + i);
      }
      expect(await Promise.all(all.map(firstBytes))).toEqual([
        [100, 2],
        [101, 7],
        [102, 7],
      ]);
    }
  });

  test("a child outlives its parent, and a grandchild both", async () => {
    const mm = createMm();
    const m = await mm.mmap({ length: 2 * P });
    await m.write(0, numbered(2));
    const child = await mm.fork();
    await using grandchild = await child.fork();
    await mm.mmput();
    await child.mmput();
    expect(await firstBytes(inSpace(grandchild, m))).toEqual([1, 2]);
  });

  test("what the parent unmaps stays with the child", async () => {
    await using mm = createMm();
    const m = await mm.mmap({ length: 2 * P });
    await m.write(0, numbered(2));
    await using child = await mm.fork();
    await m.munmap();
    expect(await firstBytes(inSpace(child, m))).toEqual([1, 2]);
  });

  test("madvise drops pages for one of the two only, and gives zeros, not the parent's bytes", async () => {
    await using mm = createMm();
    const m = await mm.mmap({ length: 2 * P });
    await m.write(0, numbered(2));
    await using child = await mm.fork();
    await child.madvise(m.start, P, "dontneed");
    expect(await firstBytes(inSpace(child, m))).toEqual([0, 2]);
    await mm.madvise(m.start, 2 * P, "dontneed");
    expect(await firstBytes(m)).toEqual([0, 0]);
    expect(await firstBytes(inSpace(child, m))).toEqual([0, 2]);
  });

  test("pages under a write lease are copied at once: what the holder writes later is the parent's alone", async () => {
    await using mm = createMm();
    const m = await mm.mmap({ length: 2 * P });
    await m.write(0, numbered(2));
    using lease = await m.lease("rw", { length: P });
    await using child = await mm.fork();
    lease.u8[0] = 50;
    expect(await firstBytes(m)).toEqual([50, 2]);
    expect(await firstBytes(inSpace(child, m))).toEqual([1, 2]);
  });

  test("shared mappings stay shared, in one window", async () => {
    await using mm = createMm();
    const m = await mm.mmap({ length: P, shared: true });
    await using child = await mm.fork();
    using a = await m.lease("rw");
    using b = await inSpace(child, m).lease("rw");
    expect(b.buffer).toBe(a.buffer);
    expect(b.byteOffset).toBe(a.byteOffset);
    a.u8[3] = 9;
    expect(b.u8[3]).toBe(9);
  });

  test("private copies of a file are copied like other memory", async () => {
    await using mm = createMm();
    const object = new MemoryObject(mm.memory, { pages: 2, pager: new TestPager(numbered(2)) });
    const m = await mm.mmap({ length: 2 * P, object });
    await object.put();
    await put(m, 0, 10);
    await using child = await mm.fork();
    const c = inSpace(child, m);
    await put(m, 1, 11);
    expect(await firstBytes(c)).toEqual([10, 2]);
    await child.madvise(c.start, 2 * P, "dontneed");
    expect(await firstBytes(c), "the file's bytes, not the parent's").toEqual([1, 2]);
  });

  test("the child of a mapping that grew grows by itself", async () => {
    await using mm = createMm();
    const m = await mm.mmap({ length: P, addr: BASE });
    await put(m, 0, 1);
    await using child = await mm.fork();
    const big = await mm.mremap(BASE, P, 3 * P);
    await put(big, 2, 3);
    const c = await child.mremap(BASE, P, 3 * P);
    expect(await firstBytes(c)).toEqual([1, 0, 0]);
    await put(big, 0, 9);
    expect(await firstBytes(c)).toEqual([1, 0, 0]);
  });
});
