/** Pages between system memory and a device's own. */
import {
  addrOf,
  formatRange,
  KernelError,
  PAGE_SIZE,
  PAGES_PER_BLOCK,
  type VirtRange,
  vpnOf,
} from "../../base/index.ts";
import { MIGRATE_PFN_MIGRATE, MIGRATE_PFN_VALID, MigrateSelect, MigrateVma, migratePfn } from "../../migrate/index.ts";
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
import { copyHome, type DeviceMemory, type DmirrorDevice } from "./device-memory.ts";
import { DeviceEntryBits } from "./device-table.ts";
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
  using _inUse = device.inUse.tryRead() ?? (await device.inUse.read());
  return await forEachBatch(dmirror, range, async (start, end) => {
    const { mm } = dmirror;
    const moving = await MigrateVma.setup({ mm, lock, start, end, pgmapOwner: device, select: MigrateSelect.System });
    const frames = new Int32Array(moving.npages).fill(-1);
    try {
      copyToDevice(moving, device, frames);
    } catch (error) {
      // Nothing moves, and everybody goes on.
      moving.dst.fill(0);
      moving.pages();
      await moving.finalize();
      for (const frame of frames.filter((f) => f >= 0)) {
        device.memoryOf(mm.memory).free(frame);
      }
      throw error;
    }
    moving.pages();
    const { pagemap } = device.memoryOf(mm.memory);
    // Coherent pages are mapped read-only at first.
    const writable = (moving.vma.flags & VmFlags.Write) !== 0 && device.kind === "private";
    const bits = writable ? DeviceEntryBits.Write : 0;
    let moved = 0;
    {
      using _ = dmirror.update.tryLock() ?? (await dmirror.update.lock());
      for (let i = 0; i < moving.npages; i++) {
        if (moving.src[i] & MIGRATE_PFN_MIGRATE) {
          if (mayProgram(dmirror, vpnOf(start) + i)) {
            dmirror.table.setPfn(vpnOf(start) + i, pagemap.pfnOf(frames[i]), bits);
          }
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

/**
 * Whether an entry may be set without a range: not while an invalidation is under way, which has told this device already
 * and is about to change the page. The next access finds out where it is.
 */
function mayProgram(dmirror: Dmirror, vpn: number): boolean {
  return !dmirror.isInvalidating(addrOf(vpn), addrOf(vpn + 1));
}

/** A page that was here before: the announcement made the device forget where. */
function keepEntry(dmirror: Dmirror, pagemap: DevicePagemap, vpn: number): void {
  const { mm, table } = dmirror;
  const pte = mm.pageTable.get(vpn);
  const usable = mayProgram(dmirror, vpn) && ((pte & PTE_PRESENT) !== 0 || pteIsKind(pte, PteKind.DevicePrivate));
  if (usable && pagemap.frameOf(ptePfn(pte)) !== undefined) {
    table.setPfn(vpn, ptePfn(pte), pte & PTE_WRITE ? DeviceEntryBits.Write : 0);
  }
}

/** @linux lib/test_hmm.c dmirror_migrate_alloc_and_copy */
function copyToDevice(moving: MigrateVma, device: DmirrorDevice, frames: Int32Array): void {
  const { memory } = moving.vma.mm;
  const deviceMemory = device.memoryOf(memory);
  const { pagemap } = deviceMemory;
  for (let i = 0; i < moving.npages; i++) {
    const frame = moving.src[i] & MIGRATE_PFN_MIGRATE ? device.alloc(memory) : undefined;
    if (frame !== undefined) {
      frames[i] = frame;
      moving.dst[i] = migratePfn(pagemap.pfnOf(frame));
    }
  }
  for (let i = 0; i < moving.npages; ) {
    const stop = frames[i] < 0 ? i + 1 : runEnd(moving, deviceMemory, frames, i);
    if (frames[i] >= 0) {
      copyRun(moving, deviceMemory, frames[i], i, stop);
    }
    i = stop;
  }
}

/** One past the last page that follows page i in system memory and in the device's, and has bytes if that one has. */
function runEnd(moving: MigrateVma, memory: DeviceMemory, frames: Int32Array, i: number): number {
  const limit = moving.hostRunEnd(i, i + memory.runEnd(frames[i], frames[i] + (moving.npages - i)) - frames[i]);
  const bits = MIGRATE_PFN_VALID;
  let stop = i + 1;
  while (
    stop < limit &&
    frames[stop] === frames[i] + (stop - i) &&
    (moving.src[stop] & bits) === (moving.src[i] & bits)
  ) {
    stop++;
  }
  return stop;
}

/** Coherent memory is seen in the window: only what never had bytes gets some. */
function copyRun(moving: MigrateVma, memory: DeviceMemory, frame: number, from: number, to: number): void {
  const hasBytes = (moving.src[from] & MIGRATE_PFN_VALID) !== 0;
  if (memory.pagemap.kind === "coherent") {
    if (!hasBytes) {
      moving.hostBytes(from, to - from).fill(0);
    }
  } else if (hasBytes) {
    memory.bytesOf(frame, to - from).set(moving.hostBytes(from, to - from));
  } else {
    memory.bytesOf(frame, to - from).fill(0);
  }
}

/**
 * Moves the pages of a range that are in the device's memory back. Returns how many did.
 * @throws KernelError EINVAL a hole, or a mapping that is not readable
 * @linux lib/test_hmm.c dmirror_migrate_to_system
 */
export async function moveToSystem(dmirror: Dmirror, device: DmirrorDevice, lock: MmapRead, range: VirtRange) {
  const select = device.kind === "private" ? MigrateSelect.DevicePrivate : MigrateSelect.DeviceCoherent;
  using _inUse = device.inUse.tryRead() ?? (await device.inUse.read());
  return await forEachBatch(dmirror, range, async (start, end) => {
    const { mm } = dmirror;
    const moving = await MigrateVma.setup({ mm, lock, start, end, pgmapOwner: device, select });
    try {
      copyHome(moving, device.memoryOf(mm.memory));
    } finally {
      moving.pages();
      {
        using _ = dmirror.update.tryLock() ?? (await dmirror.update.lock());
        dmirror.table.drop(start, end);
      }
      await moving.finalize();
    }
    return moving.cpages;
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
