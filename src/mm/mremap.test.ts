import { describe, expect, test } from "vitest";
import { PAGE_SIZE } from "../base/index.ts";
import { createMm, drawEntries, errorCode, expectMaps, filledBytes, firstBytes, TestPager } from "../testing/mm.ts";
import { BASE } from "../testing/spaces.ts";
import { Mapping, MemoryObject, validateMm } from "./index.ts";

const P = PAGE_SIZE;
const numbered = (pages: number) => filledBytes(pages, (p) => p + 1);

describe("mremap", () => {
  test("grows in place with zeros, as one mapping that one lease can hold", async () => {
    await using mm = createMm();
    const m = await mm.mmap({ length: 2 * P, addr: BASE });
    await m.write(0, numbered(2));
    const grown = await mm.mremap(BASE, 2 * P, 4 * P);
    expectMaps(mm, BASE, "AAAA.");
    expect(grown.start).toBe(BASE);
    expect(await firstBytes(grown)).toEqual([1, 2, 0, 0]);
  });

  test("shrinks, and what is cut off is gone", async () => {
    await using mm = createMm();
    const m = await mm.mmap({ length: 4 * P, addr: BASE });
    await m.write(0, numbered(4));
    await mm.mremap(BASE, 4 * P, 2 * P);
    expectMaps(mm, BASE, "AA..");
    const grown = await mm.mremap(BASE, 2 * P, 3 * P);
    expect((await new Mapping(mm, grown.start, 2 * P, "head").read())[P]).toBe(2);
    const tail = await new Mapping(mm, m.range(2 * P, P).start, P, "tail").read();
    expect(tail[0], "growth is zeros, not what was there before").toBe(0);
  });

  test("moves with its entries when something is in the way, across page-table blocks", async () => {
    await using mm = createMm();
    const m = await mm.mmap({ length: 3 * P, addr: BASE });
    await m.write(0, numbered(3));
    await mm.mmap({ length: P, addr: BASE + 3 * P });
    expect(await errorCode(() => mm.mremap(BASE, 3 * P, 4 * P, { mayMove: false }))).toBe("ENOMEM");
    const moved = await mm.mremap(BASE, 3 * P, 4 * P);
    expect(moved.start).not.toBe(BASE);
    expectMaps(mm, BASE, "...A");
    expect(drawEntries(mm, moved.start, 4)).toBe("www.");
    expect(await firstBytes(moved)).toEqual([1, 2, 3, 0]);
    const edge = 2 ** 42 + 511 * P;
    const again = await mm.mremap(moved.start, 4 * P, 4 * P, { addr: edge });
    expect(again.start).toBe(edge);
    expect(drawEntries(mm, edge, 4)).toBe("wwwr");
    expect(await firstBytes(again)).toEqual([1, 2, 3, 0]);
    validateMm(mm);
  });

  test("fixed: replaces what is at the new place, and shrinks on the way", async () => {
    await using mm = createMm();
    const m = await mm.mmap({ length: 4 * P, addr: BASE });
    await m.write(0, numbered(4));
    await mm.mmap({ length: 4 * P, addr: BASE + 8 * P });
    const moved = await mm.mremap(BASE, 4 * P, 2 * P, { addr: BASE + 9 * P });
    expectMaps(mm, BASE, "........ABBC");
    expect(await firstBytes(moved)).toEqual([1, 2]);
  });

  test("a part in the middle moves out", async () => {
    await using mm = createMm();
    const m = await mm.mmap({ length: 5 * P, addr: BASE });
    await m.write(0, numbered(5));
    const moved = await mm.mremap(BASE + 2 * P, P, 2 * P, { addr: BASE + 8 * P });
    expectMaps(mm, BASE, "AA.BB...CD.");
    expect((await mm.mmap({ length: P, addr: BASE + 2 * P })).start).toBe(BASE + 2 * P);
    expect((await new Mapping(mm, moved.start, P, "head").read())[0]).toBe(3);
  });

  test("a shared file mapping sees more of its file; past its end there is nothing", async () => {
    await using mm = createMm();
    const object = new MemoryObject(mm.memory, { pages: 3, pager: new TestPager(numbered(3)) });
    const m = await mm.mmap({ length: P, addr: BASE, object, shared: true });
    await object.put();
    const grown = await mm.mremap(m.start, P, 4 * P);
    expectMaps(mm, BASE, "AAAA");
    expect(await firstBytes(new Mapping(mm, grown.start, 3 * P, "file"))).toEqual([1, 2, 3]);
    expect(await errorCode(() => grown.lease("r"))).toBe("EFAULT");
  });

  test("a private copy of a file and a forked mapping grow with zeros, as one mapping", async () => {
    await using mm = createMm();
    const object = new MemoryObject(mm.memory, { pages: 3, pager: new TestPager(numbered(3)) });
    const m = await mm.mmap({ length: 2 * P, addr: BASE, object });
    await object.put();
    await using child = await mm.fork();
    for (const space of [mm, child]) {
      const grown = await space.mremap(m.start, 2 * P, 4 * P);
      expectMaps(space, BASE, "AAAA");
      expect(await firstBytes(grown)).toEqual([1, 2, 0, 0]);
      await grown.write(3 * P, Uint8Array.of(9));
      await space.madvise(BASE, 4 * P, "dontneed");
      expect(await firstBytes(grown)).toEqual([1, 2, 0, 0]);
      validateMm(space);
    }
  });

  test("a lease keeps memory from growing into a longer window, and no other call", async () => {
    await using mm = createMm();
    const m = await mm.mmap({ length: 2 * P, addr: BASE });
    const lease = await m.lease("rw");
    expect(await errorCode(() => mm.mremap(BASE, 2 * P, 3 * P))).toBe("EBUSY");
    expectMaps(mm, BASE, "AA.");
    const moved = await mm.mremap(BASE, 2 * P, 2 * P, { addr: BASE + 8 * P });
    lease.u8[0] = 42;
    lease.release();
    expect(await firstBytes(moved)).toEqual([42, 0]);
    expect((await mm.mremap(moved.start, 2 * P, 3 * P)).length).toBe(3 * P);
  });

  test("1 TiB that nobody touched moves without a page-table block", async () => {
    await using mm = createMm();
    const m = await mm.mmap({ length: 2 ** 40, addr: BASE });
    await m.write(2 ** 39, Uint8Array.of(7));
    const moved = await mm.mremap(m.start, m.length, m.length, { addr: 2 ** 45 });
    expect(mm.pageTable.blockCount).toBe(1);
    expect((await moved.read(2 ** 39, 1))[0]).toBe(7);
  });

  test("error codes", async () => {
    await using mm = createMm();
    await mm.mmap({ length: 2 * P, addr: BASE });
    await mm.mmap({ length: 2 * P, addr: BASE + 2 * P });
    expect(await errorCode(() => mm.mremap(BASE + 1, P, P))).toBe("EINVAL");
    expect(await errorCode(() => mm.mremap(BASE, P, 0))).toBe("EINVAL");
    expect(await errorCode(() => mm.mremap(BASE, P, P, { addr: BASE }))).toBe("EINVAL");
    expect(await errorCode(() => mm.mremap(BASE, P, P, { addr: 3 }))).toBe("EINVAL");
    expect(await errorCode(() => mm.mremap(BASE, 4 * P, 5 * P)), "two mappings").toBe("EFAULT");
    expect(await errorCode(() => mm.mremap(BASE + 8 * P, P, P)), "a hole").toBe("EFAULT");
    expect(await errorCode(() => mm.mremap(BASE + 2 * P, 2 * P, 2 ** 48)), "no room").toBe("ENOMEM");
    expectMaps(mm, BASE, "AABB.");
  });

  test("a file at the new place that cannot be written back is EIO and changes nothing", async () => {
    await using mm = createMm();
    const pager = new TestPager(numbered(2));
    const object = new MemoryObject(mm.memory, { pages: 2, pager });
    const file = await mm.mmap({ length: 2 * P, addr: BASE + 8 * P, object, shared: true });
    await object.put();
    await file.write(0, Uint8Array.of(9));
    const m = await mm.mmap({ length: 2 * P, addr: BASE });
    pager.failWrites = true;
    expect(await errorCode(() => mm.mremap(m.start, 2 * P, 3 * P, { addr: BASE + 8 * P }))).toBe("EIO");
    expectMaps(mm, BASE, "AA......BB");
    expect(mm.vmas.find(BASE)?.object.pages).toBe(2);
    pager.failWrites = false;
  });
});
