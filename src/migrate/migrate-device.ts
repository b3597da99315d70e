/** Moving pages by the frames of a device that hold them: eviction, and a device that goes away. */
import { KernelError, type MaybePromise } from "../base/index.ts";
import { announceOnObject, type DevicePagemap, type MemoryObject, type ObjectPage, PageFlag } from "../mm/index.ts";
import { Hold, MIGRATE_PFN_MIGRATE, MigratingPages, migratePfn, settle } from "./migrating-pages.ts";
import { isolateRun } from "./page-run.ts";

/** Neighbouring frames that hold neighbouring pages of one object. */
interface FrameRun extends ObjectPage {
  readonly index: number;
  count: number;
}

/**
 * One migration of frames `[frame, frame + npages)` of a device's memory, wherever their pages are mapped.
 * @linux mm/migrate_device.c migrate_device_range
 */
export class MigrateDeviceRange extends MigratingPages {
  readonly #objects = new Set<MemoryObject>();

  private constructor(npages: number) {
    super(npages, new Uint32Array(npages), new Uint32Array(npages), undefined);
  }

  /**
   * Isolates the pages that are in the frames. Frames without a page, and pages in transit, have 0 in `src`.
   *
   * Locks: none. The pages' mirrors are told, but for those of the device's owner. {@link finalize} has to be called.
   * @throws KernelError EINVAL no frames
   * @linux mm/migrate_device.c migrate_device_range
   */
  static async setup(pagemap: DevicePagemap, frame: number, npages: number): Promise<MigrateDeviceRange> {
    if (!(npages > 0)) {
      throw new KernelError("EINVAL", "migrateDeviceRange", `${npages} frames: use at least 1`);
    }
    const migration = new MigrateDeviceRange(npages);
    const runs = runsOf(pagemap, frame, npages);
    for (const { object, page, count, index } of runs) {
      migration.#objects.add(object);
      object.updateFlags(page, page + count, PageFlag.Busy, 0);
      for (let k = 0; k < count; k++) {
        const entry = migratePfn(pagemap.pfnOf(frame + index + k)) | MIGRATE_PFN_MIGRATE;
        migration.note(index + k, object, page + k, entry, Hold.Isolated);
      }
    }
    // Whoever maps the pages may go meanwhile: objects must outlive their pages' transit.
    for (const object of migration.#objects) {
      object.get();
    }
    for (const { object, page, count } of runs) {
      const run = { object, page, end: page + count };
      await announceOnObject(object, run.page, run.end, "migrate", () => isolateRun(run), pagemap.owner);
    }
    return migration;
  }

  protected override ended(): MaybePromise<void> {
    return settle([...this.#objects].map((object) => object.put()));
  }
}

function runsOf(pagemap: DevicePagemap, frame: number, npages: number): FrameRun[] {
  const runs: FrameRun[] = [];
  for (let i = 0; i < npages; i++) {
    const home = pagemap.homeOf(frame + i);
    if (home === undefined || home.object.flagsOf(home.page) & PageFlag.Busy) {
      continue;
    }
    const last = runs.at(-1);
    if (last?.object === home.object && last.page + last.count === home.page && last.index + last.count === i) {
      last.count++;
    } else {
      runs.push({ ...home, index: i, count: 1 });
    }
  }
  return runs;
}
