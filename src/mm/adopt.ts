/** Memory that exists already, as a mapping: the heap of a WebAssembly program. */
import { KernelError, PAGE_SIZE } from "../base/index.ts";
import type { AddressSpace } from "./address-space.ts";
import type { Mapping } from "./mapping.ts";
import { MemoryObject, PageFlag } from "./memory-object.ts";
import type { AdoptableMemory } from "./ports.ts";

/** Options of {@link adopt}. */
export interface AdoptOptions {
  /** Bytes that the memory may grow to, as it was made with. Default: what it has now. */
  readonly maximum?: number | undefined;
  readonly name?: string | undefined;
}

const MAX_BYTES = 2 ** 32;

/** Bytes that a memory has now. @throws KernelError EINVAL it is none */
export function adoptableBytes(
  memory: { readonly buffer?: ArrayBufferLike; readonly byteLength?: number } | undefined,
): number {
  const bytes = memory?.buffer?.byteLength ?? memory?.byteLength;
  if (bytes === undefined || ArrayBuffer.isView(memory)) {
    throw new KernelError("EINVAL", "adopt", "what is adopted is no memory: give a WebAssembly.Memory");
  }
  return bytes;
}

/**
 * Maps memory that exists, from its first byte to its maximum: byte p of it is at `mapping.start + p`. What the memory
 * grows by later is there without another call.
 *
 * Nobody may use the memory until this resolves. On an MMU that traps, plain accesses are all it takes from then on; on
 * another one they need leases, as those of any mapping.
 * Locks: takes mmapLock, write.
 * @throws KernelError EINVAL a size that is not whole pages, over 4 GiB, or over what the memory reserved; ENOTSUP the MMU
 *   cannot; ENOMEM; ESRCH
 */
export async function adopt(
  mm: AddressSpace,
  memory: AdoptableMemory,
  { maximum, name = "adopted" }: AdoptOptions = {},
): Promise<Mapping> {
  const { mmu } = mm.memory;
  const bytes = adoptableBytes(memory);
  const length = maximum ?? bytes;
  if (
    !Number.isSafeInteger(length) ||
    length < bytes ||
    length > MAX_BYTES ||
    length % PAGE_SIZE !== 0 ||
    bytes % PAGE_SIZE !== 0 ||
    length === 0
  ) {
    throw new KernelError(
      "EINVAL",
      "adopt",
      `${name}: a maximum of ${length} bytes does not fit a memory of ${bytes}: give what it was made with, at most 4 GiB`,
    );
  }
  if (mmu.adoptWindow === undefined) {
    throw new KernelError("ENOTSUP", "adopt", `the ${mmu.name} MMU has no way to: use another one`);
  }
  const pages = length / PAGE_SIZE;
  const object = new MemoryObject(mm.memory, { pages });
  try {
    object.reserve(0, bytes / PAGE_SIZE);
    object.windows.adopt(mmu.adoptWindow(memory, length, object));
    object.updateFlags(0, bytes / PAGE_SIZE, PageFlag.Uptodate | PageFlag.Own | PageFlag.Used, 0);
    return await mm.mmap({ length, object, shared: true, name });
  } finally {
    await object.put();
  }
}

/**
 * Ends an adoption: the bytes come home, the memory is its owner's alone again, and the mapping goes. An adopted mapping
 * that goes any other way may leave zeros. Nobody may use the memory until this resolves.
 * @throws KernelError as Mapping.lease and munmap
 */
export async function disown(mapping: Mapping): Promise<void> {
  const { mm, start } = mapping;
  const object = mm.vmas.find(start)?.object;
  if (object !== undefined) {
    using _lease = await mapping.lease("rw");
    object.windows.trapAt(0)?.trap.giveBack?.();
  }
  await mapping.munmap();
}
