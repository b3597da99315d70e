/** Pages on their way, one entry a page for where each is and where it goes: what all migrations page by page share. */
import { isPromise, KernelError, type MaybePromise, type Pfn, warnOn } from "../base/index.ts";
import { forEachMapping, hostPfn, isZeroPage, type MemoryObject, PageFlag, type Vma, windowEnd } from "../mm/index.ts";
import { giveBack, giveToDevice, giveToHost, type PageRun } from "./page-run.ts";

/** The entry has a pfn. In `src`: without it, a page that may move is zeros without a frame. @linux MIGRATE_PFN_VALID */
export const MIGRATE_PFN_VALID = 1;
/** The page may move, and after `pages()` does. @linux MIGRATE_PFN_MIGRATE */
export const MIGRATE_PFN_MIGRATE = 2;
/** The CPU could write the page. @linux MIGRATE_PFN_WRITE */
export const MIGRATE_PFN_WRITE = 8;

const PFN_SHIFT = 5;

/** An entry of `dst`: the page goes to this frame. @linux include/linux/migrate.h migrate_pfn */
export function migratePfn(pfn: number): number {
  return ((pfn << PFN_SHIFT) | MIGRATE_PFN_VALID) >>> 0;
}

/** The pfn of an entry, or -1 when it has none. @linux include/linux/migrate.h migrate_pfn_to_page */
export function migratePfnToPfn(entry: number): Pfn | -1 {
  return entry & MIGRATE_PFN_VALID ? ((entry >>> PFN_SHIFT) as Pfn) : -1;
}

/** What this migration holds of a page. */
export const Hold = {
  None: 0,
  /** In transit: nobody else can touch it. */
  Isolated: 1,
  /** Zeros that nobody had mapped. Anybody may get there first until `pages()`. */
  Absent: 2,
} as const;

/** Pages of one or of many objects. Entries are `pfn << 5 | MIGRATE_PFN_… bits`. */
export class MigratingPages {
  /** Where each page is, and whether it may move. */
  readonly src: Uint32Array;
  /** Filled in by the driver between setup and `pages()`: {@link migratePfn}, or 0 to leave the page where it is. */
  readonly dst: Uint32Array;
  readonly npages: number;
  protected readonly hold: Uint8Array;
  readonly #objects: (MemoryObject | undefined)[];
  readonly #pages: Float64Array;
  readonly #vma: Vma | undefined;
  #ended = false;

  protected constructor(npages: number, src: Uint32Array, dst: Uint32Array, vma: Vma | undefined) {
    this.npages = npages;
    this.src = src;
    this.dst = dst;
    this.hold = new Uint8Array(npages);
    this.#objects = new Array(npages).fill(undefined);
    this.#pages = new Float64Array(npages);
    this.#vma = vma;
    src.fill(0, 0, npages);
    dst.fill(0, 0, npages);
  }

  /** Pages that may move: after setup those that could be had, after `pages()` those that do. @linux migrate_vma.cpages */
  get cpages(): number {
    let count = 0;
    for (let i = 0; i < this.npages; i++) {
      count += this.src[i] & MIGRATE_PFN_MIGRATE ? 1 : 0;
    }
    return count;
  }

  protected note(i: number, object: MemoryObject, page: number, entry: number, hold: number): void {
    this.#objects[i] = object;
    this.#pages[i] = page;
    this.src[i] = entry;
    this.hold[i] = hold;
  }

  /**
   * The bytes of `count` pages from page i on in system memory: to read when they come from there, to fill when they go
   * there. More than one only as far as {@link hostRunEnd} says.
   * @throws KernelError ENOMEM no room for a window; EINVAL the page cannot move
   */
  hostBytes(i: number, count = 1): Uint8Array {
    const object = this.#objectAt(i);
    const page = this.#pages[i];
    object.windows.ensure(page);
    return object.windows.bytes(page, page + count);
  }

  /** One past the last page, below `limit`, whose bytes in system memory follow those of page i. */
  hostRunEnd(i: number, limit: number): number {
    const object = this.#objectAt(i);
    const page = this.#pages[i];
    const stop = i + (windowEnd(page, page + (limit - i)) - page);
    let p = i + 1;
    while (p < stop && this.#objects[p] === object && this.#pages[p] === page + (p - i)) {
      p++;
    }
    return p;
  }

  /** The entry of `dst` that takes page i to system memory. */
  toHost(i: number): number {
    return migratePfn(hostPfn(this.#objectAt(i), this.#pages[i]));
  }

  #objectAt(i: number): MemoryObject {
    const object = this.#objects[i];
    if (object === undefined) {
      throw new KernelError("EINVAL", "migrate", `page ${i} of the migration cannot move`);
    }
    return object;
  }

  /**
   * The driver has filled `dst`, and copied the bytes of pages that have some. What does not move loses its MIGRATE bit: pages
   * without an entry in `dst`, and zeros that somebody has touched since setup. The rest moves for certain.
   *
   * Synchronous, cannot fail.
   * @linux mm/migrate_device.c migrate_vma_pages, migrate_device_pages
   */
  pages(): void {
    for (let i = 0; i < this.npages; i++) {
      if ((this.src[i] & MIGRATE_PFN_MIGRATE) === 0) {
        continue;
      }
      const wanted = (this.dst[i] & MIGRATE_PFN_VALID) !== 0;
      if (!wanted || (this.hold[i] === Hold.Absent && !this.#claim(i))) {
        this.src[i] &= ~MIGRATE_PFN_MIGRATE;
      }
    }
  }

  /** Takes a page of zeros, unless somebody else was first. */
  #claim(i: number): boolean {
    const object = this.#objectAt(i);
    const page = this.#pages[i];
    if (!isAbsent(object, page)) {
      return false;
    }
    try {
      object.reserve(page, page + 1);
    } catch {
      return false;
    }
    object.updateFlags(page, page + 1, PageFlag.Busy, 0);
    this.hold[i] = Hold.Isolated;
    return true;
  }

  /**
   * The driver's table is up to date: pages that moved are where `dst` says, the others where they were, and whoever waited
   * for them goes on. Frames that pages leave are freed. A promise only when this held the last reference to an object.
   *
   * Reports I-MIG-3 when it is called twice.
   * @linux mm/migrate_device.c migrate_vma_finalize, migrate_device_finalize
   */
  finalize(): MaybePromise<void> {
    if (warnOn(this.#ended, "I-MIG-3", () => "a migration is finalized twice")) {
      return undefined;
    }
    this.#ended = true;
    for (let i = 0; i < this.npages; ) {
      const stop = this.#runEnd(i);
      if (this.hold[i] === Hold.Isolated) {
        this.#end(i, stop);
      }
      i = stop;
    }
    return this.ended();
  }

  /** What a kind of migration does last. */
  protected ended(): MaybePromise<void> {
    return undefined;
  }

  /** Where page i ends up: on a device, in system memory, or where it is. */
  #target(i: number): "device" | "host" | "stay" {
    if ((this.src[i] & MIGRATE_PFN_MIGRATE) === 0) {
      return "stay";
    }
    const pfn = migratePfnToPfn(this.dst[i]);
    return this.#objectAt(i).memory.blockOf(pfn)?.pagemap === undefined ? "host" : "device";
  }

  /** One past the last page that goes the same way as page i and is its neighbour. */
  #runEnd(i: number): number {
    if (this.hold[i] !== Hold.Isolated) {
      return i + 1;
    }
    const target = this.#target(i);
    let p = i + 1;
    while (
      p < this.npages &&
      this.hold[p] === Hold.Isolated &&
      this.#objects[p] === this.#objects[i] &&
      this.#pages[p] === this.#pages[i] + (p - i) &&
      this.#target(p) === target
    ) {
      p++;
    }
    return p;
  }

  #end(i: number, stop: number): void {
    const page = this.#pages[i];
    const run: PageRun = { object: this.#objectAt(i), page, end: page + (stop - i) };
    switch (this.#target(i)) {
      case "device":
        giveToDevice(run, (k) => migratePfnToPfn(this.dst[i + k]), this.#vma);
        break;
      case "host":
        giveToHost(run);
        break;
      default:
        giveBack(run);
    }
  }
}

/** Zeros without a frame of their own in any page table. */
export function isAbsent(object: MemoryObject, page: number): boolean {
  return (
    (object.flagsOf(page) & ~PageFlag.Used & ~PageFlag.Own) === 0 && isZeroPage(object, page) && !isMapped(object, page)
  );
}

function isMapped(object: MemoryObject, page: number): boolean {
  let mapped = false;
  forEachMapping(object, page, page + 1, (vma, vpn) => {
    mapped ||= vma.mm.pageTable.get(vpn) !== 0;
  });
  return mapped;
}

/** Waits for all that are promises. */
export function settle(pending: readonly MaybePromise<void>[]): MaybePromise<void> {
  const late = pending.filter((put) => isPromise(put));
  return late.length === 0 ? undefined : Promise.all(late).then(() => undefined);
}
