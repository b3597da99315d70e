/** Page frames: which page of which object, or which frame of which device, a pfn names. */
import { bugOn, KernelError, ledgerCount, PAGES_PER_BLOCK, type Pfn } from "../base/index.ts";
import type { DevicePagemap } from "./device-pagemap.ts";
import type { MemoryObject } from "./memory-object.ts";
import type { CpuMmu } from "./ports.ts";

/** Frames are handed out 512 at a time: 2^18 blocks, 512 GiB. */
const MAX_BLOCKS = 2 ** 18;

/** What 512 neighbouring frames are: pages of an object, or frames of a device. */
export type FrameBlock =
  | { readonly object: MemoryObject; readonly page: number; readonly pagemap?: undefined }
  | { readonly pagemap: DevicePagemap; readonly frame: number; readonly object?: undefined };

/** Allocations that {@link PhysicalMemory.charge} counts, for failure injection and messages. */
export type Allocation =
  | "page-table block"
  | "frame block"
  | "window"
  | "vma"
  | "memory object"
  | "address space"
  | "notifier"
  | "hmm";

/**
 * All page frames of one machine. Address spaces that share objects share one PhysicalMemory.
 *
 * A frame has no bytes of its own: the bytes of an object's page are wherever the object says (window, pager, source,
 * device). The number is what page tables and drivers exchange.
 */
export class PhysicalMemory {
  readonly mmu: CpuMmu;
  readonly #blocks: (FrameBlock | undefined)[] = [];
  readonly #free: number[] = [];
  #allocationsUntilFailure = Number.POSITIVE_INFINITY;

  constructor(mmu: CpuMmu) {
    this.mmu = mmu;
  }

  /** Names 512 frames. @throws KernelError ENOMEM when 512 GiB are in use */
  allocBlock(owner: FrameBlock): Pfn {
    this.charge("frame block");
    const index = this.#free.pop() ?? this.#blocks.length;
    if (index >= MAX_BLOCKS) {
      throw new KernelError("ENOMEM", "alloc", "all 512 GiB of page frames are in use: unmap something first");
    }
    this.#blocks[index] = owner;
    ledgerCount("frame block", 1);
    return (index * PAGES_PER_BLOCK) as Pfn;
  }

  freeBlock(pfn: number): void {
    const index = pfn / PAGES_PER_BLOCK;
    bugOn(this.#blocks[index] === undefined, "I-MM-8", () => `frame block ${pfn} is freed twice`);
    this.#blocks[index] = undefined;
    this.#free.push(index);
    ledgerCount("frame block", -1);
  }

  /** What the 512 frames around `pfn` are. */
  blockOf(pfn: number): FrameBlock | undefined {
    return this.#blocks[Math.floor(pfn / PAGES_PER_BLOCK)];
  }

  /**
   * The object's page that a pfn names: in system memory, or in coherent device memory. Undefined for a frame of private
   * device memory and for a free one.
   */
  pageOf(pfn: number): { readonly object: MemoryObject; readonly page: number } | undefined {
    const block = this.blockOf(pfn);
    if (block?.pagemap !== undefined) {
      const { pagemap, frame } = block;
      return pagemap.kind === "coherent" ? pagemap.homeOf(frame + (pfn % PAGES_PER_BLOCK)) : undefined;
    }
    return block === undefined ? undefined : { object: block.object, page: block.page + (pfn % PAGES_PER_BLOCK) };
  }

  /** Frames in use, in blocks of 512. */
  get blocksInUse(): number {
    return this.#blocks.length - this.#free.length;
  }

  /**
   * Counts one allocation. @throws KernelError ENOMEM when {@link failAfter} says so
   */
  charge(what: Allocation): void {
    if (this.#allocationsUntilFailure-- <= 0) {
      throw new KernelError("ENOMEM", "alloc", `out of memory for a ${what}`);
    }
  }

  /** For tests: the n-th allocation from now (0: the next) and all after it fail. No argument: none fails. */
  failAfter(n = Number.POSITIVE_INFINITY): void {
    this.#allocationsUntilFailure = n;
  }
}
