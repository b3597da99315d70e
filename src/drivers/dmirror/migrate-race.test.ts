/** Migrations of two devices against everything that changes a space, in orders that fast-check chooses. */
import fc from "fast-check";
import { expect, test } from "vitest";
import {
  type AddressSpace,
  Mapping,
  PTE_PRESENT,
  PTE_WRITE,
  PteKind,
  pteIsKind,
  ptePfn,
  validateMm,
} from "../../mm/index.ts";
import { lockdepTask } from "../../sync/index.ts";
import { scheduleLocks } from "../../testing/scheduled-locks.ts";
import { BASE, createSpace } from "../../testing/spaces.ts";
import { type Dmirror, DmirrorDriver } from "./index.ts";

const P = 4096;
const PAGES = 4;

/** I-HMM-1: a device's entry names the frame where the page is, with no more permission than the CPU's. */
function expectMirrored(mm: AddressSpace, device: Dmirror): void {
  for (const [vpn, { pfn, write }] of device.table.entries()) {
    const pte = mm.pageTable.get(vpn);
    if (pteIsKind(pte, PteKind.Migrating)) {
      continue;
    }
    const there =
      (pte & PTE_PRESENT) !== 0 || [PteKind.DevicePrivate, PteKind.DeviceExclusive].some((k) => pteIsKind(pte, k));
    expect(there, `page ${vpn - BASE / P} is somewhere`).toBe(true);
    expect(pfn).toBe(ptePfn(pte));
    expect(write && (pte & PTE_WRITE) === 0).toBe(false);
  }
}

const OPS = [
  "to device",
  "to device",
  "to system",
  "to other",
  "exclusive",
  "device write",
  "device read",
  "snapshot",
  "cpu write",
  "cpu read",
  "release",
  "munmap",
  "protect",
  "dontneed",
  "fork",
  "child read",
] as const;

const action = fc.record({
  op: fc.constantFrom(...OPS),
  page: fc.nat(PAGES - 1),
  count: fc.integer({ min: 1, max: 4 }),
});

const EXPECTED = ["EFAULT", "EPERM", "EACCES", "ENOMEM", "ESRCH", "ENOENT", "EINVAL", "EBUSY"];

test.each([
  ["private", 0],
  ["coherent", 2],
] as const)(
  "I-HMM-1, I-MIG-1: in every schedule pages of %s memory are in one place, and no byte is lost",
  async (_kind, id) => {
    await fc.assert(
      fc.asyncProperty(
        fc.scheduler(),
        fc.array(action, { minLength: 2, maxLength: 7 }),
        fc.boolean(),
        async (s, actions, slow) => {
          const mm = createSpace();
          const driver = new DmirrorDriver();
          const mapping = await mm.mmap({ addr: BASE, length: PAGES * P, fixed: true });
          const device = await driver.open(mm, { device: id });
          const other = await driver.open(mm, { device: id + 1 });
          await mapping.write(0, new Uint8Array(2 * P).fill(1));
          await device.migrateToDevice(BASE + P, P);
          const children: AddressSpace[] = [];
          scheduleLocks(s, [mm.mmapLock, device.update, other.update], slow);
          const pagesLost = new Set<number>();
          const run = async ({ op, page, count }: { op: string; page: number; count: number }): Promise<unknown> => {
            const at = BASE + page * P;
            const length = Math.min(count, PAGES - page) * P;
            switch (op) {
              case "to device":
                return await device.migrateToDevice(at, length);
              case "to other":
                return await other.migrateToDevice(at, length);
              case "to system":
                return await device.migrateToSystem(at, length);
              case "exclusive":
                return await device.exclusive(at, length);
              case "release":
                return await device.device.release();
              case "device read":
                return await device.read(at, P);
              case "device write":
                return await device.write(at + 1, new Uint8Array([page + 2]));
              case "snapshot":
                return await other.snapshotPages(BASE, PAGES * P);
              case "cpu write":
                return await mapping.write(page * P + 2, new Uint8Array([9]));
              case "cpu read":
                return await mapping.read(page * P, 1);
              case "munmap":
                pagesLost.add(page);
                return await mm.munmap(at, P);
              case "protect":
                return await mm.mprotect(at, P, "r");
              case "dontneed":
                pagesLost.add(page);
                return await mm.madvise(at, P, "dontneed");
              case "fork":
                return children.push(await mm.fork());
              default: {
                const child = children.at(-1);
                const copy = child && (await new Mapping(child, mapping.start, PAGES * P, "child").read(page * P, 1));
                expect(copy === undefined || copy[0] === (page < 2 ? 1 : 0) || pagesLost.has(page)).toBe(true);
                return undefined;
              }
            }
          };
          const all = actions.map((a, i) =>
            lockdepTask(`${i} ${a.op}`, async () => {
              await s.schedule(Promise.resolve(), `${i} ${a.op} ${a.page}`);
              const outcome = await run(a).catch((error: unknown) => error);
              if (outcome instanceof Error) {
                expect(EXPECTED, String(outcome.stack)).toContain((outcome as { code?: string }).code);
              }
              expectMirrored(mm, device);
              expectMirrored(mm, other);
            }),
          );
          await s.waitFor(Promise.all(all));
          validateMm(mm);
          const ended = lockdepTask("end", async () => {
            for (let page = 0; page < PAGES; page++) {
              if (!pagesLost.has(page)) {
                expect((await mapping.read(page * P, 1))[0], `page ${page}`).toBe(page < 2 ? 1 : 0);
              }
            }
            await driver.unload();
            validateMm(mm);
            await mm[Symbol.asyncDispose]();
            for (const child of children) {
              validateMm(child);
              await child[Symbol.asyncDispose]();
            }
          });
          await s.waitFor(ended);
          expect([mm.users, mm.count]).toEqual([0, 0]);
        },
      ),
      { numRuns: 250, ...(process.env.PM_SEED === undefined ? {} : { seed: Number(process.env.PM_SEED) }) },
    );
  },
);
