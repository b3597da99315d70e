/** The project's own drivers run through the suite that it gives to others. */
import { describe, expect, test } from "vitest";
import { PAGE_SIZE } from "../base/index.ts";
import { DeviceEntryBits } from "../drivers/dmirror/device-table.ts";
import { type Dmirror, DmirrorDriver } from "../drivers/dmirror/index.ts";
import { testMmu } from "../testing/mmu.ts";
import { CONFORMANCE_TESTS, type ConformanceDevice, conformance } from "./index.ts";

function dmirror(
  change: (device: ConformanceDevice) => ConformanceDevice = (device) => device,
  number = 0,
  spoil: (device: Dmirror) => void = () => {},
) {
  return () => {
    const driver = new DmirrorDriver();
    return {
      open: async (mm: Parameters<DmirrorDriver["open"]>[0]) => {
        const device = await driver.open(mm, { device: number });
        spoil(device);
        return change({
          read: (addr, length) => device.read(addr, length),
          write: (addr, bytes) => device.write(addr, bytes),
          snapshot: (addr, length) => device.snapshot(addr, length) as Promise<string[]>,
          migrate: (addr, length) => device.migrateToDevice(addr, length),
          close: () => driver.close(device),
        });
      },
      unload: () => driver.unload(),
    };
  };
}

const mmus = { [testMmu().name]: testMmu };
conformance({ name: "dmirror, private memory", openDriver: dmirror(), test, mmus });
conformance({ name: "dmirror, coherent memory", openDriver: dmirror((device) => device, 2), test, mmus });

/** The names of the tests that a driver fails. */
async function failuresOf(openDriver: ReturnType<typeof dmirror>): Promise<string[]> {
  const bodies: [string, () => Promise<void>][] = [];
  conformance({ openDriver, test: (name, body) => bodies.push([name, body]) });
  const failures: string[] = [];
  for (const [name, body] of bodies) {
    await body().catch(() => failures.push(name));
  }
  return failures;
}

describe("a driver that is wrong fails the suite", () => {
  test("one that keeps what it read once", async () => {
    const failures = await failuresOf(
      dmirror((device) => {
        const kept = new Map<string, Uint8Array>();
        return {
          ...device,
          async read(addr, length) {
            const key = `${addr} ${length}`;
            const bytes = kept.get(key) ?? (await device.read(addr, length));
            kept.set(key, bytes);
            return bytes;
          },
        };
      }),
    );
    expect(failures.map((name) => name.replace("driver on software: ", ""))).toEqual([
      "neither sees old bytes, however often the page goes back and forth",
      "two devices of one space see each other's writes",
      "munmap takes the pages from the device",
      "what is mapped anew where something was is zeros for the device",
      "a mapping without permissions is closed to the device",
    ]);
  });

  test.each<[string, (device: Dmirror) => void, RegExp]>([
    [
      "never lets go of its pages",
      ({ table }) => {
        table.drop = () => {};
      },
      /^(munmap|mprotect|madvise|mremap|fork)/,
    ],
    [
      "lets go of the first page of a change only",
      ({ table }) => {
        const drop = table.drop.bind(table);
        table.drop = (start) => drop(start, start + PAGE_SIZE);
      },
      /^a mapping without permissions/,
    ],
    [
      "writes what it may only read",
      ({ table }) => {
        const setPfn = table.setPfn.bind(table);
        table.setPfn = (vpn, pfn, bits) => setPfn(vpn, pfn, bits | DeviceEntryBits.Write);
      },
      /^mprotect takes write permission/,
    ],
  ])("one that %s", async (_, spoil, named) => {
    const failures = await failuresOf(dmirror((device) => device, 0, spoil));
    expect(
      failures.map((name) => name.replace("driver on software: ", "")).filter((name) => named.test(name)),
    ).not.toEqual([]);
  });

  test("one that leaves its last word out", async () => {
    const failures = await failuresOf(
      dmirror((device) => ({ ...device, write: (addr, bytes) => device.write(addr, bytes.subarray(0, -4)) })),
    );
    expect(failures.length).toBeGreaterThan(CONFORMANCE_TESTS.length / 3);
  });

  test("one that leaks a user of the space", async () => {
    const bodies: (() => Promise<void>)[] = [];
    const taken: { mmdrop(): void }[] = [];
    const open = dmirror();
    conformance({
      openDriver: () => {
        const driver = open();
        return {
          ...driver,
          open: (mm) => {
            mm.mmgrab();
            // Given back after the test, or it would be this one's leak too.
            taken.push(mm);
            return driver.open(mm);
          },
        };
      },
      test: (_, body) => bodies.push(body),
    });
    await expect(bodies[0]?.()).rejects.toThrow("left at the end: 1 x mm count");
    for (const mm of taken) {
      mm.mmdrop();
    }
  });
});
