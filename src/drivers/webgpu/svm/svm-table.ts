/** The device page table of one address space in svm mode: which device pages are in which frames of the pool. */
import { PAGE_SIZE, traceNow, traceOn, type VirtRange } from "../../../base/index.ts";
import type { AddressSpace } from "../../../mm/index.ts";
import { RwSemaphore } from "../../../sync/index.ts";
import { type Extent, PageState } from "../extent.ts";
import type { FenceTimeline } from "../fence.ts";
import { WRITABLE } from "../gather.ts";
import type { DeviceMirror, FrameStore } from "../mirror.ts";
import { bringHome } from "../way-home.ts";
import { Advice } from "./advice.ts";
import { FrameNames } from "./frame-names.ts";
import type { FramePool } from "./frame-pool.ts";
import { accessOfMappings, mappedLength, SeenMappings } from "./mapped-access.ts";
import { addrOfPage, mappedBits, pageOfAddr, readablePages, SUB_PAGES, SvmPte, writablePages } from "./page-entry.ts";
import { homeRuns, SvmFrame } from "./svm-frame.ts";
import { TableEntries } from "./table-entries.ts";
import { traceEvictedFrames } from "./trace-svm.ts";

/** Frames by device page, with what is mapped there, what was advised, and the entries that kernels read. */
export class SvmTable implements FrameStore {
  readonly mm: AddressSpace;
  readonly mirror: DeviceMirror;
  readonly pool: FramePool;
  readonly #fences: FenceTimeline;
  readonly #onClose: () => void;
  readonly names: FrameNames;
  readonly #frames: (SvmFrame | undefined)[] = [];
  /** By device page: what is mapped, see `accessOfMappings`. */
  #access = new Uint8Array(0);
  /** Held for reading by dispatches; for writing, the table grows. */
  readonly uses = new RwSemaphore("x-svm-table");
  readonly entries = new TableEntries((page) => this.#entry(page));
  /** By device page: {@link Advice}. */
  #advice = new Uint8Array(0);
  readonly #seen = new SeenMappings();
  #mapped = 0;
  /** Mappings went or lost permissions since the last {@link refresh}. */
  #isStale = false;
  lastSerial = 0;

  constructor(mirror: DeviceMirror, pool: FramePool, fences: FenceTimeline, onClose: () => void) {
    this.mm = mirror.mm;
    this.mirror = mirror;
    this.names = new FrameNames(mirror.pagemap);
    this.pool = pool;
    this.#fences = fences;
    this.#onClose = onClose;
  }

  /** Device pages that the table reaches. */
  get pages(): number {
    return this.#access.length;
  }

  /** Device pages that kernels can reach. */
  get mappedPages(): number {
    return this.#mapped;
  }

  frameAt(page: number): SvmFrame | undefined {
    return this.#frames[page];
  }

  ofFrame(frame: number): Extent | undefined {
    const index = this.names.indexOf(frame);
    const owner = index === undefined ? undefined : this.pool.ownerOf(index);
    return owner?.table === this ? owner : undefined;
  }

  *overlapping(start: number, end: number): IterableIterator<Extent> {
    const last = Math.min(this.#frames.length - 1, pageOfAddr(end - 1));
    for (let page = Math.max(0, pageOfAddr(start)); page <= last; page++) {
      const frame = this.#frames[page];
      if (frame !== undefined) {
        yield frame;
      }
    }
  }

  /** What is mapped of a device page. */
  accessOf(page: number): number {
    return page >= 0 && page < this.#access.length ? this.#access[page] : 0;
  }

  adviceOf(page: number): number {
    // Not by `??`: V8 compiles a load past the end of an array again each time that it happens.
    return page < this.#advice.length ? this.#advice[page] : Advice.None;
  }

  advise(page: number, end: number, advice: number): void {
    if (end > this.#advice.length) {
      const grown = new Uint8Array(end);
      grown.set(this.#advice);
      this.#advice = grown;
    }
    this.#advice.fill(advice, page, end);
  }

  noteMappings({ start, end }: VirtRange, event: "unmap" | "protection-vma"): void {
    this.#isStale = true;
    if (event !== "unmap") {
      return;
    }
    // Advice ends with what it was given for, not with the next dispatch: other memory may be mapped there by then.
    const last = Math.min(this.#advice.length - 1, pageOfAddr(end - 1));
    for (let page = Math.max(0, pageOfAddr(start)); page <= last; page++) {
      const from = Math.max(0, (start - addrOfPage(page)) / PAGE_SIZE);
      const to = Math.min(SUB_PAGES, (end - addrOfPage(page)) / PAGE_SIZE);
      const left = this.accessOf(page) & 15 & ~((1 << to) - (1 << from));
      this.#advice[page] = left === 0 ? Advice.None : this.#advice[page];
    }
  }

  get isStale(): boolean {
    return this.#isStale;
  }

  /** Whether kernels may access a page, or a part of it, for all that the last {@link refresh} saw. */
  isMapped(page: number, write: boolean): boolean {
    const access = this.accessOf(page);
    return (write ? writablePages(access) : readablePages(access)) !== 0;
  }

  /** Whether all mappings lie within the table's length. Locks: mmapLock, read. */
  reachesAll(): boolean {
    return mappedLength(this.mm) <= this.#access.length;
  }

  /**
   * Looks at the mappings anew; entries of pages where something changed are written before the next round.
   *
   * Locks: mmapLock, read; to grow, `uses`, write.
   */
  refresh(length: "grow" | "as long as it is"): void {
    this.#isStale = false;
    if (this.#seen.areSame(this.mm) && length !== "grow") {
      return;
    }
    const needed = length === "grow" ? mappedLength(this.mm) : 0;
    // Kernels take the last entry for pages past the end: it stays 0, and is none of these.
    const grown = Math.ceil((needed + 1) / TABLE_ENTRIES) * TABLE_ENTRIES - 1;
    const access = accessOfMappings(this.mm, Math.max(grown * Math.sign(needed), this.#access.length));
    this.entries.grow(access.length);
    const former = this.#access;
    this.#access = access;
    this.#mapped = 0;
    for (let page = 0; page < access.length; page++) {
      this.#mapped += readablePages(access[page]) > 0 ? 1 : 0;
      if (access[page] !== former[page]) {
        this.entries.noteChange(page);
      }
    }
  }

  #entry(page: number): number {
    const access = this.#access[page];
    const frame = this.#frames[page];
    if (frame?.has(readablePages(access), PageState.Valid) !== true || access === 0) {
      return mappedBits(access);
    }
    const writable = writablePages(access);
    const owned = writable !== 0 && frame.has(writable, WRITABLE) ? SvmPte.Write : 0;
    const track = frame.referenced ? 0 : SvmPte.Track;
    return ((frame.index << SvmPte.FrameShift) | mappedBits(access) | SvmPte.Valid | track | owned) >>> 0;
  }

  /** Whether the device can read a page, or write it. */
  isResident(page: number, write: boolean): boolean {
    const wanted = write ? SvmPte.Valid | SvmPte.Write : SvmPte.Valid;
    return (this.entries.at(page) & wanted) === wanted;
  }

  /** Takes note of tracked pages that a round used, one bit each; returns how many of them a prefetch had brought. */
  noteAccessed(accessed: Uint32Array): number {
    let hits = 0;
    accessed.forEach((word, i) => {
      for (let rest = word; rest !== 0; rest &= rest - 1) {
        const frame = this.#frames[i * 32 + (31 - Math.clz32(rest & -rest))];
        if (frame !== undefined) {
          frame.referenced = true;
          hits += frame.isPrefetched ? 1 : 0;
          frame.isPrefetched = false;
        }
      }
    });
    return hits;
  }

  /**
   * True when every mapped page can be read by the device, and written where its mapping allows it; pages that are
   * `excluded` do not count.
   */
  allResident(write: boolean, excluded: (page: number) => boolean = () => false): boolean {
    for (let page = 0; page < this.#access.length; page++) {
      const access = this.#access[page];
      if (access !== 0 && !excluded(page) && !this.isResident(page, write && writablePages(access) !== 0)) {
        return false;
      }
    }
    return true;
  }

  /** Puts a device page into a free frame; undefined when there is none. @throws KernelError ENOMEM, for its pfns */
  place(page: number): SvmFrame | undefined {
    const index = this.pool.take();
    if (index === undefined) {
      return undefined;
    }
    let frame: SvmFrame;
    try {
      frame = new SvmFrame(this, page, index);
    } catch (error) {
      this.pool.put(index);
      throw error;
    }
    // The frame's former tenant left its bytes.
    frame.update(0, SUB_PAGES, PageState.Touched, 0);
    this.pool.setOwner(index, frame);
    this.#frames[page] = frame;
    return frame;
  }

  /** Gives frames back, which hold nobody's only copy and which no submission uses. */
  remove(frame: SvmFrame): void {
    this.#frames[frame.page] = undefined;
    this.pool.put(frame.index);
    this.entries.noteChange(frame.page);
  }

  /**
   * Brings home what only these frames hold, and gives them back. Those stay that are written again meanwhile, or that somebody
   * began to bring pages to. Returns how many went.
   *
   * Locks: takes the update lock.
   * @throws KernelError ENOMEM when the host has no room
   */
  async evict(frames: readonly SvmFrame[]): Promise<number> {
    const runs = homeRuns(frames);
    const since = traceNow();
    await Promise.all(runs.map((run) => bringHome(run.object, run.page, run.page + run.count, "evict")));
    const bytes = runs.reduce((sum, run) => sum + run.count, 0) * PAGE_SIZE;
    this.pool.noteEvicted(bytes);
    if (!this.#fences.isDone(this.lastSerial)) {
      await this.#fences.idle();
    }
    await this.mirror.extents.readbacksDone.wait(() => frames.every((frame) => frame.readbacks === 0));
    using _lock = this.mirror.update.tryLock() ?? (await this.mirror.update.lock());
    const idle = frames.filter((frame) => frame.isPlaced && isIdle(frame));
    this.#giveUp(idle, bytes, since);
    return idle.length;
  }

  /**
   * Gives `count` of these frames back that nobody needs, when there are so many: the host has what they hold, and no running
   * slice has claimed them. What was submitted may still read them, and finds what they hold now: the queue writes their next
   * pages, and the entries for these, after that.
   */
  drop(frames: readonly SvmFrame[], count: number): boolean {
    using lock = this.mirror.update.tryLock();
    const unneeded = frames.filter(
      (frame) => frame.isPlaced && frame.claims === 0 && !frame.isPreferred && isIdle(frame),
    );
    if (lock === undefined || unneeded.length < count) {
      return false;
    }
    this.#giveUp(unneeded.slice(0, count), 0, 0);
    return true;
  }

  #giveUp(frames: readonly SvmFrame[], bytes: number, since: number): void {
    // So that they are taken again in rising order: neighbouring pages in neighbouring frames share a copy.
    for (const frame of [...frames].sort((a, b) => b.index - a.index)) {
      this.remove(frame);
    }
    if (traceOn) {
      traceEvictedFrames(this, frames, bytes, since);
    }
  }

  dropAll(poison: (extent: Extent) => void): void {
    for (const frame of this.#frames) {
      if (frame !== undefined) {
        poison(frame);
        frame.disown(0, SUB_PAGES);
      }
    }
  }

  /** The frames went with the device; what they held is poisoned or at home. */
  #forgetAll(): void {
    for (const frame of this.#frames) {
      if (frame !== undefined) {
        frame.disown(0, SUB_PAGES);
        this.remove(frame);
      }
    }
  }

  async close(): Promise<number> {
    let bytes = 0;
    if (this.mirror.isLost) {
      this.#forgetAll();
    }
    for (;;) {
      const frames = this.#frames.filter((frame) => frame !== undefined);
      if (frames.length === 0) {
        break;
      }
      bytes += frames.reduce((sum, frame) => sum + frame.ownedPages, 0) * PAGE_SIZE;
      await this.evict(frames);
    }
    this.names.remove();
    this.#onClose();
    return bytes;
  }
}

/** Nobody brings it a page or takes one home, and the host has what it holds. */
function isIdle(frame: SvmFrame): boolean {
  return !frame.isServed && frame.ownedPages === 0 && frame.readbacks === 0;
}

/** The table grows by so many entries: 64 MiB of memory. */
const TABLE_ENTRIES = 4096;
