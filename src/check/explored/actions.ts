/** What tasks do: each the way a user or a driver would, with what its contract asks of its caller. */
import { DmirrorDriver } from "../../drivers/dmirror/index.ts";
import { HmmMirror } from "../../hmm/index.ts";
import { migrateVmaAbort, migrateVmaFinalize, migrateVmaSetup } from "../../migrate/index.ts";
import { mmuNotifierSynchronize } from "../../mmu-notifier/index.ts";
import { type Action, allowed, withUser } from "./action.ts";
import { BASE, PAGE, type World } from "./world.ts";

/** Isolates pages `[first, first + 2)`, copies them and makes them the device's. */
async function migrate(world: World): Promise<void> {
  const { mm, privateMemory } = world;
  using lock = await mm.mmapLock.read();
  const vma = mm.vmas.find(BASE);
  if (vma === undefined) {
    return;
  }
  const end = Math.min(vma.end, BASE + 2 * PAGE) as typeof vma.end;
  const migration = await migrateVmaSetup(lock, vma, vma.start, end, privateMemory.pagemap);
  if (migration === "pinned") {
    return;
  }
  const frames: number[] = [];
  try {
    for (let page = migration.page; page < migration.end; page++) {
      frames.push(await privateMemory.copyIn(migration.object, page));
    }
  } catch (error) {
    migrateVmaAbort(migration);
    throw error;
  }
  if (privateMemory.lost) {
    migrateVmaAbort(migration);
  } else {
    migrateVmaFinalize(migration, (index) => frames[index]);
  }
}

/** The actions of all scenarios, by name. */
export const ACTIONS: Readonly<Record<string, Action>> = {
  register: (world) => {
    const mirror = new HmmMirror({
      name: "check",
      syncCpuDevicePagetables: async (): Promise<0> => {
        if (!mirror.isRegistered) {
          world.host.note(() => "sync of a mirror that is being registered or unregistered");
        }
        await undefined;
        return 0;
      },
    });
    return () =>
      withUser(world, async () => {
        await mirror.register(world.mm);
        world.endings.push(() => mirror.unregister());
      });
  },
  unregister: async (world) => {
    const device = await world.open();
    await device.read(BASE, 2 * PAGE);
    return async () => {
      await world.driver.close(device);
      if (device.table.size > 0) {
        world.host.fail("I-HMM-1", "a device that is closed has entries");
      }
    };
  },
  "range-fault": async (world) => {
    const device = await world.open();
    return () => allowed(world, () => device.write(BASE + PAGE / 2, new Uint8Array(PAGE)));
  },
  munmap: (world) => () => allowed(world, () => world.mm.munmap(BASE + PAGE, PAGE)),
  mprotect: (world) => () => allowed(world, () => world.mm.mprotect(BASE, 2 * PAGE, "r")),
  fork: (world) => () =>
    allowed(world, () =>
      withUser(world, async () => {
        const child = await world.mm.fork();
        world.watch(child);
        world.endings.push(() => child.mmput());
      }),
    ),
  migrate: (world) => {
    void world.privateMemory;
    return () => allowed(world, () => withUser(world, () => migrate(world)));
  },
  exit: (world) => () => world.exit(),
  put: async (world) => {
    const probe = await world.get();
    return async () => world.release(probe);
  },
  get: (world) => () =>
    withUser(world, async () => {
      const probe = await world.get();
      world.endings.push(() => world.release(probe));
    }),
  synchronize: (world) => async () => {
    const before = [...world.put];
    await mmuNotifierSynchronize();
    for (const probe of before) {
      if (probe.frees !== 1 || probe.running > 0) {
        world.host.fail("I-MN-3", `${probe.name} was put before synchronize, which is over before it is freed`);
      }
    }
  },
  unload: async (world) => {
    const driver = new DmirrorDriver();
    const device = await world.open(driver);
    await device.write(BASE, new Uint8Array(2 * PAGE));
    return async () => {
      await driver.unload();
      if (device.table.size > 0) {
        world.host.fail("I-HMM-1", "a device of a driver that is unloaded has entries");
      }
    };
  },
  "clear-runs": (world) => () => allowed(world, () => withUser(world, () => world.clearRuns())),
  "device-lost": async (world) => {
    await migrate(world);
    return async () => world.privateMemory.lose();
  },
};
