/** The suite's tests of system calls: what the CPU may not do any more, the device may not either. */
import { KernelError, PAGE_SIZE } from "../base/index.ts";
import { equal, equalBytes, fails, pattern } from "./expect.ts";
import { BASE } from "./machine.ts";
import { drawEntries } from "./pages.ts";
import type { SuiteTest } from "./suite-memory.ts";

const GONE = ["EFAULT", "ESRCH"];
const DENIED = ["EPERM", "EACCES", "EFAULT"];

/** By name. */
export const CHANGE_TESTS: Readonly<Record<string, SuiteTest>> = {
  "munmap takes the pages from the device": async (machine) => {
    const { mm, device } = await machine.open();
    await device.write(BASE, pattern(4 * PAGE_SIZE, 1));
    await device.read(BASE + PAGE_SIZE, 4);
    await mm.munmap(BASE + PAGE_SIZE, PAGE_SIZE);
    await fails(device.read(BASE + PAGE_SIZE, 4), GONE, "a read of what is unmapped");
    await fails(device.write(BASE + PAGE_SIZE, new Uint8Array(4)), GONE, "a write to what is unmapped");
    equalBytes(await device.read(BASE, 8), pattern(8, 1), "the page before the hole");
  },
  "what is mapped anew where something was is zeros for the device": async (machine) => {
    const { mm, device } = await machine.open(2);
    await device.write(BASE, pattern(2 * PAGE_SIZE, 2));
    await device.read(BASE, 2 * PAGE_SIZE);
    await mm.munmap(BASE, 2 * PAGE_SIZE);
    await mm.mmap({ addr: BASE, length: 2 * PAGE_SIZE, fixed: true });
    equalBytes(await device.read(BASE, 2 * PAGE_SIZE), new Uint8Array(2 * PAGE_SIZE), "the new mapping");
  },
  "mprotect takes write permission from the device, and gives it back": async (machine) => {
    const { mm, map, device } = await machine.open(2);
    const bytes = pattern(2 * PAGE_SIZE, 3);
    await device.write(BASE, bytes);
    await mm.mprotect(BASE, 2 * PAGE_SIZE, "r");
    await fails(device.write(BASE, new Uint8Array(4)), DENIED, "a write to a read-only mapping");
    equalBytes(await device.read(BASE, 2 * PAGE_SIZE), bytes, "a read of a read-only mapping");
    await fails(device.write(BASE, new Uint8Array(4)), DENIED, "a write where the device has just read");
    await mm.mprotect(BASE, 2 * PAGE_SIZE, "rw");
    await device.write(BASE, Uint8Array.of(9, 9, 9, 9));
    equalBytes(await map.read(0, 4), Uint8Array.of(9, 9, 9, 9), "a write after the permission is back");
  },
  "a mapping without permissions is closed to the device": async (machine) => {
    const { mm, device } = await machine.open(2);
    await device.read(BASE, 4);
    await device.read(BASE + PAGE_SIZE, 4);
    await mm.mprotect(BASE, 2 * PAGE_SIZE, "none");
    await fails(device.read(BASE, 4), DENIED, "a read without permission");
    await fails(device.read(BASE + PAGE_SIZE, 4), DENIED, "a read of the last page without permission");
  },
  "madvise dontneed: the device reads zeros": async (machine) => {
    const { mm, device } = await machine.open(2);
    await device.write(BASE, pattern(2 * PAGE_SIZE, 4));
    await mm.madvise(BASE, PAGE_SIZE, "dontneed");
    equalBytes(await device.read(BASE, PAGE_SIZE), new Uint8Array(PAGE_SIZE), "the page that was dropped");
    equalBytes(
      await device.read(BASE + PAGE_SIZE, 4),
      pattern(2 * PAGE_SIZE, 4).subarray(PAGE_SIZE, PAGE_SIZE + 4),
      "its neighbour",
    );
  },
  "mremap: the device follows to the new address": async (machine) => {
    const { mm, device } = await machine.open(2);
    const bytes = pattern(2 * PAGE_SIZE, 5);
    await device.write(BASE, bytes);
    const moved = await mm.mremap(BASE, 2 * PAGE_SIZE, 2 * PAGE_SIZE, { addr: BASE + 64 * PAGE_SIZE });
    equalBytes(await device.read(moved.start, 2 * PAGE_SIZE), bytes, "the new address");
    await fails(device.read(BASE, 4), GONE, "the old address");
  },
  "fork: parent and child each see their own writes, the devices' too": async (machine) => {
    const { mm, map, device } = await machine.open(2);
    await device.write(BASE, pattern(2 * PAGE_SIZE, 6));
    const child = machine.space(await mm.fork());
    const childDevice = await machine.driver.open(child);
    await device.write(BASE, Uint8Array.of(1, 1, 1, 1));
    await childDevice.write(BASE + PAGE_SIZE, Uint8Array.of(2, 2, 2, 2));
    equalBytes(await childDevice.read(BASE, 4), pattern(4, 6), "the child, of the parent's write");
    equalBytes(await childDevice.read(BASE + PAGE_SIZE, 4), Uint8Array.of(2, 2, 2, 2), "the child, of its own");
    equalBytes(await device.read(BASE, 4), Uint8Array.of(1, 1, 1, 1), "the parent, of its own");
    equalBytes(
      await map.read(PAGE_SIZE, 4),
      pattern(2 * PAGE_SIZE, 6).subarray(PAGE_SIZE, PAGE_SIZE + 4),
      "the parent, of the child's",
    );
  },
  "a snapshot tells what the CPU may do, page by page": async (machine) => {
    const { map, device } = await machine.open(3);
    if (device.snapshot === undefined) {
      return;
    }
    await map.write(PAGE_SIZE, Uint8Array.of(1));
    await map.read(2 * PAGE_SIZE, 4);
    equal((await device.snapshot(BASE, 3 * PAGE_SIZE)).join(" "), "none rw r", "the snapshot");
  },
  "pages that migrate to the device come back when the CPU looks": async (machine) => {
    const { mm, map, device } = await machine.open(2);
    if (device.migrate === undefined) {
      return;
    }
    const bytes = pattern(2 * PAGE_SIZE, 7);
    await map.write(0, bytes);
    await device.migrate(BASE, 2 * PAGE_SIZE);
    // Memory that the CPU can reach stays mapped for it.
    const entries = drawEntries(mm, BASE, 2);
    equal(
      /^(?:dd|rr|WW)$/.test(entries),
      true,
      `the entries after the migration, ${entries}: on the device, or mapped`,
    );
    equalBytes(await device.read(BASE, 64), bytes.subarray(0, 64), "the device's view");
    equalBytes(await map.read(), bytes, "the CPU's view");
  },
  "changes that come while the device works end in the old bytes, the new ones, or an error": async (machine) => {
    const { mm, device } = await machine.open(2);
    const change = async () => {
      for (let i = 0; i < 6; i++) {
        await mm.mprotect(BASE, PAGE_SIZE, i % 2 === 0 ? "r" : "rw");
        await mm.munmap(BASE + PAGE_SIZE, PAGE_SIZE);
        await mm.mmap({ addr: BASE + PAGE_SIZE, length: PAGE_SIZE, fixed: true });
      }
    };
    const access = async () => {
      for (let i = 0; i < 6; i++) {
        const bytes = new Uint8Array(PAGE_SIZE + 8).fill(i + 1);
        await device.write(BASE, bytes).catch((error: unknown) => {
          if (!(error instanceof KernelError) || ![...GONE, ...DENIED, "EBUSY"].includes(error.code)) {
            throw error;
          }
        });
        machine.validate();
      }
    };
    await Promise.all([change(), access()]);
    await mm.mprotect(BASE, PAGE_SIZE, "rw");
    await device.write(BASE, pattern(2 * PAGE_SIZE, 8));
    equalBytes(await device.read(BASE, 2 * PAGE_SIZE), pattern(2 * PAGE_SIZE, 8), "the device's view at the end");
  },
};
