/** mmap: new mappings. */
import {
  ADDRESS_LIMIT,
  assertOptions,
  BLOCK_SIZE,
  isPageAligned,
  KernelError,
  mustAddLength,
  PAGE_SIZE,
  pageAlignUp,
  quote,
  traceOn,
  type VirtAddr,
} from "../base/index.ts";
import type { AddressSpace } from "./address-space.ts";
import { SVM_APERTURE_BASE, SVM_FIRST_BYTE } from "./aperture.ts";
import { Mapping } from "./mapping.ts";
import { MemoryObject } from "./memory-object.ts";
import { unmapRange } from "./munmap.ts";
import { assertLength, pageRange } from "./range-args.ts";
import { traceMap } from "./trace-mm.ts";
import { type Prot, protFlags, Vma, VmFlags } from "./vma.ts";
import { chargeCuts, linkVma, mergeAround } from "./vma-ops.ts";
import { releaseObjects } from "./writeback.ts";

/** Mappings begin at multiples of this when they are placed: devices see memory in pages of 16 KiB. */
const PLACEMENT_ALIGN = 16_384;

/** What is mapped, and where. */
export interface MmapOptions {
  /** Bytes; the mapping covers whole pages. */
  readonly length: number;
  /** A wish, or with `fixed` the place. Page aligned. */
  readonly addr?: number | undefined;
  /** Map at `addr` and nowhere else; what is mapped there goes. @linux MAP_FIXED */
  readonly fixed?: boolean | undefined;
  /** Default "rw". */
  readonly prot?: Prot | undefined;
  /** Writes reach the object and everybody who maps it. Default: a private, copy-on-write mapping. @linux MAP_SHARED */
  readonly shared?: boolean | undefined;
  /** What to map; default: zeros. The mapping takes a reference of its own. */
  readonly object?: MemoryObject | undefined;
  /** Byte of the object at which the mapping begins. Page aligned. */
  readonly offset?: number | undefined;
  /** For messages and maps. */
  readonly name?: string | undefined;
  /** Further {@link VmFlags} (Io, PfnMap, MixedMap), for drivers that map their registers. */
  readonly vmFlags?: number | undefined;
}

const op = "mmap";

/**
 * Maps memory.
 *
 * Locks: takes mmapLock, write.
 * @throws KernelError EINVAL a bad length, address, offset or protection; EACCES writable shared mapping of a read-only object; ENOMEM no
 *   room, or out of memory (nothing has changed); ESRCH the space has exited; EIO writing back what a fixed mapping replaced
 * @linux mm/mmap.c do_mmap
 */
export async function mmap(mm: AddressSpace, options: MmapOptions): Promise<Mapping> {
  assertOptions(op, options);
  const { prot = "rw", shared = false, offset = 0, object, name = "" } = options;
  assertLength(op, options.length);
  const flags = protFlags(prot, op) | (shared ? VmFlags.Shared : 0) | (options.vmFlags ?? 0);
  if (!Number.isSafeInteger(offset) || offset < 0 || !isPageAligned(offset)) {
    throw new KernelError("EINVAL", op, `offset ${offset} is not a multiple of the page size ${PAGE_SIZE}`);
  }
  if (typeof name !== "string") {
    throw new KernelError("EINVAL", op, `the name is ${quote(name)}: give a string`);
  }
  if (object !== undefined && object.memory !== mm.memory) {
    throw new KernelError(
      "EINVAL",
      op,
      "the object is none of this machine: give what openFile() or openUrl() resolved to",
    );
  }
  if (shared && prot === "rw" && object?.pager?.writable === false) {
    throw new KernelError("EACCES", op, `${object.pager.name} is read-only: map it privately, or with prot "r"`);
  }
  if (options.fixed && options.addr === undefined) {
    throw new KernelError("EINVAL", op, "a fixed mapping needs an address: give addr");
  }
  // As fget's: its owner may put it while this waits for the lock.
  object?.get();
  try {
    return await mapObject(mm, options, flags);
  } finally {
    await object?.put();
  }
}

async function mapObject(mm: AddressSpace, options: MmapOptions, flags: number): Promise<Mapping> {
  const { shared = false, offset = 0, object } = options;
  using _lock = await mm.mmapLock.write();
  mm.assertAlive(op);
  const bytes = pageAlignUp(options.length);
  const start = place(mm, options, bytes);
  const end = mustAddLength(start, bytes);
  mm.memory.charge("vma");
  if (options.fixed) {
    chargeCuts(mm, start, end);
  }
  const pages = bytes / PAGE_SIZE;
  const backing = backingObject(mm, { object, shared, page: offset / PAGE_SIZE, pages });
  const vma = new Vma({
    mm,
    start,
    end,
    flags,
    object: backing.object,
    pgoff: backing.pgoff,
    name: options.name ?? object?.pager?.name ?? "anon",
  });
  let replaced: MemoryObject[] = [];
  if (options.fixed) {
    try {
      replaced = await unmapRange(mm, start, end);
    } catch (error) {
      await vma.object.put();
      throw error;
    }
  }
  linkVma(vma);
  if (traceOn) {
    traceMap(vma);
  }
  await releaseObjects([...replaced, ...mergeAround(mm, start, end)]);
  return new Mapping(mm, start, options.length, vma.name);
}

function backingObject(
  mm: AddressSpace,
  want: { object: MemoryObject | undefined; shared: boolean; page: number; pages: number },
): { object: MemoryObject; pgoff: number } {
  if (want.object === undefined) {
    return { object: new MemoryObject(mm.memory, { pages: want.pages }), pgoff: 0 };
  }
  if (want.shared) {
    return { object: want.object.get(), pgoff: want.page };
  }
  return {
    object: new MemoryObject(mm.memory, { pages: want.pages, source: { object: want.object, page: want.page } }),
    pgoff: 0,
  };
}

/** @throws KernelError EINVAL, ENOMEM */
function place(mm: AddressSpace, options: MmapOptions, bytes: number): VirtAddr {
  if (options.addr !== undefined) {
    const wish = pageRange("mmap", options.addr, options.length);
    const inTheWay = mm.vmas.findNext(wish.start);
    if (options.fixed || inTheWay === undefined || inTheWay.start >= wish.end) {
      return wish.start;
    }
  }
  const gap = findFreeRange(mm, bytes);
  if (gap === undefined) {
    throw new KernelError("ENOMEM", "mmap", `no free range of ${bytes} bytes in the address space: unmap something`);
  }
  return gap;
}

/** A free range for a mapping; big ones begin at a 2 MiB boundary, so that they fill page-table blocks. */
export function findFreeRange(mm: AddressSpace, bytes: number): VirtAddr | undefined {
  const align = bytes >= BLOCK_SIZE ? BLOCK_SIZE : PLACEMENT_ALIGN;
  const low = SVM_APERTURE_BASE + SVM_FIRST_BYTE;
  const gap =
    mm.vmas.findGap(bytes, low, ADDRESS_LIMIT, align, "bottom-up") ??
    mm.vmas.findGap(bytes, BLOCK_SIZE, SVM_APERTURE_BASE, align, "bottom-up");
  return gap as VirtAddr | undefined;
}
