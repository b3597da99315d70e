/** What tests of `mm` share: machines, pictures of mappings, pagers and devices that a test controls. */
import { expect } from "vitest";
import { KernelError, ledgerCounts, type MaybePromise, PAGE_SIZE, vpnOf } from "../base/index.ts";
import {
  AddressSpace,
  announceOnObject,
  DevicePagemap,
  type DeviceRun,
  type Mapping,
  type MemoryObject,
  type MmNotifierHooks,
  type MmuNotifierRange,
  PageFlag,
  type Pager,
  PhysicalMemory,
  PTE_PRESENT,
  PTE_WRITE,
  PteKind,
  pteOfKind,
  readPages,
  rewriteEntries,
  VmFlags,
} from "../mm/index.ts";
import { testMmu } from "./mmu.ts";

/** A machine of its own. */
export function createMemory(): PhysicalMemory {
  return new PhysicalMemory(testMmu());
}

/** An address space on a machine of its own, or on one that is given. */
export function createMm(memory: PhysicalMemory = createMemory()): AddressSpace {
  return AddressSpace.create({ memory });
}

/**
 * The mappings of `pages` pages from `base` on, one character a page: `.` a hole, else a letter a VMA in order of address,
 * upper case when writable, lower case when readable, `-` when neither.
 */
export function drawMaps(mm: AddressSpace, base: number, pages: number): string {
  let letter = -1;
  let previous: unknown;
  let picture = "";
  for (let i = 0; i < pages; i++) {
    const vma = mm.vmas.find(base + i * PAGE_SIZE);
    if (vma !== undefined && vma !== previous) {
      letter++;
      previous = vma;
    }
    if (vma === undefined) {
      picture += ".";
    } else if (vma.flags & VmFlags.Read) {
      const name = String.fromCharCode("a".charCodeAt(0) + (letter % 26));
      picture += vma.flags & VmFlags.Write ? name.toUpperCase() : name;
    } else {
      picture += "-";
    }
  }
  return picture;
}

/** Compares {@link drawMaps} with a picture. */
export function expectMaps(mm: AddressSpace, base: number, picture: string): void {
  expect(drawMaps(mm, base, picture.length)).toBe(picture);
}

/** The entries of `pages` pages: `.` none, `r` read-only, `w` writable, `d` device, `m` migrating, `p` poisoned. */
export function drawEntries(mm: AddressSpace, base: number, pages: number): string {
  let picture = "";
  for (let i = 0; i < pages; i++) {
    const pte = mm.pageTable.get(vpnOf(base) + i);
    if (pte & PTE_PRESENT) {
      picture += pte & PTE_WRITE ? "w" : "r";
    } else {
      picture += pte === 0 ? "." : (KIND_LETTERS.get(pte & 28) ?? "?");
    }
  }
  return picture;
}

const KIND_LETTERS = new Map<number, string>([
  [PteKind.DevicePrivate, "d"],
  [PteKind.Migrating, "m"],
  [PteKind.Poisoned, "p"],
]);

/** The code of the KernelError that the operation fails with; "none" when it succeeds. */
export async function errorCode(operation: () => MaybePromise<unknown>): Promise<string> {
  try {
    await operation();
    return "none";
  } catch (error) {
    if (error instanceof KernelError) {
      return error.code;
    }
    throw error;
  }
}

/** The first byte of each page. */
export async function firstBytes(mapping: Mapping): Promise<number[]> {
  const bytes = await mapping.read();
  return Array.from({ length: Math.ceil(bytes.length / PAGE_SIZE) }, (_, i) => bytes[i * PAGE_SIZE]);
}

/** Pages filled with a byte each. */
export function filledBytes(pages: number, valueAt: (page: number) => number): Uint8Array {
  return Uint8Array.from({ length: pages * PAGE_SIZE }, (_, i) => valueAt(Math.floor(i / PAGE_SIZE)));
}

/** Everything about address spaces that a failed call must leave alone. */
export async function snapshotOf(spaces: readonly AddressSpace[]): Promise<string> {
  const parts: string[] = [];
  for (const mm of spaces) {
    for (const vma of mm.vmas.values()) {
      parts.push(
        [
          vma.start.toString(16),
          vma.end.toString(16),
          vma.flags,
          vma.pgoff,
          vma.name,
          vma.object.pages,
          vma.object.refs,
          drawEntries(mm, vma.start, vma.pages),
        ].join(" "),
      );
      const bytes = new Uint8Array(PAGE_SIZE);
      for (let page = vma.pgoff; page < vma.pgoff + vma.pages; page++) {
        if (!(vma.object.flagsOf(page) & PageFlag.Device)) {
          await readPages(vma.object, page, page + 1, bytes);
          parts.push(`${bytes[0]},${bytes[PAGE_SIZE - 1]}`);
        }
      }
    }
    parts.push(`blocks ${mm.pageTable.blockCount}`);
  }
  return [...parts, JSON.stringify(ledgerCounts())].join("\n");
}

/** Resolves when the test opens it. */
export interface Gate {
  readonly wait: Promise<void>;
  open(): void;
}

export function gate(): Gate {
  let open = () => {};
  const wait = new Promise<void>((resolve) => {
    open = resolve;
  });
  return { wait, open: () => open() };
}

/** A file in memory. Answers at once, or when `delay` lets it. */
export class TestPager implements Pager {
  readonly name: string;
  readonly writable: boolean;
  readonly bytes: Uint8Array;
  /** What every read and write waits for; undefined: it answers at once. */
  delay: (() => Promise<void>) | undefined;
  failReads = false;
  failWrites = false;
  reads = 0;
  syncs = 0;
  closes = 0;

  constructor(bytes: Uint8Array, options: { name?: string; writable?: boolean } = {}) {
    this.bytes = bytes;
    this.name = options.name ?? "test.bin";
    this.writable = options.writable ?? true;
  }

  get length(): number {
    return this.bytes.length;
  }

  read(offset: number, dst: Uint8Array): MaybePromise<void> {
    this.reads++;
    return this.#answer(() => {
      if (this.failReads) {
        dst.fill(0xee);
        throw new KernelError("EIO", "read", `${this.name} cannot be read`);
      }
      dst.fill(0);
      dst.set(this.bytes.subarray(offset, offset + dst.length));
    });
  }

  write(offset: number, src: Uint8Array): MaybePromise<void> {
    expect(offset + src.length, "never written past the end").toBeLessThanOrEqual(this.bytes.length);
    return this.#answer(() => {
      if (this.failWrites) {
        throw new KernelError("EIO", "write", `${this.name} cannot be written`);
      }
      this.bytes.set(src, offset);
    });
  }

  sync(): void {
    this.syncs++;
  }

  close(): void {
    this.closes++;
  }

  #answer(act: () => void): MaybePromise<void> {
    return this.delay === undefined ? act() : this.delay().then(act);
  }
}

/** A device with memory of its own: holds pages as `migrate` leaves them. */
export class FakeDevice {
  readonly memory: PhysicalMemory;
  readonly pagemap: DevicePagemap;
  readonly first: number;
  readonly frames: number;
  /** Bytes of the frames in use. */
  readonly bytes = new Map<number, Uint8Array>();
  /** Runs before each read-back; may wait, and may throw. */
  beforeReadback: (() => MaybePromise<void>) | undefined;
  readbacks = 0;
  #next: number;

  constructor(memory: PhysicalMemory, frames = 512) {
    this.memory = memory;
    this.frames = frames;
    this.pagemap = new DevicePagemap(memory, this, {
      migrateToRam: async (runs, take) => {
        this.readbacks++;
        await this.beforeReadback?.();
        for (const run of runs) {
          this.#readBack(run, take);
        }
      },
      pageFree: (frame, count) => {
        for (let f = frame; f < frame + count; f++) {
          expect(this.bytes.delete(f), `frame ${f} is freed once`).toBe(true);
        }
      },
    });
    this.first = this.pagemap.addFrames(frames);
    this.#next = this.first;
  }

  #readBack(run: DeviceRun, take: (run: DeviceRun, byteOffset: number, bytes: Uint8Array) => void): void {
    for (let i = 0; i < run.count; i++) {
      const bytes = this.bytes.get(run.frame + i);
      expect(bytes, `frame ${run.frame + i} is in use`).toBeDefined();
      // In pieces that do not end with pages.
      take(run, i * PAGE_SIZE, (bytes ?? new Uint8Array()).subarray(0, 100));
      take(run, i * PAGE_SIZE + 100, (bytes ?? new Uint8Array()).subarray(100));
      this.bytes.delete(run.frame + i);
    }
  }

  /** Takes pages into the device's memory, when nobody holds them. False when it cannot have them now. */
  take(object: MemoryObject, page: number, end: number): MaybePromise<boolean> {
    return announceOnObject(object, page, end, "migrate", () => this.#take(object, page, end), this);
  }

  #take(object: MemoryObject, page: number, end: number): boolean {
    const summary = object.flagSummary(page, end);
    const here = ((summary >> 8) & PageFlag.Uptodate) !== 0;
    if (!here || summary & (PageFlag.Busy | PageFlag.Device) || object.isPinned(page, end, "r")) {
      return false;
    }
    for (let p = page; p < end; p++) {
      const frame = this.#next++;
      this.bytes.set(frame, object.windows.bytes(p, p + 1).slice());
      object.windows.bytes(p, p + 1).fill(0xdd);
      object.setDevicePfn(p, this.pagemap.pfnOf(frame));
    }
    object.updateFlags(page, end, PageFlag.Device | PageFlag.Own, PageFlag.Uptodate);
    rewriteEntries(object, page, end, (pte, _vma, p) =>
      pte & PTE_PRESENT
        ? pteOfKind(PteKind.DevicePrivate, object.devicePfnOf(p), pte & PTE_WRITE ? PTE_WRITE : 0)
        : pte,
    );
    return true;
  }

  /** Takes the pages of a mapping. */
  async takeMapping(mapping: Mapping): Promise<void> {
    const vma = mapping.mm.vmas.find(mapping.start);
    expect(vma).toBeDefined();
    if (vma !== undefined) {
      expect(await this.take(vma.object, vma.pgoff, vma.pgoff + vma.pages)).toBe(true);
    }
  }

  /** Gives the frame numbers back. All frames must have been freed. */
  remove(): void {
    expect(this.bytes.size, "device frames still in use").toBe(0);
    this.pagemap.removeFrames(this.first, Math.ceil(this.frames / 512) * 512);
  }
}

/** Notifier hooks that record what they are told, and check that starts and ends pair. */
export class TestHooks implements MmNotifierHooks {
  readonly told: MmuNotifierRange[] = [];
  readonly open = new Set<MmuNotifierRange>();
  releases = 0;
  destroyed = false;
  /** What every start waits for; undefined: it answers at once. */
  delay: ((range: MmuNotifierRange) => MaybePromise<void>) | undefined;

  static on(mm: AddressSpace): TestHooks {
    const hooks = new TestHooks();
    mm.notifiers = hooks;
    return hooks;
  }

  invalidateRangeStart(range: MmuNotifierRange): MaybePromise<0> {
    expect(this.destroyed, "told after the structure is gone").toBe(false);
    this.told.push(range);
    this.open.add(range);
    const waited = this.delay?.(range);
    return waited === undefined ? 0 : Promise.resolve(waited).then(() => 0 as const);
  }

  invalidateRangeEnd(range: MmuNotifierRange): void {
    expect(this.destroyed, "told after the structure is gone").toBe(false);
    expect(this.open.delete(range), "an end for each start").toBe(true);
  }

  release(): void {
    this.releases++;
  }

  destroy(): void {
    expect(this.open.size, "every start had its end").toBe(0);
    this.destroyed = true;
  }
}
