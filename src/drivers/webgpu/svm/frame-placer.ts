/**
 * Frames for what dispatches ask for. Each claims those that its running slice needs. When the claims of several do not fit
 * the pool together they take turns: who has it claims over the others' claims, until its slice is done.
 */
import { KernelError, traceOn } from "../../../base/index.ts";
import { type Held, Mutex, RwSemaphore, WaitQueue } from "../../../sync/index.ts";
import type { WebGpuDevice } from "../device.ts";
import type { Extent } from "../extent.ts";
import { evictFrames, type FramePool } from "./frame-pool.ts";
import type { Demand } from "./service.ts";
import type { SvmFrame } from "./svm-frame.ts";
import type { SvmTable } from "./svm-table.ts";
import { tracePrefetch } from "./trace-svm.ts";
import type { FrameClaim, SvmWork } from "./work.ts";

/** Frames given up together, so that dirty ones come home in few readbacks. */
const EVICT_AT_ONCE = 64;

/** Gives demanded pages frames, and takes these from others. */
export class FramePlacer {
  readonly #device: WebGpuDevice;
  readonly #pool: FramePool;
  /** Held where frames are taken and given up. */
  readonly #placing = new Mutex("x-svm-placing");
  /** Held for reading while uploads to frames are recorded: the pool's buffer must not be replaced then. */
  readonly serving = new RwSemaphore("x-svm-serving");
  /** Woken when frames are no longer being served. */
  readonly served = new WaitQueue();
  readonly #turn = new Mutex("x-svm-pool");
  #holder: { readonly claim: FrameClaim; readonly guard: Held<"x-svm-pool", "write"> } | undefined;
  /** Extents that dispatches in progress have bound. */
  readonly #bound = new Map<Extent, number>();
  /** Dispatches in progress. */
  active = 0;

  constructor(device: WebGpuDevice, pool: FramePool) {
    this.#device = device;
    this.#pool = pool;
  }

  /** Frames that a dispatch's slices should be content with, so that those of all fit the pool together. */
  get share(): number {
    return Math.max(1, Math.floor(this.#pool.capacity / Math.max(1, this.active)));
  }

  /** A dispatch begins, with these ranges bound. */
  enter(bound: ReadonlySet<Extent>): void {
    this.active++;
    for (const extent of bound) {
      this.#bound.set(extent, (this.#bound.get(extent) ?? 0) + 1);
    }
  }

  /** A dispatch is over, well or not. */
  leave(bound: ReadonlySet<Extent>, claim: FrameClaim): void {
    this.active--;
    for (const extent of bound) {
      const uses = this.#bound.get(extent) ?? 0;
      uses > 1 ? this.#bound.set(extent, uses - 1) : this.#bound.delete(extent);
    }
    this.release(claim);
  }

  /** A slice is done: nothing is needed any more, and others may have their turn. */
  release(claim: FrameClaim): void {
    claim.clear();
    if (this.#holder?.claim === claim) {
      const { guard } = this.#holder;
      this.#holder = undefined;
      guard.release();
    }
    this.served.wakeAll();
  }

  /**
   * Makes the pool hold `frames` pages, or as many as adapter and budget allow. While others' uploads are under way it stays
   * as it is, unless it holds nothing or `wait` says to wait for them. Returns whether it has become larger.
   *
   * Locks: takes the placing lock.
   * @throws KernelError ENOMEM when not even the smallest pool fits the budget; ENODEV; EINTR
   */
  async grow(frames: number, wait: boolean, signal: AbortSignal | undefined): Promise<boolean> {
    using _placing = this.#placing.tryLock() ?? (await this.#placing.lock({ signal }));
    return await this.#grow(frames, wait, signal);
  }

  async #grow(frames: number, wait: boolean, signal: AbortSignal | undefined): Promise<boolean> {
    const { capacity } = this.#pool;
    if (capacity >= frames && capacity > 0) {
      return false;
    }
    const mayWait = wait || capacity === 0;
    using alone = this.serving.tryWrite() ?? (mayWait ? await this.serving.write({ signal }) : undefined);
    if (alone !== undefined) {
      await this.#pool.grow(frames, new Set(this.#bound.keys()));
    }
    return this.#pool.capacity > capacity;
  }

  /**
   * Gives every demanded page a frame, evicting others' frames if it has to, and free frames to prefetched pages.
   * Returns the demands with the prefetches that found room.
   *
   * Locks: takes the placing lock; may wait for the slices of other dispatches, with none of its frames claimed.
   * @throws KernelError ENOMEM when frames cannot be had; ENODEV; EINTR
   */
  async place(
    table: SvmTable,
    demands: readonly Demand[],
    prefetch: readonly Demand[],
    work: SvmWork,
  ): Promise<Demand[]> {
    const { claim, signal } = work;
    for (;;) {
      if (this.#holder !== undefined && this.#holder.claim !== claim) {
        await this.#waitForTurn(claim, signal);
      }
      const placed = await this.#tryPlace(table, demands, prefetch, work);
      if (placed === "being served") {
        await this.served.wait(() => !this.#pool.someServed(), { signal });
      } else if (placed === "crowded") {
        await this.#takeTurn(claim, signal);
      } else {
        return placed;
      }
    }
  }

  /**
   * Gives frames to pages that a slice will ask for when the running one is done: free ones, and those of pages that are
   * `behind` both and cost nothing. All of them get one, or none does. Nobody is waited for.
   */
  placeAhead(
    table: SvmTable,
    demands: readonly Demand[],
    behind: readonly Demand[],
    { claim, tally }: SvmWork,
  ): boolean {
    using placing = this.#placing.tryLock();
    if (placing === undefined || (this.#holder !== undefined && this.#holder.claim !== claim)) {
      return false;
    }
    const newcomers = demands.filter(({ page }) => table.frameAt(page) === undefined);
    const lacking = newcomers.length - this.#pool.freeFrames;
    if (lacking > 0) {
      const passed = behind.flatMap(({ page }) => table.frameAt(page) ?? []);
      if (!table.drop(passed, lacking)) {
        return false;
      }
      tally.evictions += lacking;
    }
    try {
      for (const { page } of newcomers) {
        const frame = table.place(page);
        if (frame !== undefined) {
          guess(frame, true);
        }
      }
      return true;
    } catch (error) {
      if (error instanceof KernelError) {
        return false;
      }
      throw error;
    }
  }

  /** Whoever is in the midst of a slice, and may have lost frames that it needs, is next. */
  async #waitForTurn(claim: FrameClaim, signal: AbortSignal | undefined): Promise<void> {
    const isMidway = claim.count() > 0;
    claim.clear();
    const guard = await this.#turn.lock({ signal });
    if (isMidway) {
      this.#holder = { claim, guard };
    } else {
      guard.release();
    }
  }

  async #takeTurn(claim: FrameClaim, signal: AbortSignal | undefined): Promise<void> {
    claim.clear();
    this.#holder = { guard: await this.#turn.lock({ signal }), claim };
  }

  async #tryPlace(
    table: SvmTable,
    demands: readonly Demand[],
    prefetch: readonly Demand[],
    work: SvmWork,
  ): Promise<Demand[] | "crowded" | "being served"> {
    const { claim, signal } = work;
    using _placing = this.#placing.tryLock() ?? (await this.#placing.lock({ signal }));
    if (this.#holder !== undefined && this.#holder.claim !== claim) {
      return "crowded";
    }
    await this.#grow(table.mappedPages, false, signal);
    const newcomers = demands.filter(({ page }) => table.frameAt(page) === undefined);
    const guessed = newcomers.filter(({ optional }) => optional).length;
    for (const { page, optional } of demands) {
      const frame = optional ? undefined : table.frameAt(page);
      if (frame !== undefined) {
        claim.add(frame);
      }
    }
    const pool = this.#pool;
    while (pool.freeFrames < newcomers.length) {
      // A few more than needed, so that dirty ones come home together; few enough that the rest of a small pool stays.
      const some = Math.min(EVICT_AT_ONCE, pool.capacity >> 4);
      const all = this.#holder?.claim === claim;
      const victims = pool.victims(Math.max(newcomers.length - pool.freeFrames, some), claim, all);
      if (victims.length > 0) {
        const evicted = await evictFrames(victims);
        work.tally.evictions += evicted;
        continue;
      }
      if (pool.freeFrames >= newcomers.length - guessed) {
        break;
      }
      if (pool.isCrowded(claim)) {
        return all ? "being served" : "crowded";
      }
      throw new KernelError(
        "ENOMEM",
        "dispatch",
        `${newcomers.length} device pages are needed and ${pool.freeFrames} of ${pool.capacity} frames can be had: raise deviceMemory`,
      );
    }
    return this.#assign(table, demands, prefetch, work);
  }

  #assign(table: SvmTable, demands: readonly Demand[], prefetch: readonly Demand[], work: SvmWork): Demand[] {
    const placed: Demand[] = [];
    const wantedFirst = (a: Demand, b: Demand) => Number(a.optional ?? false) - Number(b.optional ?? false);
    for (const demand of [...demands].sort((a, b) => wantedFirst(a, b) || a.page - b.page)) {
      const isNew = table.frameAt(demand.page) === undefined;
      const frame = table.frameAt(demand.page) ?? table.place(demand.page);
      if (frame !== undefined && demand.optional) {
        guess(frame, isNew || (frame.claims === 0 && !table.isResident(demand.page, false)));
        placed.push(demand);
      } else if (frame !== undefined) {
        work.claim.add(frame);
        frame.referenced = true;
        // It is there, if not for writing: who stores to it needs no bytes any more.
        work.tally.prefetchHits += frame.isPrefetched && table.isResident(demand.page, false) ? 1 : 0;
        frame.isPrefetched = false;
        frame.isGuess = false;
        placed.push(demand);
      }
    }
    for (const guessed of prefetch) {
      const { page, write } = guessed;
      const there = table.frameAt(page);
      const frame = there === undefined ? table.place(page) : undefined;
      if (frame !== undefined) {
        guess(frame, true);
      }
      if (frame !== undefined || (write && there?.isServed === false)) {
        placed.push(guessed);
      }
    }
    if (traceOn && prefetch.length > 0) {
      tracePrefetch(
        this.#device,
        table,
        prefetch.map(({ page }) => page),
      );
    }
    return placed;
  }
}

/** Its first use is to be noted; until then it is the first to go. */
function guess(frame: SvmFrame, isNew: boolean): void {
  if (isNew) {
    frame.isGuess = true;
    frame.referenced = false;
  }
}
