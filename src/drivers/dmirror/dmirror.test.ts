import fc from "fast-check";
import { expect, test } from "vitest";
import { type AddressSpace, PTE_PRESENT, PTE_WRITE, ptePfn, validateMm } from "../../mm/index.ts";
import { BASE, begin, createSpace, invalidation, turn } from "../../testing/spaces.ts";
import { type Dmirror, DmirrorDriver } from "./index.ts";

const P = 4096;
const bytes = (...values: number[]) => new Uint8Array(values);

interface Setup extends AsyncDisposable {
  readonly mm: AddressSpace;
  readonly driver: DmirrorDriver;
  readonly device: Dmirror;
}

async function setUp(): Promise<Setup> {
  const mm = createSpace();
  const driver = new DmirrorDriver();
  const device = await driver.open(mm);
  return {
    mm,
    driver,
    device,
    async [Symbol.asyncDispose]() {
      await driver.unload();
      await mm[Symbol.asyncDispose]();
    },
  };
}

const fixed = (page: number, pages: number) => ({ addr: BASE + page * P, length: pages * P, fixed: true }) as const;

/** I-HMM-1: each device entry is the CPU's, with no more permission. */
function expectMirrored(mm: AddressSpace, device: Dmirror): void {
  for (const [vpn, { pfn, write }] of device.table.entries()) {
    const pte = mm.pageTable.get(vpn);
    expect(pte & PTE_PRESENT, `page ${vpn - BASE / P} is present`).toBe(PTE_PRESENT);
    expect(pfn).toBe(ptePfn(pte));
    expect(write && (pte & PTE_WRITE) === 0, "the device may write where the CPU may not").toBe(false);
  }
}

test("the device reads what the CPU wrote and the CPU what the device wrote, across pages", async () => {
  await using s = await setUp();
  const mapping = await s.mm.mmap(fixed(0, 4));
  await mapping.write(P - 2, bytes(1, 2, 3, 4));
  expect(await s.device.read(BASE + P - 2, 4)).toEqual(bytes(1, 2, 3, 4));
  await s.device.write(BASE + 2 * P - 1, bytes(5, 6));
  expect(await mapping.read(2 * P - 1, 2)).toEqual(bytes(5, 6));
  await mapping.write(2 * P, bytes(7));
  expect(await s.device.read(BASE + 2 * P - 1, 2)).toEqual(bytes(5, 7));
  expectMirrored(s.mm, s.device);
});

test("memory that nobody touched reads as zeros; an access of nothing does nothing", async () => {
  await using s = await setUp();
  await s.mm.mmap(fixed(0, 600));
  expect((await s.device.read(BASE, 600 * P)).every((byte) => byte === 0)).toBe(true);
  const { faults } = s.device;
  expect(await s.device.read(BASE + 5, 0)).toHaveLength(0);
  await s.device.read(BASE, P);
  expect(s.device.faults).toBe(faults);
});

test("snapshot tells permissions and faults nothing in", async () => {
  await using s = await setUp();
  const mapping = await s.mm.mmap(fixed(0, 3));
  await mapping.write(0, bytes(1));
  await s.device.read(BASE + P, 1);
  expect(await s.device.snapshot(BASE, 3 * P)).toEqual(["rw", "r", "none"]);
  expect(await s.device.snapshot(BASE, 3 * P)).toEqual(["rw", "r", "none"]);
});

test("EFAULT, EPERM and EINVAL come out, with the device's table unchanged", async () => {
  await using s = await setUp();
  await expect(s.device.read(BASE, 1)).rejects.toMatchObject({ code: "EFAULT" });
  await s.mm.mmap({ ...fixed(0, 1), prot: "r" });
  await expect(s.device.write(BASE, bytes(1))).rejects.toMatchObject({ code: "EPERM" });
  await s.mm.mprotect(BASE, P, "none");
  await expect(s.device.read(BASE, 1)).rejects.toMatchObject({ code: "EFAULT" });
  await expect(s.device.snapshot(BASE, 1)).rejects.toMatchObject({ code: "EPERM" });
  await expect(s.device.read(-1, 1)).rejects.toMatchObject({ code: "EINVAL" });
  await expect(s.device.read(2 ** 48 - 1, 2)).rejects.toMatchObject({ code: "EINVAL" });
  expect(s.device.table.size).toBe(0);
});

test("munmap, mprotect and dontneed take the device's entries away before they act", async () => {
  await using s = await setUp();
  const mapping = await s.mm.mmap(fixed(0, 4));
  const fill = () => s.device.write(BASE, new Uint8Array(4 * P).fill(9));
  await fill();
  await s.mm.mprotect(BASE, P, "r");
  expectMirrored(s.mm, s.device);
  await expect(s.device.write(BASE, bytes(1))).rejects.toMatchObject({ code: "EPERM" });
  expect(await s.device.read(BASE, 1)).toEqual(bytes(9));
  await s.mm.madvise(BASE + P, P, "dontneed");
  expect(await s.device.read(BASE + P, 1)).toEqual(bytes(0));
  await s.mm.munmap(BASE + 2 * P, P);
  await expect(s.device.read(BASE + 2 * P, 1)).rejects.toMatchObject({ code: "EFAULT" });
  expect(await mapping.read(3 * P, 1)).toEqual(bytes(9));
  expectMirrored(s.mm, s.device);
});

test("after a fork the device of the parent writes the parent's bytes only", async () => {
  await using s = await setUp();
  await s.mm.mmap(fixed(0, 2));
  await s.device.write(BASE, bytes(1));
  await using child = await s.mm.fork();
  const childDevice = await s.driver.open(child);
  await s.device.write(BASE, bytes(2));
  expect(await childDevice.read(BASE, 1)).toEqual(bytes(1));
  await childDevice.write(BASE, bytes(3));
  expect(await s.device.read(BASE, 1)).toEqual(bytes(2));
  expectMirrored(s.mm, s.device);
  expectMirrored(child, childDevice);
  await s.driver.close(childDevice);
  await s.driver.close(childDevice);
});

test("an access waits for an invalidation to end, and gives up with EBUSY after its time", async () => {
  await using s = await setUp();
  await s.mm.mmap(fixed(0, 1));
  const end = begin(invalidation(s.mm, 0, 1));
  await expect(s.device.read(BASE, 1, { timeoutMs: 1 })).rejects.toMatchObject({ code: "EBUSY" });
  const abort = new AbortController();
  const aborted = s.device.read(BASE, 1, { signal: abort.signal });
  await turn();
  abort.abort();
  await expect(aborted).rejects.toMatchObject({ code: "EINTR" });
  const waiting = s.device.read(BASE, 1);
  await turn();
  await end();
  expect(await waiting).toEqual(bytes(0));
});

test("a sync callback that meets the update lock waits for it, or answers EAGAIN when it must not wait", async () => {
  await using s = await setUp();
  await s.mm.mmap(fixed(0, 1));
  await s.device.write(BASE, bytes(1));
  const held = await s.device.update.lock();
  const urgent = invalidation(s.mm, 0, 1, { blockable: false });
  expect(s.mm.notifiers?.invalidateRangeStart(urgent)).toBe("EAGAIN");
  expect(s.device.table.size).toBe(1);
  const range = invalidation(s.mm, 0, 1);
  const started = s.mm.notifiers?.invalidateRangeStart(range);
  held.release();
  expect(await started).toBe(0);
  expect(s.device.table.size).toBe(0);
  await s.mm.notifiers?.invalidateRangeEnd(range);
});

test("exit clears the device's table; later accesses are EFAULT; closing afterwards is in order", async () => {
  await using s = await setUp();
  await s.mm.mmap(fixed(0, 1));
  await s.device.write(BASE, bytes(1));
  await s.mm[Symbol.asyncDispose]();
  expect(s.device.table.size).toBe(0);
  await expect(s.device.read(BASE, 1)).rejects.toMatchObject({ code: "EFAULT" });
});

test("an access in flight keeps the space alive; its end runs the exit", async () => {
  await using s = await setUp();
  await s.mm.mmap(fixed(0, 1));
  const end = begin(invalidation(s.mm, 0, 1));
  const reading = s.device.read(BASE, 1);
  await turn();
  await s.mm[Symbol.asyncDispose]();
  expect(s.mm.users).toBe(1);
  await end();
  await expect(reading).rejects.toMatchObject({ code: "EFAULT" });
  expect(s.mm.users).toBe(0);
});

test("an unloaded driver opens nothing more: ENODEV", async () => {
  await using mm = createSpace();
  const driver = new DmirrorDriver();
  await driver.open(mm);
  await driver.unload();
  expect(mm.count).toBe(1);
  await expect(driver.open(mm)).rejects.toMatchObject({ code: "ENODEV" });
});

test("a failed open leaves nothing behind: ENOMEM at each allocation in turn", async () => {
  await using mm = createSpace();
  await using driver = new DmirrorDriver();
  for (let n = 0; n < 2; n++) {
    mm.memory.failAfter(n);
    await expect(driver.open(mm)).rejects.toMatchObject({ code: "ENOMEM" });
  }
  mm.memory.failAfter();
  await driver.open(mm);
});

test("an access that runs out of memory fails with ENOMEM and succeeds when there is some again", async () => {
  await using s = await setUp();
  await s.mm.mmap(fixed(0, 2));
  for (let n = 0; ; n++) {
    s.mm.memory.failAfter(n);
    const error = await s.device.write(BASE, bytes(1)).catch((e: unknown) => e);
    s.mm.memory.failAfter();
    expectMirrored(s.mm, s.device);
    validateMm(s.mm);
    if (error === undefined) {
      expect(n).toBeGreaterThan(0);
      break;
    }
    expect(error).toMatchObject({ code: "ENOMEM" });
  }
  expect(await s.device.read(BASE, 1)).toEqual(bytes(1));
});

const PAGES = 6;
const command = fc.oneof(
  {
    weight: 3,
    arbitrary: fc.record({
      op: fc.constantFrom("cpu write" as const, "device write" as const),
      page: fc.nat(PAGES - 1),
      value: fc.integer({ min: 1, max: 255 }),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({ op: fc.constantFrom("cpu read" as const, "device read" as const), page: fc.nat(PAGES - 1) }),
  },
  fc.record({
    op: fc.constantFrom(
      "munmap" as const,
      "mmap" as const,
      "dontneed" as const,
      "read-only" as const,
      "writable" as const,
    ),
    page: fc.nat(PAGES - 1),
  }),
);

test("CPU and device together behave as one array of bytes", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(command, { maxLength: 40 }), async (commands) => {
      await using s = await setUp();
      const mapping = await s.mm.mmap(fixed(0, PAGES));
      const model = Array.from({ length: PAGES }, () => ({ mapped: true, writable: true, value: 0 }));
      for (const c of commands) {
        const at = BASE + c.page * P;
        const cell = model[c.page];
        switch (c.op) {
          case "cpu write":
          case "device write": {
            const write =
              c.op === "device write" ? s.device.write(at, bytes(c.value)) : mapping.write(c.page * P, bytes(c.value));
            if (cell.mapped && cell.writable) {
              await write;
              cell.value = c.value;
            } else {
              await expect(write).rejects.toMatchObject({ name: "KernelError" });
            }
            break;
          }
          case "cpu read":
          case "device read": {
            const read = c.op === "device read" ? s.device.read(at, 1) : mapping.read(c.page * P, 1);
            if (cell.mapped) {
              expect(await read).toEqual(bytes(cell.value));
            } else {
              await expect(read).rejects.toMatchObject({ code: "EFAULT" });
            }
            break;
          }
          case "munmap":
            await s.mm.munmap(at, P);
            Object.assign(cell, { mapped: false, writable: false, value: 0 });
            break;
          case "mmap":
            await s.mm.munmap(at, P);
            await s.mm.mmap(fixed(c.page, 1));
            Object.assign(cell, { mapped: true, writable: true, value: 0 });
            break;
          case "dontneed":
            if (cell.mapped) {
              await s.mm.madvise(at, P, "dontneed");
              cell.value = 0;
            }
            break;
          case "read-only":
          case "writable":
            if (cell.mapped) {
              cell.writable = c.op === "writable";
              await s.mm.mprotect(at, P, cell.writable ? "rw" : "r");
            }
            break;
        }
        expectMirrored(s.mm, s.device);
        validateMm(s.mm);
      }
    }),
    { numRuns: 60 },
  );
});
