/** The project's own drivers run through the suite that it gives to others. */
import { describe, expect, test } from "vitest";
import { DmirrorDriver } from "../drivers/dmirror/index.ts";
import { CONFORMANCE_TESTS, type ConformanceDevice, conformance } from "./index.ts";

function dmirror(change: (device: ConformanceDevice) => ConformanceDevice = (device) => device, number = 0) {
  return () => {
    const driver = new DmirrorDriver();
    return {
      open: async (mm: Parameters<DmirrorDriver["open"]>[0]) => {
        const device = await driver.open(mm, { device: number });
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

conformance({ name: "dmirror, private memory", openDriver: dmirror(), test });
conformance({ name: "dmirror, coherent memory", openDriver: dmirror((device) => device, 2), test });

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
