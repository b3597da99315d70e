/** The driver against everything that changes a space, at every await point, in orders that fast-check chooses. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { type AddressSpace, PTE_PRESENT, PTE_WRITE, ptePfn, validateMm } from "../../mm/index.ts";
import { lockdepTask } from "../../sync/index.ts";
import { scheduleLocks } from "../../testing/scheduled-locks.ts";
import { BASE, createSpace } from "../../testing/spaces.ts";
import { type Dmirror, DmirrorDriver } from "./index.ts";

const P = 4096;
const PAGES = 4;

function expectMirrored(mm: AddressSpace, device: Dmirror): void {
  for (const [vpn, { pfn, write }] of device.table.entries()) {
    const pte = mm.pageTable.get(vpn);
    expect(pte & PTE_PRESENT).toBe(PTE_PRESENT);
    expect(pfn).toBe(ptePfn(pte));
    expect(write && (pte & PTE_WRITE) === 0).toBe(false);
  }
}

const action = fc.record({
  op: fc.constantFrom(
    "device read" as const,
    "device write" as const,
    "snapshot" as const,
    "munmap" as const,
    "protect" as const,
    "dontneed" as const,
    "cpu write" as const,
    "fork" as const,
    "exit" as const,
    "close" as const,
  ),
  page: fc.nat(PAGES - 1),
});

test("I-HMM-1: in every schedule the device's table follows the CPU's, nothing hangs, nothing leaks", async () => {
  await fc.assert(
    fc.asyncProperty(
      fc.scheduler(),
      fc.array(action, { minLength: 2, maxLength: 7 }),
      fc.boolean(),
      async (s, actions, slow) => {
        const mm = createSpace();
        const driver = new DmirrorDriver();
        const mapping = await mm.mmap({ addr: BASE, length: PAGES * P, fixed: true });
        const device = await driver.open(mm);
        const other = await driver.open(mm);
        await device.write(BASE, new Uint8Array(2 * P).fill(1));
        const children: AddressSpace[] = [];
        scheduleLocks(s, [mm.mmapLock, device.update, other.update], slow);
        let exited = false;
        const run = async ({ op, page }: { op: string; page: number }): Promise<unknown> => {
          const at = BASE + page * P;
          switch (op) {
            case "device read":
              return await device.read(at, P);
            case "device write":
              return await device.write(at, new Uint8Array(P).fill(page + 2));
            case "snapshot":
              return await other.snapshot(BASE, PAGES * P);
            case "munmap":
              return await mm.munmap(at, P);
            case "protect":
              return await mm.mprotect(at, P, "r");
            case "dontneed":
              return await mm.madvise(at, P, "dontneed");
            case "cpu write":
              return await mapping.write(page * P, new Uint8Array([9]));
            case "fork":
              return children.push(await mm.fork());
            case "exit":
              exited = true;
              return await mm[Symbol.asyncDispose]();
            default:
              return await driver.close(other);
          }
        };
        const all = actions.map((a, i) =>
          lockdepTask(`${i} ${a.op}`, async () => {
            await s.schedule(Promise.resolve(), `${i} ${a.op} ${a.page}`);
            const outcome = await run(a).catch((error: unknown) => error);
            if (outcome instanceof Error) {
              // Page gone (ENOMEM of madvise), space gone, no permission: what an access may meet. A closed device is the caller's mistake.
              const code = (outcome as { code?: string }).code ?? (outcome as { invariant?: string }).invariant;
              const closed = a.op === "snapshot" && actions.some((b) => b.op === "close");
              expect(
                ["EFAULT", "EPERM", "EACCES", "ENOMEM", "ESRCH", ...(closed ? ["I-HMM-8"] : [])],
                String(outcome.stack),
              ).toContain(code);
            }
            expectMirrored(mm, device);
          }),
        );
        await s.waitFor(Promise.all(all));
        // Unload and exit go through the same locks, and nobody else is left to order them against.
        const ended = (async () => {
          if (!exited) {
            expectMirrored(mm, device);
            validateMm(mm);
          }
          await driver.unload();
          await mm[Symbol.asyncDispose]();
          for (const child of children) {
            await child[Symbol.asyncDispose]();
          }
        })();
        await s.waitFor(ended);
        expect([mm.users, mm.count]).toEqual([0, 0]);
      },
    ),
    { numRuns: 300 },
  );
});

/** The driver without its `valid` test: what the loop is there to prevent. */
test("without the test of valid under the update lock the device keeps entries that the CPU has lost", async () => {
  const stale = await fc.check(
    fc.asyncProperty(fc.scheduler(), async (s) => {
      const mm = createSpace();
      const driver = new DmirrorDriver();
      await mm.mmap({ addr: BASE, length: P, fixed: true });
      const device = await driver.open(mm);
      const { HmmRange } = await import("../../hmm/index.ts");
      const valid = Object.getOwnPropertyDescriptor(HmmRange.prototype, "valid");
      scheduleLocks(s, [device.update], false);
      Object.defineProperty(HmmRange.prototype, "valid", { configurable: true, get: () => true });
      try {
        // What changes entries without the mmap lock: another space's write to a shared page, announced to this one.
        const announced = (async () => {
          await s.schedule(Promise.resolve(), "invalidate");
          const update = { mm, start: BASE, end: BASE + P, blockable: true, event: "clear" } as never;
          await mm.notifiers?.invalidateRangeStart(update);
          mm.pageTable.set(BASE / P, 0);
          await mm.notifiers?.invalidateRangeEnd(update);
        })();
        const read = device.read(BASE, 1);
        await s.waitFor(Promise.all([announced, read]));
        expectMirrored(mm, device);
      } finally {
        if (valid !== undefined) {
          Object.defineProperty(HmmRange.prototype, "valid", valid);
        }
        await s.waitFor(driver.unload());
        await mm[Symbol.asyncDispose]();
      }
    }),
    { numRuns: 50 },
  );
  expect(stale.failed).toBe(true);
});
