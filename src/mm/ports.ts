/**
 * What `mm` needs from its neighbours, declared below everyone who implements or calls it.
 *
 * `mm` imports no notifier, no driver and no platform: mmu-notifier implements {@link MmNotifierHooks}, platforms
 * implement {@link CpuMmu} and {@link Pager}, and drivers with memory of their own implement {@link DevicePagemapOps}.
 */
import type { MaybePromise, VirtAddr } from "../base/index.ts";
import type { AddressSpace } from "./address-space.ts";
import type { MemoryObject } from "./memory-object.ts";
import type { Vma } from "./vma.ts";

/** Why CPU page tables change. @linux include/linux/mmu_notifier.h enum mmu_notifier_event */
export type MmuNotifyEvent =
  | "unmap"
  | "clear"
  | "protection-vma"
  | "protection-page"
  | "soft-dirty"
  | "release"
  | "migrate"
  | "exclusive";

/** One invalidation. @linux include/linux/mmu_notifier.h struct mmu_notifier_range */
export interface MmuNotifierRange {
  readonly mm: AddressSpace;
  /** Inclusive, page aligned. */
  readonly start: VirtAddr;
  /** Exclusive, page aligned. */
  readonly end: VirtAddr;
  /** False: callbacks must not wait; they answer EAGAIN instead. */
  readonly blockable: boolean;
  readonly event: MmuNotifyEvent;
  readonly vma?: Vma | undefined;
  /**
   * When many pages change at once: the parts of the range that do, as starts and ends, in order, no page twice.
   * Whoever does not look lets go of more than he must; `forEachPart` and `changesIn` look.
   */
  readonly parts?: Float64Array | undefined;
  /** For `protection-vma`: the permissions of the range's mappings after the change, as `VmFlags`. */
  readonly vmFlags?: number | undefined;
  /** For `migrate` and `exclusive`: whose doing it is, so that the owner's own callback can let it pass. */
  readonly owner?: object | undefined;
}

/**
 * The subscriptions of one address space, as its `mm.notifiers` field holds them.
 *
 * All but `destroy` may be called under the mmap lock. Calls are synchronous when no callback has to wait.
 */
export interface MmNotifierHooks {
  /** Before PTEs in the range change. EAGAIN (non-blockable only): do not change them and do not call end. */
  invalidateRangeStart(range: MmuNotifierRange): MaybePromise<0 | "EAGAIN">;
  /** After the change. */
  invalidateRangeEnd(range: MmuNotifierRange): MaybePromise<void>;
  /** The last user is gone; called once, before anything is unmapped. */
  release(): MaybePromise<void>;
  /** The last reference to the structure is gone. */
  destroy(): void;
}

/** Bytes behind a memory object: a file, a URL, a custom source. Offsets are page aligned. */
export interface Pager {
  /** For messages: a path, a URL. */
  readonly name: string;
  /** Bytes in the backing store. */
  readonly length: number;
  readonly writable: boolean;
  /** Fills `dst` from `offset`; past the end with zeros. @throws KernelError EIO */
  read(offset: number, dst: Uint8Array): MaybePromise<void>;
  /** Bytes that {@link near} may be asked for before they are read; a pager without it is as near as it gets. */
  readonly nearBytes?: number;
  /**
   * Brings bytes near, so that a read of them soon after does not wait: callers wait for this without the locks that they
   * read under. Undefined when nothing has to come. Never rejects: the read does.
   */
  near?(offset: number, length: number): Promise<void> | undefined;
  /** Writes back; never past `length`. @throws KernelError EIO, ENOSPC */
  write(offset: number, src: Uint8Array): MaybePromise<void>;
  /** Makes earlier writes durable. */
  sync(): MaybePromise<void>;
  close(): MaybePromise<void>;
}

/** The CPU's view of a piece of a memory object: page-aligned bytes that never move while they exist. */
export interface CpuWindow {
  /** Shared, so that workers and wasm can use it, wherever the platform lets memory be shared. */
  readonly buffer: ArrayBufferLike;
  readonly byteOffset: number;
  readonly byteLength: number;
  /** The same bytes for plain arrays of applications, where the MMU can trap them. */
  readonly trap?: CpuTrap | undefined;
  /** Of adopted memory without a trap: its object is gone. */
  release?(): void;
}

/**
 * A window as applications see it through plain arrays: a page is shown to them or absent, and an access to an absent one
 * waits until it is served. Pages are counted from the window's start. All calls are synchronous.
 */
export interface CpuTrap {
  readonly buffer: SharedArrayBuffer;
  readonly byteOffset: number;
  /** Makes pages absent. False when one was written since it was last collected: {@link CpuTrap.collectWritten} has it. */
  unmap(page: number, end: number): boolean;
  /** Accesses to absent pages wait until disposed. */
  hold(page: number, end: number): Disposable;
  /** Calls `visit` for each run of pages that was written since the last call, and watches them anew. */
  collectWritten(page: number, end: number, visit: (page: number, end: number) => void): void;
  /** Makes pages absent and their bytes zeros. What was written to them does not matter any more. */
  discard(page: number, end: number): void;
  /** The object has a longer window: this one goes, and what was written in it counts as written in `next`. */
  moveTo(next: CpuTrap): void;
  /** Of adopted memory: its owner has the bytes for himself again. */
  giveBack?(): void;
  /** The object is gone: arrays that are still there see zeros, and their writes go nowhere. */
  release(): void;
}

/** A WebAssembly.Memory, or where one is in this process. */
export type AdoptableMemory =
  | { readonly buffer: ArrayBufferLike }
  | { readonly address: number; readonly byteLength: number };

/** How the CPU reaches managed memory. */
export interface CpuMmu {
  readonly name: "software" | "userfaultfd";
  /** True when its windows have a {@link CpuTrap}. */
  readonly traps?: boolean;
  /**
   * Zeroed, page-aligned memory, committed lazily, for the pages of `object` from `page` on. `byteLength` is at most 4 GiB.
   * @throws KernelError ENOMEM
   */
  createWindow(byteLength: number, object?: MemoryObject, page?: number): CpuWindow;
  /**
   * A window over memory that exists, for all pages of `object`; `maximum` bytes, of which the memory may have less yet.
   * @throws KernelError EINVAL the memory has not reserved so much; ENOMEM
   */
  adoptWindow?(memory: AdoptableMemory, maximum: number, object: MemoryObject): CpuWindow;
}

/** A run of pages of one object that a device owns, in device frames that follow each other. */
export interface DeviceRun {
  readonly object: MemoryObject;
  /** First page, counted from the object's start. */
  readonly page: number;
  readonly count: number;
  /** Device frame of the first page, counted from the pagemap's start. */
  readonly frame: number;
}

/** What a driver with memory of its own does for the pages in it. @linux include/linux/memremap.h struct dev_pagemap_ops */
export interface DevicePagemapOps {
  /**
   * The CPU needs these pages: waits until the device no longer writes them and hands their bytes to `take`, in order
   * within a run. On return the device may keep a read-only copy; the pages are the host's.
   * Rejecting with ENODEV poisons the pages.
   */
  migrateToRam(
    runs: readonly DeviceRun[],
    take: (run: DeviceRun, byteOffset: number, bytes: Uint8Array) => void,
  ): Promise<void>;
  /** The pages are gone (unmapped, dropped): their frames are free. Synchronous, called once for each owned page. */
  pageFree(frame: number, count: number): void;
}
