/** What else drivers do: interval notifiers, and the reference driver's migrations and exclusive pages. */
import { vpnOf } from "../../base/index.ts";
import { type Dmirror, DmirrorDriver } from "../../drivers/dmirror/index.ts";
import { Mapping } from "../../mm/index.ts";
import { type Action, allowed, withUser } from "./action.ts";
import { IntervalDevice } from "./interval-device.ts";
import { BASE, PAGE, START, type World } from "./world.ts";

const ONE = Uint8Array.of(1);

/** Errors of the commands beside those that every action may meet. @linux lib/test_hmm.c */
const COMMAND = ["EINVAL", "ENOENT", "EBUSY"];

/** A device of one of the driver's kinds, with the first pages of the mapping in its memory when they are wanted there. */
async function openAt(world: World, device: number, there: boolean): Promise<Dmirror> {
  const opened = await world.open(world.driver, device);
  if (there) {
    await opened.migrateToDevice(BASE, 2 * PAGE);
  }
  return opened;
}

/** A command of a device as an action. */
function command(kind: number, there: boolean, body: (device: Dmirror) => Promise<unknown>): Action {
  return async (world) => {
    const device = await openAt(world, kind, there);
    return () => allowed(world, () => body(device), COMMAND);
  };
}

/** By name. They meet all actions in pairs, and each other in triples. */
export const DRIVER_ACTIONS: Readonly<Record<string, Action>> = {
  "interval-fault": async (world) => {
    const device = new IntervalDevice(world.host, "interval");
    await device.insert(world.mm, BASE, 4 * PAGE);
    world.devices.push(device);
    world.endings.push(() => device.remove());
    return () => allowed(world, () => withUser(world, () => device.fault(BASE, 2 * PAGE)), COMMAND);
  },
  "interval-insert": (world) => {
    const device = new IntervalDevice(world.host, "newcomer");
    return () =>
      withUser(world, async () => {
        await device.insert(world.mm, BASE + PAGE, 2 * PAGE);
        world.devices.push(device);
        await allowed(world, () => device.fault(BASE + PAGE, PAGE), COMMAND);
        await device.remove();
      });
  },
  "cpu-write": (world) => () =>
    allowed(world, () => withUser(world, () => new Mapping(world.mm, START, 2 * PAGE, "cpu").write(8, ONE))),
  dontneed: (world) => () => allowed(world, () => world.mm.madvise(BASE, 2 * PAGE, "dontneed")),
  "to-device": command(0, false, (device) => device.migrateToDevice(BASE, 2 * PAGE)),
  "to-coherent": command(2, false, (device) => device.migrateToDevice(BASE, 2 * PAGE)),
  "to-system": command(0, true, (device) => device.migrateToSystem(BASE, 2 * PAGE)),
  "device-read": command(0, true, (device) => device.read(BASE + PAGE - 8, 16)),
  exclusive: command(0, false, (device) => device.exclusive(BASE, 2 * PAGE)),
  evict: command(0, true, (device) => device.device.release()),
  "no-frames": async (world) => {
    const driver = new DmirrorDriver();
    const device = await world.open(driver);
    world.endings.push(() => driver.unload());
    device.device.failAllocations = 1;
    return async () => {
      await allowed(world, () => device.migrateToDevice(BASE, 2 * PAGE), COMMAND);
      if (device.table.get(vpnOf(START))?.pfn !== undefined && device.device.framesInUse > 2) {
        world.host.fail("I-MIG-2", `${device.device.framesInUse} frames are in use for two pages`);
      }
    };
  },
  // After the others: what a device has for itself does not migrate.
  "exclusive-touch": async (world) => {
    const device = await world.open();
    await device.exclusive(BASE, 2 * PAGE);
    // Somebody for whom the announcement waits, so that others may come in between.
    const probe = await world.get();
    world.endings.push(() => world.release(probe));
    return () =>
      allowed(world, () => withUser(world, () => new Mapping(world.mm, START, 2 * PAGE, "cpu").write(8, ONE)));
  },
};
