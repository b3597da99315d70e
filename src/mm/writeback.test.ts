import { describe, expect, test } from "vitest";
import { PAGE_SIZE } from "../base/index.ts";
import {
  createMemory,
  createMm,
  drawEntries,
  errorCode,
  FakeDevice,
  filledBytes,
  gate,
  TestPager,
} from "../testing/mm.ts";
import { BASE, turn } from "../testing/spaces.ts";
import { type AddressSpace, type Mapping, MemoryObject, poisonPages } from "./index.ts";

const P = PAGE_SIZE;

async function mapFile(
  mm: AddressSpace,
  pages: number,
  bytes = pages * P,
): Promise<{ pager: TestPager; object: MemoryObject; m: Mapping }> {
  const pager = new TestPager(filledBytes(pages, (p) => p + 1).slice(0, bytes));
  const object = new MemoryObject(mm.memory, { pages, pager });
  const m = await mm.mmap({ length: pages * P, addr: BASE, object, shared: true });
  await object.put();
  return { pager, object, m };
}

describe("shared file mappings are written back", () => {
  test("by msync, durably, and only what changed", async () => {
    await using mm = createMm();
    const { pager, m } = await mapFile(mm, 3);
    await m.write(P, Uint8Array.of(50));
    pager.bytes[0] = 99;
    await m.msync();
    expect([pager.bytes[0], pager.bytes[P], pager.syncs]).toEqual([99, 50, 1]);
    expect(drawEntries(mm, BASE, 3), "the next write is a fault").toBe(".r.");
  });

  test("by munmap and by exit, never past the end of a file that ends within a page", async () => {
    const mm = createMm();
    const { pager, m } = await mapFile(mm, 2, P + 100);
    await m.write(
      P,
      filledBytes(1, () => 8),
    );
    await m.munmap();
    expect([pager.bytes.length, pager.bytes[P], pager.bytes[P + 99]]).toEqual([P + 100, 8, 8]);
    expect(pager.closes).toBe(1);
    const other = await mapFile(mm, 2, P + 1);
    await other.m.write(P, Uint8Array.of(6));
    await mm.mmput();
    expect(other.pager.bytes[P]).toBe(6);
  });

  test("a mapping in two parts that go together is written back once nobody maps it", async () => {
    await using mm = createMm();
    const { pager, m } = await mapFile(mm, 4);
    await m.write(
      0,
      filledBytes(4, (p) => 10 + p),
    );
    await mm.mprotect(BASE + P, P, "r");
    await mm.munmap(BASE + 3 * P, P);
    expect(pager.bytes[3 * P]).toBe(13);
    await mm.munmap(BASE, 3 * P);
    expect([0, 1, 2, 3].map((p) => pager.bytes[p * P])).toEqual([10, 11, 12, 13]);
  });

  test("when two spaces that map it exit at the same time", async () => {
    const memory = createMemory();
    const [a, b] = [createMm(memory), createMm(memory)];
    const { pager, object, m } = await mapFile(a, 2);
    await b.mmap({ length: 2 * P, object, shared: true });
    await m.write(0, Uint8Array.of(9));
    pager.delay = turn;
    await Promise.all([a.mmput(), b.mmput()]);
    expect(pager.bytes[0]).toBe(9);
  });

  test("from a device", async () => {
    await using mm = createMm();
    const device = new FakeDevice(mm.memory);
    const { pager, m, object } = await mapFile(mm, 2);
    await m.write(0, Uint8Array.of(9));
    await device.take(object, 0, 1);
    await m.msync();
    expect(pager.bytes[0]).toBe(9);
    device.remove();
  });

  test("bytes of a write lease now, and again later: they may still change", async () => {
    await using mm = createMm();
    const { pager, m } = await mapFile(mm, 2);
    const lease = await m.lease("rw");
    lease.u8[0] = 5;
    await m.msync();
    expect(pager.bytes[0]).toBe(5);
    lease.u8[0] = 6;
    lease.release();
    await m.munmap();
    expect(pager.bytes[0]).toBe(6);
  });

  test("a write while msync waits for the file is written by the next", async () => {
    await using mm = createMm();
    const { pager, m } = await mapFile(mm, 1);
    await m.write(0, Uint8Array.of(5));
    const { wait, open } = gate();
    pager.delay = () => wait;
    const synced = m.msync();
    await turn();
    await m.write(0, Uint8Array.of(6));
    open();
    await synced;
    pager.delay = undefined;
    await m.msync();
    expect(pager.bytes[0]).toBe(6);
  });

  test("private copies never are", async () => {
    await using mm = createMm();
    const pager = new TestPager(filledBytes(1, () => 1));
    const object = new MemoryObject(mm.memory, { pages: 1, pager });
    const m = await mm.mmap({ length: P, object });
    await object.put();
    await m.write(0, Uint8Array.of(9));
    await m.msync();
    await m.munmap();
    expect(pager.bytes[0]).toBe(1);
  });
});

describe("a file that cannot be written", () => {
  test("is EIO from msync and munmap, and nothing is lost", async () => {
    await using mm = createMm();
    const { pager, m } = await mapFile(mm, 2);
    await m.write(P, Uint8Array.of(9));
    pager.failWrites = true;
    expect(await errorCode(() => m.msync())).toBe("EIO");
    expect(await errorCode(() => mm.munmap(BASE, P)), "page 0 is clean").toBe("none");
    expect(await errorCode(() => mm.munmap(BASE + P, P))).toBe("EIO");
    pager.failWrites = false;
    await mm.munmap(BASE + P, P);
    expect(pager.bytes[P]).toBe(9);
  });

  test("is EIO from the exit, which unmaps everything and writes the other files", async () => {
    const mm = createMm();
    const bad = await mapFile(mm, 1);
    const pager = new TestPager(filledBytes(1, () => 1));
    const object = new MemoryObject(mm.memory, { pages: 1, pager });
    const good = await mm.mmap({ length: P, addr: BASE + 8 * P, object, shared: true });
    await object.put();
    await bad.m.write(0, Uint8Array.of(9));
    await good.write(0, Uint8Array.of(9));
    bad.pager.failWrites = true;
    expect(await errorCode(() => mm.mmput())).toBe("EIO");
    expect(mm.vmas.size).toBe(0);
    expect(pager.bytes[0]).toBe(9);
    expect([bad.pager.closes, pager.closes]).toEqual([1, 1]);
  });

  test("changes lost with a device are EIO from msync", async () => {
    await using mm = createMm();
    const { m, object } = await mapFile(mm, 2);
    await m.write(0, Uint8Array.of(9));
    poisonPages(object, 0, 1);
    expect(await errorCode(() => m.msync())).toBe("EIO");
    expect(await errorCode(() => m.munmap())).toBe("none");
  });
});
