/** Device memory that holds pages of address spaces. */
import { invariant, PAGES_PER_BLOCK, type Pfn } from "../base/index.ts";
import type { MemoryObject } from "./memory-object.ts";
import { PageFlag } from "./page-flags.ts";
import type { PhysicalMemory } from "./physical-memory.ts";
import type { DevicePagemapOps } from "./ports.ts";

/**
 * What the CPU can do with the memory of a device: nothing (a touch brings the page home), or all that it can do with its
 * own.
 * @linux include/linux/memremap.h enum memory_type
 */
export type DeviceMemoryKind = "private" | "coherent";

/** A page of an object. */
export interface ObjectPage {
  readonly object: MemoryObject;
  readonly page: number;
}

/** Which pages were put into 512 frames last. */
interface FrameHomes {
  readonly objects: (MemoryObject | undefined)[];
  readonly pages: Uint32Array;
}

/**
 * Gives frames of a device's own memory numbers in the space of all pfns, so that a device-private entry can name them.
 *
 * @linux include/linux/memremap.h struct dev_pagemap (MEMORY_DEVICE_PRIVATE, MEMORY_DEVICE_COHERENT)
 */
export class DevicePagemap {
  readonly memory: PhysicalMemory;
  readonly ops: DevicePagemapOps;
  /** Whose memory it is: compared with `MmuNotifierRange.owner`. */
  readonly owner: object;
  readonly kind: DeviceMemoryKind;
  /** Block of 512 device frames -> the first pfn of that block. */
  readonly #pfns = new Map<number, Pfn>();
  readonly #homes = new Map<number, FrameHomes>();
  #nextFrame = 0;

  constructor(memory: PhysicalMemory, owner: object, ops: DevicePagemapOps, kind: DeviceMemoryKind = "private") {
    this.memory = memory;
    this.owner = owner;
    this.ops = ops;
    this.kind = kind;
  }

  /**
   * Names `count` new device frames that follow each other; returns the first. A multiple of 512 is reserved. Their pfns
   * need not follow each other: blocks that were freed anywhere are used again.
   * @throws KernelError ENOMEM
   */
  addFrames(count: number): number {
    const first = this.#nextFrame;
    const blocks = Math.ceil(count / PAGES_PER_BLOCK);
    try {
      for (let b = 0; b < blocks; b++) {
        const frame = first + b * PAGES_PER_BLOCK;
        this.#pfns.set(frame / PAGES_PER_BLOCK, this.memory.allocBlock({ pagemap: this, frame }));
      }
    } catch (error) {
      this.#removeBlocks(first / PAGES_PER_BLOCK, first / PAGES_PER_BLOCK + blocks);
      throw error;
    }
    this.#nextFrame += blocks * PAGES_PER_BLOCK;
    return first;
  }

  /** Takes back what {@link addFrames} named. No page may live there any more. */
  removeFrames(first: number, count: number): void {
    invariant(this.#pfns.has(first / PAGES_PER_BLOCK), "I-MIG-2", () => `device frames ${first} are removed twice`);
    this.#removeBlocks(first / PAGES_PER_BLOCK, (first + count) / PAGES_PER_BLOCK);
  }

  #removeBlocks(first: number, end: number): void {
    for (let b = first; b < end; b++) {
      const pfn = this.#pfns.get(b);
      if (pfn !== undefined) {
        this.#pfns.delete(b);
        this.#homes.delete(b);
        this.memory.freeBlock(pfn);
      }
    }
  }

  pfnOf(frame: number): Pfn {
    const base = this.#pfns.get(Math.floor(frame / PAGES_PER_BLOCK));
    invariant(base !== undefined, "I-MIG-2", () => `device frame ${frame} does not exist`);
    return (base + (frame % PAGES_PER_BLOCK)) as Pfn;
  }

  /** The frame that a pfn names, or undefined when it is not this device's. */
  frameOf(pfn: number): number | undefined {
    const block = this.memory.blockOf(pfn);
    return block?.pagemap === this ? block.frame + (pfn % PAGES_PER_BLOCK) : undefined;
  }

  /** @internal A page has been put into a frame. What was there before is forgotten. */
  noteHome(frame: number, object: MemoryObject, page: number): void {
    const index = Math.floor(frame / PAGES_PER_BLOCK);
    let homes = this.#homes.get(index);
    if (homes === undefined) {
      homes = { objects: new Array(PAGES_PER_BLOCK).fill(undefined), pages: new Uint32Array(PAGES_PER_BLOCK) };
      this.#homes.set(index, homes);
    }
    homes.objects[frame % PAGES_PER_BLOCK] = object;
    homes.pages[frame % PAGES_PER_BLOCK] = page;
  }

  /** The page that is in a frame now, or undefined when none is. @linux the page's rmap */
  homeOf(frame: number): ObjectPage | undefined {
    const homes = this.#homes.get(Math.floor(frame / PAGES_PER_BLOCK));
    const object = homes?.objects[frame % PAGES_PER_BLOCK];
    if (homes === undefined || object === undefined) {
      return undefined;
    }
    const page = homes.pages[frame % PAGES_PER_BLOCK];
    if (
      object.flagsOf(page) & (PageFlag.Device | PageFlag.Coherent) &&
      object.devicePfnOf(page) === this.pfnOf(frame)
    ) {
      return { object, page };
    }
    // It has left since: what is kept of it would keep the object alive.
    homes.objects[frame % PAGES_PER_BLOCK] = undefined;
    return undefined;
  }
}
