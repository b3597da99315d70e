import { expect, test } from "vitest";
import { PAGE_SIZE } from "../base/index.ts";
import { createMm, filledBytes, TestPager } from "../testing/mm.ts";
import { type AddressSpace, areReadOnly, type Mapping, MemoryObject, type Vma } from "./index.ts";

const P = PAGE_SIZE;

function vmaOf(mm: AddressSpace, mapping: Mapping): Vma {
  const vma = mm.vmas.find(mapping.start);
  if (vma === undefined) {
    throw new Error("nothing is mapped there");
  }
  return vma;
}

async function read(mapping: Mapping): Promise<void> {
  using _lease = await mapping.lease("r");
}

test("pages are read-only when all are there and no entry lets anybody write one", async () => {
  await using mm = createMm();
  const m = await mm.mmap({ length: 4 * P });
  const vma = vmaOf(mm, m);
  expect(areReadOnly(vma, [1, 3], 0), "not there").toBe(false);
  await read(m);
  expect(areReadOnly(vma, [0, 4], 0)).toBe(true);
  await m.write(2 * P, new Uint8Array(1));
  expect(areReadOnly(vma, [0, 2, 3, 4], 0)).toBe(true);
  expect(areReadOnly(vma, [0, 4], 0), "one is writable").toBe(false);
  expect(areReadOnly(vma, [0, 1], 2), "further on").toBe(false);
});

test("pages that another mapping may make writable, or a lease may write, are not read-only", async () => {
  await using mm = createMm();
  const object = new MemoryObject(mm.memory, { pages: 2, pager: new TestPager(filledBytes(2, (p) => p + 1)) });
  const m = await mm.mmap({ length: 2 * P, object, shared: true });
  await read(m);
  const vma = vmaOf(mm, m);
  expect(areReadOnly(vma, [0, 2], 0)).toBe(true);
  const other = await mm.mmap({ length: 2 * P, object, shared: true });
  expect(areReadOnly(vma, [0, 2], 0), "mapped twice").toBe(false);
  await other.munmap();
  expect(areReadOnly(vma, [0, 2], 0)).toBe(true);
  const lease = await m.lease("rw");
  await mm.mprotect(m.start, m.length, "r");
  expect(areReadOnly(vmaOf(mm, m), [0, 2], 0), "leased, although nothing may be written anew").toBe(false);
  lease.release();
  expect(areReadOnly(vmaOf(mm, m), [0, 2], 0)).toBe(true);
  await object.put();
});
