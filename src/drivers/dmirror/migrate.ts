/** Pages between system memory and a device's own. */
import {
  formatRange,
  KernelError,
  PAGE_SIZE,
  PAGES_PER_BLOCK,
  type Pfn,
  type VirtRange,
  vpnOf,
} from "../../base/index.ts";
import {
  MIGRATE_PFN_MIGRATE,
  MIGRATE_PFN_VALID,
  MigrateSelect,
  MigrateVma,
  migratePfn,
  migratePfnToPfn,
} from "../../migrate/index.ts";
import {
  type DevicePagemap,
  PTE_PRESENT,
  PTE_WRITE,
  PteKind,
  pteIsKind,
  ptePfn,
  type Vma,
  VmFlags,
} from "../../mm/index.ts";
import type { MmapRead } from "../../sync/index.ts";
import type { DmirrorDevice } from "./device-memory.ts";
import type { Dmirror } from "./dmirror.ts";

/** Pages moved in one go. */
const BATCH_PAGES = PAGES_PER_BLOCK;

/**
 * Moves what can be moved of a range to the device, and programs the device's table for it. Returns how many pages did.
 *
 * Locks: takes the update lock while a batch is isolated.
 * @throws KernelError EINVAL a hole, or a mapping that is not readable
 * @linux lib/test_hmm.c dmirror_migrate_to_device
 */
export async function moveToDevice(dmirror: Dmirror, device: DmirrorDevice, lock: MmapRead, range: VirtRange) {
  return forEachBatch(dmirror, range, async (start, end) => {
    const { mm } = dmirror;
    const moving = await MigrateVma.setup({ mm, lock, start, end, pgmapOwner: device, select: MigrateSelect.System });
    const frames = copyToDevice(moving, device);
    moving.pages();
    const { pagemap } = device.memoryOf(mm.memory);
    let moved = 0;
    {
      using _ = dmirror.update.tryLock() ?? (await dmirror.update.lock());
      for (let i = 0; i < moving.npages; i++) {
        if (moving.src[i] & MIGRATE_PFN_MIGRATE) {
          dmirror.table.set(vpnOf(start) + i, {
            pfn: pagemap.pfnOf(frames[i]),
            write: (moving.vma.flags & VmFlags.Write) !== 0 && device.kind === "private",
          });
          moved++;
          continue;
        }
        if (frames[i] >= 0) {
          device.memoryOf(mm.memory).free(frames[i]);
        }
        keepEntry(dmirror, pagemap, vpnOf(start) + i);
      }
    }
    await moving.finalize();
    return moved;
  });
}

/** A page that was here before: the announcement made the device forget where. */
function keepEntry({ mm, table }: Dmirror, pagemap: DevicePagemap, vpn: number): void {
  const pte = mm.pageTable.get(vpn);
  const usable = (pte & PTE_PRESENT) !== 0 || pteIsKind(pte, PteKind.DevicePrivate);
  if (usable && pagemap.frameOf(ptePfn(pte)) !== undefined) {
    table.set(vpn, { pfn: ptePfn(pte), write: (pte & PTE_WRITE) !== 0 });
  }
}

/** @linux lib/test_hmm.c dmirror_migrate_alloc_and_copy */
function copyToDevice(moving: MigrateVma, device: DmirrorDevice): Int32Array {
  const { memory } = moving.vma.mm;
  const frames = new Int32Array(moving.npages).fill(-1);
  for (let i = 0; i < moving.npages; i++) {
    const frame = moving.src[i] & MIGRATE_PFN_MIGRATE ? device.alloc(memory) : undefined;
    if (frame === undefined) {
      continue;
    }
    frames[i] = frame;
    const { pagemap } = device.memoryOf(memory);
    const hasBytes = (moving.src[i] & MIGRATE_PFN_VALID) !== 0;
    if (device.kind === "private") {
      const to = device.memoryOf(memory).bytesOf(frame);
      hasBytes ? to.set(moving.hostBytes(i)) : to.fill(0);
    } else if (!hasBytes) {
      // Coherent memory is seen in the window.
      moving.hostBytes(i).fill(0);
    }
    moving.dst[i] = migratePfn(pagemap.pfnOf(frame));
  }
  return frames;
}

/**
 * Moves the pages of a range that are in the device's memory back. Returns how many did.
 * @throws KernelError EINVAL a hole, or a mapping that is not readable
 * @linux lib/test_hmm.c dmirror_migrate_to_system
 */
export async function moveToSystem(dmirror: Dmirror, device: DmirrorDevice, lock: MmapRead, range: VirtRange) {
  const select = device.kind === "private" ? MigrateSelect.DevicePrivate : MigrateSelect.DeviceCoherent;
  return forEachBatch(dmirror, range, async (start, end) => {
    const { mm } = dmirror;
    const moving = await MigrateVma.setup({ mm, lock, start, end, pgmapOwner: device, select });
    for (let i = 0; i < moving.npages; i++) {
      if (moving.src[i] & MIGRATE_PFN_MIGRATE) {
        const bytes = device.memoryOf(mm.memory).bytesOfPfn(migratePfnToPfn(moving.src[i]) as Pfn);
        if (bytes !== undefined) {
          moving.hostBytes(i).set(bytes);
        }
        moving.dst[i] = moving.toHost(i);
      }
    }
    moving.pages();
    {
      using _ = dmirror.update.tryLock() ?? (await dmirror.update.lock());
      dmirror.table.drop(start, end);
    }
    const moved = moving.cpages;
    await moving.finalize();
    return moved;
  });
}

/** Calls `move` for pieces of a range that lie in one mapping; adds up. */
async function forEachBatch(
  { mm }: Dmirror,
  range: VirtRange,
  move: (start: number, end: number) => Promise<number>,
): Promise<number> {
  let moved = 0;
  for (let at: number = range.start; at < range.end; ) {
    const vma: Vma | undefined = mm.vmas.find(at);
    if (vma === undefined || (vma.flags & VmFlags.Read) === 0) {
      const why = `${formatRange({ start: at, end: range.end })} begins in a hole, or in a mapping that is not readable`;
      throw new KernelError("EINVAL", "dmirror migrate", `${why}: migrate what is mapped`);
    }
    const end = Math.min(range.end, vma.end, at + BATCH_PAGES * PAGE_SIZE);
    moved += await move(at, end);
    at = end;
  }
  return moved;
}
