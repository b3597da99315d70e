/** Memory of a device: frames with bytes of their own, and the way home. */
import { invariant, KernelError, PAGE_SIZE, PAGES_PER_BLOCK, type Pfn } from "../../base/index.ts";
import { MIGRATE_PFN_MIGRATE, MigrateDeviceRange, type MigratingPages, migratePfnToPfn } from "../../migrate/index.ts";
import {
  type DeviceMemoryKind,
  DevicePagemap,
  type DeviceRun,
  type PhysicalMemory,
  waitWhileBusy,
} from "../../mm/index.ts";
import { RwSemaphore } from "../../sync/index.ts";

/** Frames whose bytes follow each other. They are made when the first of them is used: few pages cost little. */
const PIECE_FRAMES = 32;

/** Frames that are named together: 512, as everywhere. */
interface Chunk {
  readonly first: number;
  /** Private memory only: coherent memory is seen in the windows of what is in it. */
  readonly pieces: (Uint8Array | undefined)[];
}

/** A device's memory as one machine sees it. @linux lib/test_hmm.c struct dmirror_chunk, dmirror_allocate_chunk */
export class DeviceMemory {
  readonly pagemap: DevicePagemap;
  readonly #chunks = new Map<number, Chunk>();
  readonly #free: number[] = [];
  #used = 0;

  constructor(memory: PhysicalMemory, owner: object, kind: DeviceMemoryKind) {
    const ops = {
      migrateToRam: async (
        runs: readonly DeviceRun[],
        take: (run: DeviceRun, byteOffset: number, bytes: Uint8Array) => void,
      ) => this.#migrateToRam(runs, take),
      pageFree: (frame: number, count: number) => this.#pageFree(frame, count),
    };
    this.pagemap = new DevicePagemap(memory, owner, ops, kind);
  }

  /** Frames in use. */
  get used(): number {
    return this.#used;
  }

  /** A frame. Give it a page, or back with {@link free}. @throws KernelError ENOMEM */
  alloc(): number {
    if (this.#free.length === 0) {
      this.#addChunk();
    }
    const frame = this.#free.pop();
    invariant(frame !== undefined, "I-MIG-2", () => "a new chunk has no frames");
    this.#used++;
    return frame;
  }

  #addChunk(): void {
    const first = this.pagemap.addFrames(PAGES_PER_BLOCK);
    this.#chunks.set(first / PAGES_PER_BLOCK, { first, pieces: [] });
    for (let i = PAGES_PER_BLOCK - 1; i >= 0; i--) {
      this.#free.push(first + i);
    }
  }

  /** Gives a frame back that holds no page. */
  free(frame: number): void {
    this.#used--;
    this.#free.push(frame);
  }

  /** The bytes of `count` frames of private memory, which end where {@link runEnd} says or before. */
  bytesOf(frame: number, count = 1): Uint8Array {
    const chunk = this.#chunks.get(Math.floor(frame / PAGES_PER_BLOCK));
    const isPrivate = this.pagemap.kind === "private";
    invariant(chunk !== undefined && isPrivate, "I-MIG-2", () => `device frame ${frame} has no bytes`);
    const piece = Math.floor((frame - chunk.first) / PIECE_FRAMES);
    chunk.pieces[piece] ??= new Uint8Array(PIECE_FRAMES * PAGE_SIZE);
    const at = (frame % PIECE_FRAMES) * PAGE_SIZE;
    return chunk.pieces[piece].subarray(at, at + count * PAGE_SIZE);
  }

  /** One past the last frame, below `limit`, whose bytes follow those of `frame`. */
  runEnd(frame: number, limit: number): number {
    return Math.min(limit, frame + PIECE_FRAMES - (frame % PIECE_FRAMES));
  }

  /** The bytes that a pfn of private memory names, or undefined for another's frame. */
  bytesOfPfn(pfn: Pfn): Uint8Array | undefined {
    const frame = this.pagemap.frameOf(pfn);
    return frame === undefined || this.pagemap.kind === "coherent" ? undefined : this.bytesOf(frame);
  }

  /** @linux lib/test_hmm.c dmirror_devmem_fault */
  #migrateToRam(
    runs: readonly DeviceRun[],
    take: (run: DeviceRun, byteOffset: number, bytes: Uint8Array) => void,
  ): void {
    for (const run of runs) {
      for (let i = 0; i < run.count; i++) {
        take(run, i * PAGE_SIZE, this.bytesOf(run.frame + i));
      }
      this.#pageFree(run.frame, run.count);
    }
  }

  #pageFree(frame: number, count: number): void {
    for (let f = frame + count - 1; f >= frame; f--) {
      this.free(f);
    }
  }

  /**
   * Sends every page home, wherever it is mapped, and gives the frames back.
   * @throws KernelError ENOMEM the host has no room for a page; the rest is home then
   * @linux lib/test_hmm.c dmirror_device_remove_chunks, dmirror_device_evict_chunk
   */
  async release(): Promise<void> {
    for (const { first } of [...this.#chunks.values()]) {
      await this.#evict(first);
      this.#chunks.delete(first / PAGES_PER_BLOCK);
      this.#dropFree(first);
      this.pagemap.removeFrames(first, PAGES_PER_BLOCK);
    }
  }

  #dropFree(first: number): void {
    const rest = this.#free.filter((frame) => frame < first || frame >= first + PAGES_PER_BLOCK);
    this.#free.length = 0;
    this.#free.push(...rest);
  }

  async #evict(first: number): Promise<void> {
    for (;;) {
      const migration = await MigrateDeviceRange.setup(this.pagemap, first, PAGES_PER_BLOCK);
      let failure: unknown;
      try {
        copyHome(migration, this);
      } catch (error) {
        failure = error;
      }
      migration.pages();
      await migration.finalize();
      if (failure !== undefined) {
        throw failure instanceof KernelError ? failure : new KernelError("ENOMEM", "dmirror release", String(failure));
      }
      const left = this.#inTransit(first);
      if (left === undefined) {
        return;
      }
      await waitWhileBusy(left.object, left.page, left.page + 1);
    }
  }

  #inTransit(first: number) {
    for (let frame = first; frame < first + PAGES_PER_BLOCK; frame++) {
      const home = this.pagemap.homeOf(frame);
      if (home !== undefined) {
        return home;
      }
    }
    return undefined;
  }
}

/**
 * Copies what may move to system memory and says so in `dst`; in runs, which is several times as fast.
 * @throws KernelError ENOMEM no room for a window; pages before it are to move
 * @linux lib/test_hmm.c dmirror_devmem_fault_alloc_and_copy
 */
export function copyHome(moving: MigratingPages, memory: DeviceMemory): void {
  const isPrivate = memory.pagemap.kind === "private";
  for (let i = 0; i < moving.npages; ) {
    const frame = frameAt(moving, memory, i);
    if (frame === undefined) {
      i++;
      continue;
    }
    const limit = moving.hostRunEnd(i, i + memory.runEnd(frame, frame + (moving.npages - i)) - frame);
    let stop = i + 1;
    while (stop < limit && frameAt(moving, memory, stop) === frame + (stop - i)) {
      stop++;
    }
    const bytes = moving.hostBytes(i, stop - i);
    if (isPrivate) {
      bytes.set(memory.bytesOf(frame, stop - i));
    }
    for (; i < stop; i++) {
      moving.dst[i] = moving.toHost(i);
    }
  }
}

/** The frame that a page may leave. */
function frameAt(moving: MigratingPages, memory: DeviceMemory, i: number): number | undefined {
  const entry = moving.src[i];
  return entry & MIGRATE_PFN_MIGRATE ? memory.pagemap.frameOf(migratePfnToPfn(entry)) : undefined;
}

/** One device of the driver: its memory on each machine that it is used on. @linux lib/test_hmm.c struct dmirror_device */
export class DmirrorDevice {
  readonly id: number;
  readonly kind: DeviceMemoryKind;
  /** Failure injection: so many allocations of device memory fail. @linux HMM_DMIRROR_FLAG_FAIL_ALLOC */
  failAllocations = 0;
  /** Read: pages are on their way to the device. Write: its memory is given back. Inside the mmap lock. */
  readonly inUse = new RwSemaphore("x-dmirror-memory");
  readonly #memories = new Map<PhysicalMemory, DeviceMemory>();

  /** @internal */
  constructor(id: number, kind: DeviceMemoryKind) {
    this.id = id;
    this.kind = kind;
  }

  /** Frames in use on all machines. */
  get framesInUse(): number {
    return [...this.#memories.values()].reduce((sum, { used }) => sum + used, 0);
  }

  /** @internal */
  memoryOf(memory: PhysicalMemory): DeviceMemory {
    let found = this.#memories.get(memory);
    if (found === undefined) {
      found = new DeviceMemory(memory, this, this.kind);
      this.#memories.set(memory, found);
    }
    return found;
  }

  /** @internal A frame, or undefined when there is none. */
  alloc(memory: PhysicalMemory): number | undefined {
    if (this.failAllocations > 0) {
      this.failAllocations--;
      return undefined;
    }
    try {
      return this.memoryOf(memory).alloc();
    } catch (error) {
      if (error instanceof KernelError && error.code === "ENOMEM") {
        return undefined;
      }
      throw error;
    }
  }

  /**
   * Sends every page in the device's memory home and gives the memory back. Migrations to the device wait meanwhile.
   * @throws KernelError ENOMEM the host has no room for a page
   * @linux lib/test_hmm.c HMM_DMIRROR_RELEASE
   */
  async release(): Promise<void> {
    using _ = this.inUse.tryWrite() ?? (await this.inUse.write());
    for (const [memory, device] of this.#memories) {
      await device.release();
      this.#memories.delete(memory);
    }
  }
}
