import { describe, expect, test } from "vitest";
import { MemoryObject, PageFlag, validateMm } from "../../mm/index.ts";
import {
  COPY,
  groupsFor,
  INCREMENT,
  increment,
  type Machine,
  openMachine,
  SUM,
  wordsOf,
} from "../../testing/machine.ts";

const PAGES = 4;
const LENGTH = PAGES * 4096;

/** One object, mapped in two spaces. */
async function shareBetweenSpaces(m: Machine) {
  const object = new MemoryObject(m.memory, { pages: PAGES });
  const other = m.space();
  const mine = await m.mm.mmap({ object, length: LENGTH, shared: true });
  const theirs = await other.mmap({ object, length: LENGTH, shared: true });
  await object.put();
  const validate = () => {
    validateMm(m.mm);
    validateMm(other);
  };
  return { mine, theirs, other, object, validate };
}

describe("two spaces with one object, on one device", () => {
  test("a kernel's write through one mapping is seen through the other, by CPU and kernel", async () => {
    await using m = await openMachine();
    const { mine, theirs, validate } = await shareBetweenSpaces(m);
    const kernel = await m.device.kernel(INCREMENT);
    for (let round = 1; round <= 3; round++) {
      await increment(kernel, mine);
      validate();
      await increment(kernel, theirs);
      validate();
    }
    expect((await wordsOf(theirs)).every((w) => w === 6)).toBe(true);
    await theirs.write(0, new Uint32Array([100]));
    await increment(kernel, mine);
    expect((await wordsOf(theirs))[0]).toBe(101);
  });

  test("both spaces' copies for reading are dropped by a CPU write in one of them", async () => {
    await using m = await openMachine();
    const { mine, theirs, other } = await shareBetweenSpaces(m);
    const copy = await m.device.kernel(COPY);
    const read = async (src: typeof mine) => {
      const dst = await src.mm.mmap({ length: LENGTH });
      const stats = await copy.dispatch({ bind: { src, dst }, workgroups: groupsFor(LENGTH) });
      return { pages: stats.pagesUploaded, words: await wordsOf(dst) };
    };
    await mine.write(0, new Uint8Array(LENGTH).fill(1));
    expect(await read(mine)).toMatchObject({ pages: PAGES });
    expect(await read(theirs)).toMatchObject({ pages: PAGES });
    expect(await read(mine)).toMatchObject({ pages: 0 });
    await theirs.write(4096, new Uint32Array([9]));
    for (const mapping of [mine, theirs]) {
      const { pages, words } = await read(mapping);
      expect(pages).toBe(1);
      expect(words[1024]).toBe(9);
    }
    expect(other.users).toBe(1);
  });

  test("a space exits: what the other maps stays", async () => {
    await using m = await openMachine();
    const { mine, theirs, other } = await shareBetweenSpaces(m);
    const kernel = await m.device.kernel(INCREMENT);
    await increment(kernel, theirs);
    await other[Symbol.asyncDispose]();
    await increment(kernel, mine);
    expect((await wordsOf(mine)).every((w) => w === 2)).toBe(true);
  });
});

describe("two devices", () => {
  test("copies for reading are on both, and a write by either is seen by the other", async () => {
    await using m = await openMachine();
    const second = await m.open();
    const data = await m.mm.mmap({ length: LENGTH });
    const sums = await Promise.all([m.mm.mmap({ length: 4 }), m.mm.mmap({ length: 4 })]);
    await data.write(0, new Uint32Array(LENGTH / 4).fill(1));
    const sum = await Promise.all([m.device.kernel(SUM), second.kernel(SUM)]);
    const add = await Promise.all([m.device.kernel(INCREMENT), second.kernel(INCREMENT)]);
    const sumOn = async (i: number) => {
      await sums[i].write(0, new Uint32Array(1));
      const stats = await sum[i].dispatch({ bind: { data, sums: sums[i] }, params: { scale: 1 }, workgroups: 64 });
      return { pages: stats.pagesUploaded, sum: (await wordsOf(sums[i]))[0] };
    };
    expect(await sumOn(0)).toEqual({ pages: PAGES + 1, sum: 4096 });
    expect(await sumOn(1)).toEqual({ pages: PAGES + 1, sum: 4096 });
    // Both have copies now: only the sum itself goes up.
    expect(await sumOn(0)).toEqual({ pages: 1, sum: 4096 });
    expect(await sumOn(1)).toEqual({ pages: 1, sum: 4096 });
    for (const i of [0, 1, 0]) {
      await increment(add[i], data);
      validateMm(m.mm);
    }
    expect((await sumOn(1)).sum).toBe(4096 * 4);
    expect((await sumOn(0)).sum).toBe(4096 * 4);
  });

  test("a page has one writer: it leaves the first device for the second", async () => {
    await using m = await openMachine();
    const second = await m.open();
    const object = new MemoryObject(m.memory, { pages: PAGES });
    const data = await m.mm.mmap({ object, length: LENGTH, shared: true });
    await object.put();
    const add = await Promise.all([m.device.kernel(INCREMENT), second.kernel(INCREMENT)]);
    await increment(add[0], data);
    const before = m.device.stats().bytesToHost;
    expect(object.flagSummary(0, PAGES) >> 8).toBe(PageFlag.Device | PageFlag.Own);
    await increment(add[1], data);
    expect(m.device.stats().bytesToHost - before).toBe(LENGTH);
    expect((await wordsOf(data)).every((w) => w === 2)).toBe(true);
  });

  test("dispatches on both, each wanting what the other has isolated, all finish", async () => {
    await using m = await openMachine();
    const second = await m.open();
    const a = await m.mm.mmap({ length: LENGTH });
    const b = await m.mm.mmap({ length: LENGTH });
    const wgsl = /* wgsl */ `
      @group(0) @binding(0) var<storage, read_write> a: array<u32>;
      @group(0) @binding(1) var<storage, read_write> b: array<u32>;
      @compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3u) { a[id.x] += 1u; b[id.x] += 1u; }`;
    const [one, two] = await Promise.all([m.device.kernel(wgsl), second.kernel(wgsl)]);
    const copies = await Promise.all([m.device.kernel(COPY), second.kernel(COPY)]);
    const workgroups = groupsFor(LENGTH);
    const timeoutMs = 20_000;
    for (let round = 0; round < 8; round++) {
      await Promise.all([
        one.dispatch({ bind: { a, b }, workgroups, timeoutMs }),
        two.dispatch({ bind: { a: b, b: a }, workgroups, timeoutMs }),
      ]);
    }
    expect((await wordsOf(a)).every((w) => w === 16)).toBe(true);
    expect((await wordsOf(b)).every((w) => w === 16)).toBe(true);
    for (let round = 0; round < 8; round++) {
      await Promise.all([
        copies[0].dispatch({ bind: { src: a, dst: b }, workgroups, timeoutMs }),
        copies[1].dispatch({ bind: { src: b, dst: a }, workgroups, timeoutMs }),
      ]);
    }
    expect(await wordsOf(a)).toEqual(await wordsOf(b));
    validateMm(m.mm);
  });

  test("the loss of one leaves what the other has", async () => {
    await using m = await openMachine();
    const { gpu, device } = await m.adopt();
    const mine = await m.mm.mmap({ length: 4096 });
    const lost = await m.mm.mmap({ length: 4096 });
    await increment(await m.device.kernel(INCREMENT), mine);
    await increment(await device.kernel(INCREMENT), lost);
    gpu.destroy();
    await gpu.lost;
    await expect(increment(await m.device.kernel(INCREMENT), lost)).rejects.toMatchObject({ code: "EHWPOISON" });
    const copy = await m.device.kernel(COPY);
    await expect(copy.dispatch({ bind: { src: lost, dst: mine }, workgroups: 1 })).rejects.toMatchObject({
      code: "EHWPOISON",
    });
    await increment(await m.device.kernel(INCREMENT), mine);
    expect((await wordsOf(mine))[0]).toBe(2);
    validateMm(m.mm);
  });
});
