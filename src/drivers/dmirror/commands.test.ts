/** The commands of the kernel's test driver, on every kind of device. */
import { describe, expect, test } from "vitest";
import { type AddressSpace, Mapping, validateMm } from "../../mm/index.ts";
import { createMm, errorCode, filledBytes } from "../../testing/mm.ts";
import { BASE } from "../../testing/spaces.ts";
import { type Dmirror, DmirrorDriver, DmirrorPage } from "./index.ts";

const P = 4096;
const bytes = (...values: number[]) => new Uint8Array(values);
const firstOf = (data: Uint8Array) => Array.from({ length: data.length / P }, (_, i) => data[i * P]);

interface Setup extends AsyncDisposable {
  readonly mm: AddressSpace;
  readonly driver: DmirrorDriver;
  readonly device: Dmirror;
  /** The other device of the same kind. */
  readonly other: Dmirror;
  map(page: number, pages: number, more?: object): Promise<Mapping>;
}

async function setUp(kind: "private" | "coherent"): Promise<Setup> {
  const mm = createMm();
  const driver = new DmirrorDriver();
  const id = kind === "private" ? 0 : 2;
  const device = await driver.open(mm, { device: id });
  const other = await driver.open(mm, { device: id + 1 });
  return {
    mm,
    driver,
    device,
    other,
    map: (page, pages, more) => mm.mmap({ addr: BASE + page * P, length: pages * P, fixed: true, ...more }),
    async [Symbol.asyncDispose]() {
      await driver.unload();
      validateMm(mm);
      await mm[Symbol.asyncDispose]();
      expect(driver.devices.map(({ framesInUse }) => framesInUse)).toEqual([0, 0, 0, 0]);
    },
  };
}

describe("counts", () => {
  test("a cold range of any size is one pass of faults, a warm one none", async () => {
    await using s = await setUp("private");
    await s.map(0, 1500);
    const counts = { pages: 0, faults: 0 };
    await s.device.read(BASE, 1500 * P, { counts });
    expect(counts).toEqual({ pages: 1500, faults: 1 });
    await s.device.read(BASE + 1, 1400 * P, { counts });
    expect(counts).toEqual({ pages: 1401, faults: 0 });
    await s.device.write(BASE, new Uint8Array(1500 * P), { counts });
    expect(counts).toEqual({ pages: 1500, faults: 1 });
  });

  test("are filled in when the command fails too", async () => {
    await using s = await setUp("private");
    await s.map(0, 2);
    const counts = { pages: 9, faults: 9 };
    expect(await errorCode(() => s.device.read(BASE, 3 * P, { counts }))).toBe("EFAULT");
    expect(counts).toEqual({ pages: 0, faults: 0 });
  });
});

test("EFAULT without read permission, EPERM for a write to read-only memory", async () => {
  await using s = await setUp("private");
  await s.map(0, 3);
  await s.mm.mprotect(BASE, P, "none");
  await s.mm.mprotect(BASE + P, P, "r");
  expect(await errorCode(() => s.device.read(BASE, P))).toBe("EFAULT");
  expect(await errorCode(() => s.device.write(BASE, bytes(1)))).toBe("EFAULT");
  expect(await errorCode(() => s.device.write(BASE + P, bytes(1)))).toBe("EPERM");
  expect(await errorCode(() => s.device.read(BASE + P, 2 * P))).toBe("none");
});

describe.each(["private", "coherent"] as const)("%s memory", (kind) => {
  const local = kind === "private" ? DmirrorPage.PrivateLocal : DmirrorPage.CoherentLocal;
  const remote = kind === "private" ? DmirrorPage.PrivateRemote : DmirrorPage.CoherentRemote;
  const place = (byte: number) => byte & 0x70;

  test("pages move to the device and are read and written there; the CPU sees what the device wrote", async () => {
    await using s = await setUp(kind);
    const a = await s.map(0, 4);
    await a.write(
      0,
      filledBytes(3, (p) => p + 1),
    );
    expect(await s.device.migrateToDevice(BASE, 4 * P)).toBe(4);
    expect(s.device.device.framesInUse).toBe(4);
    expect(firstOf(await s.device.read(BASE, 4 * P))).toEqual([1, 2, 3, 0]);
    await s.device.write(BASE + P, bytes(20));
    expect([...(await s.device.snapshotPages(BASE, 4 * P))].map(place)).toEqual(Array(4).fill(local));
    expect([...(await s.other.snapshotPages(BASE, 4 * P))].map(place)).toEqual(Array(4).fill(remote));
    expect(firstOf(await a.read())).toEqual([1, 20, 3, 0]);
    const after = [...(await s.device.snapshotPages(BASE, 4 * P))].map(place);
    expect(after).toEqual(Array(4).fill(kind === "private" ? 0 : local));
    await a.write(0, bytes(9));
    expect(firstOf(await s.device.read(BASE, P))).toEqual([9]);
  });

  test("pages move back to the system, and to the other device and back", async () => {
    await using s = await setUp(kind);
    const a = await s.map(0, 3);
    await a.write(
      0,
      filledBytes(3, (p) => p + 1),
    );
    await s.device.migrateToDevice(BASE, 2 * P);
    expect(await s.other.migrateToSystem(BASE, 3 * P)).toBe(0);
    expect(await s.device.migrateToSystem(BASE, 3 * P)).toBe(2);
    expect(s.device.device.framesInUse).toBe(0);
    expect(firstOf(await a.read())).toEqual([1, 2, 3]);
    expect(await s.other.migrateToDevice(BASE, 3 * P)).toBe(3);
    expect(firstOf(await s.device.read(BASE, 3 * P))).toEqual([1, 2, 3]);
    await s.device.write(BASE, bytes(7));
    expect(firstOf(await a.read())).toEqual([7, 2, 3]);
  });

  test("ENOENT for what does not move: a lease holds it, another device has it, no device memory; the rest moves", async () => {
    await using s = await setUp(kind);
    const a = await s.map(0, 4);
    await a.write(
      0,
      filledBytes(4, (p) => p + 1),
    );
    await s.other.migrateToDevice(BASE, P);
    const lease = await a.lease("r", { offset: P, length: P });
    const counts = { pages: 0, faults: 0 };
    expect(await errorCode(() => s.device.migrateToDevice(BASE, 4 * P, { counts }))).toBe("ENOENT");
    expect(counts.pages).toBe(2);
    lease.release();
    s.device.device.failAllocations = 1;
    expect(await errorCode(() => s.device.migrateToDevice(BASE + P, P))).toBe("ENOENT");
    expect(await s.device.migrateToDevice(BASE + P, 3 * P)).toBe(3);
    expect(firstOf(await a.read())).toEqual([1, 2, 3, 4]);
  });

  test("EINVAL: a hole, a mapping that is not readable, a space that has exited", async () => {
    await using s = await setUp(kind);
    await s.map(0, 2);
    await s.mm.mprotect(BASE + P, P, "none");
    expect(await errorCode(() => s.device.migrateToDevice(BASE + 4 * P, P))).toBe("EINVAL");
    expect(await errorCode(() => s.device.migrateToDevice(BASE, 2 * P))).toBe("EINVAL");
    expect(await errorCode(() => s.device.migrateToSystem(BASE + 4 * P, P))).toBe("EINVAL");
    await s.mm[Symbol.asyncDispose]();
    expect(await errorCode(() => s.device.migrateToDevice(BASE, P))).toBe("EINVAL");
  });

  test("munmap in part, dontneed, mprotect, mremap and fork find pages on the device in order", async () => {
    await using s = await setUp(kind);
    const a = await s.map(0, 8);
    await a.write(
      0,
      filledBytes(8, (p) => p + 1),
    );
    await s.device.migrateToDevice(BASE, 8 * P);
    await s.mm.munmap(BASE + 2 * P, P);
    await s.mm.madvise(BASE + 3 * P, P, "dontneed");
    expect(s.device.device.framesInUse).toBe(6);
    await s.mm.mprotect(BASE + 4 * P, P, "r");
    expect(await errorCode(() => s.device.write(BASE + 4 * P, bytes(1)))).not.toBe("none");
    await s.mm.mprotect(BASE + 4 * P, P, "rw");
    await s.device.write(BASE + 4 * P, bytes(50));
    const moved = await s.mm.mremap(BASE + 5 * P, P, P, { addr: BASE + 20 * P });
    expect(await errorCode(() => s.device.read(BASE + 5 * P, P))).toBe("EFAULT");
    expect(firstOf(await s.device.read(moved.start, P))).toEqual([6]);
    await using child = await s.mm.fork();
    await s.device.write(BASE, bytes(70));
    expect((await new Mapping(child, a.start, P, "child").read(0, 1))[0]).toBe(1);
    expect(firstOf(await a.read(0, 2 * P))).toEqual([70, 2]);
    expect(firstOf(await a.read(3 * P, 2 * P))).toEqual([0, 50]);
    expect(firstOf(await a.read(6 * P, 2 * P))).toEqual([7, 8]);
    validateMm(s.mm);
    validateMm(child);
  });

  test("release sends everything home; the device can be used again", async () => {
    await using s = await setUp(kind);
    const a = await s.map(0, 600);
    await a.write(
      0,
      filledBytes(600, (p) => p % 251),
    );
    await s.device.migrateToDevice(BASE, 600 * P);
    await s.device.device.release();
    expect([s.device.device.framesInUse, (await s.device.snapshotPages(BASE, P))[0]]).toEqual([0, DmirrorPage.Read]);
    validateMm(s.mm);
    expect(firstOf(await a.read())).toEqual(Array.from({ length: 600 }, (_, p) => p % 251));
    expect(await s.device.migrateToDevice(BASE, P)).toBe(1);
  });

  test("exit with pages on the device frees them", async () => {
    await using s = await setUp(kind);
    await s.map(0, 4);
    await s.device.migrateToDevice(BASE, 4 * P);
    await s.mm[Symbol.asyncDispose]();
    expect(s.device.device.framesInUse).toBe(0);
  });
});

test("a snapshot tells none, read, write, zero, a block of 2 MiB, and error, and faults nothing in", async () => {
  await using s = await setUp("private");
  const a = await s.map(0, 4);
  await a.write(0, bytes(1));
  await a.write(P, bytes(1));
  await s.mm.mprotect(BASE + P, P, "r");
  await s.mm.mprotect(BASE + 3 * P, P, "none");
  const { None, Read, Write, Zero, Error: Bad, Pmd } = DmirrorPage;
  const expected = [Write, Read, None, Bad, Bad];
  expect([...(await s.device.snapshotPages(BASE, 5 * P))]).toEqual(expected);
  expect([...(await s.device.snapshotPages(BASE, 5 * P))]).toEqual(expected);
  const { HmmMirror, HmmRange } = await import("../../hmm/index.ts");
  const mirror = new HmmMirror({ name: "reader", syncCpuDevicePagetables: () => 0 });
  await mirror.register(s.mm);
  await using range = new HmmRange({ start: BASE + 2 * P, end: BASE + 3 * P, defaultFlags: 1 });
  range.register(mirror);
  {
    using lock = await s.mm.mmapLock.read();
    await range.faultLocked(lock);
  }
  expect((await s.device.snapshotPages(BASE + 2 * P, P))[0]).toBe(Read | Zero);
  await range.unregister();
  await mirror.unregister();
  const block = await s.map(512, 512);
  await block.write(0, new Uint8Array(512 * P).fill(1));
  const big = await s.device.snapshotPages(block.start, 512 * P);
  expect(big.every((byte) => byte === (Write | Pmd))).toBe(true);
});

describe("exclusive", () => {
  test("the device works on system memory, until the CPU touches it", async () => {
    await using s = await setUp("private");
    const a = await s.map(0, 2);
    await a.write(0, bytes(5));
    await s.device.exclusive(BASE, 2 * P);
    expect(await errorCode(() => s.device.checkExclusive(BASE, 2 * P))).toBe("EPERM");
    await s.device.write(BASE, bytes(6));
    expect(await errorCode(() => s.device.checkExclusive(BASE, P)), "it writes as it is").toBe("EPERM");
    expect((await a.read(0, 1))[0]).toBe(6);
    await s.device.checkExclusive(BASE, P);
    expect(await errorCode(() => s.device.checkExclusive(BASE, 2 * P))).toBe("EPERM");
    await s.mm.mprotect(BASE + P, P, "r");
    await s.device.checkExclusive(BASE, 2 * P);
  });

  test("another device takes it away, and a fork; EBUSY under a lease", async () => {
    await using s = await setUp("private");
    const a = await s.map(0, 1);
    await s.device.exclusive(BASE, P);
    await s.other.write(BASE, bytes(8));
    await s.device.checkExclusive(BASE, P);
    await s.device.exclusive(BASE, P);
    await using child = await s.mm.fork();
    await s.device.checkExclusive(BASE, P);
    expect((await new Mapping(child, a.start, P, "child").read(0, 1))[0]).toBe(8);
    using lease = await a.lease("r");
    expect(await errorCode(() => s.device.exclusive(BASE, P))).toBe("EBUSY");
    expect(lease.u8[0]).toBe(8);
  });
});

test("a lease that may last takes pages out of coherent memory, an ordinary one leaves them", async () => {
  await using s = await setUp("coherent");
  const a = await s.map(0, 2);
  await a.write(0, bytes(3));
  await s.device.migrateToDevice(BASE, 2 * P);
  const short = await a.lease("rw");
  short.release();
  expect(s.device.device.framesInUse).toBe(2);
  const long = await a.lease("rw", { length: P, longTerm: true });
  expect([long.u8[0], s.device.device.framesInUse]).toEqual([3, 1]);
  expect(await errorCode(() => s.device.migrateToDevice(BASE, 2 * P))).toBe("ENOENT");
  validateMm(s.mm);
  long.release();
  expect(await s.device.migrateToDevice(BASE, 2 * P)).toBe(2);
});

describe.each(["private", "coherent"] as const)("free of %s memory", (kind) => {
  test("drops the content and the frames of private memory; EINVAL for shared memory", async () => {
    await using s = await setUp(kind);
    const a = await s.map(0, 2);
    await a.write(0, bytes(3));
    await s.map(4, 1, { shared: true });
    await s.device.migrateToDevice(BASE, 2 * P);
    await s.mm.madvise(BASE, P, "free");
    expect([s.device.device.framesInUse, (await a.read(0, 1))[0]]).toEqual([1, 0]);
    expect(await errorCode(() => s.mm.madvise(BASE + 4 * P, P, "free"))).toBe("EINVAL");
  });
});

test("there are devices 0 to 3: ENODEV for others", async () => {
  await using s = await setUp("private");
  expect(await errorCode(() => s.driver.open(s.mm, { device: 4 }))).toBe("ENODEV");
  expect(s.driver.devices.map(({ id, kind }) => `${id} ${kind}`)).toEqual([
    "0 private",
    "1 private",
    "2 coherent",
    "3 coherent",
  ]);
});
