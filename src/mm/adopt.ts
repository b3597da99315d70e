/** Memory that exists already, as a mapping: the heap of a WebAssembly program. */
import { assertOptions, KernelError, PAGE_SIZE, quote } from "../base/index.ts";
import type { AddressSpace } from "./address-space.ts";
import type { Lease } from "./lease.ts";
import type { Mapping } from "./mapping.ts";
import { MemoryObject } from "./memory-object.ts";
import { mprotect } from "./mprotect.ts";
import { PageFlag } from "./page-flags.ts";
import type { AdoptableMemory } from "./ports.ts";

/** Options of {@link adopt}. */
export interface AdoptOptions {
  /** Bytes that the memory may grow to, as it was made with. Default: what it has now. */
  readonly maximum?: number | undefined;
  readonly name?: string | undefined;
}

const MAX_BYTES = 2 ** 32;

/** Bytes that a memory has now. @throws KernelError EINVAL it is none */
export function adoptableBytes(memory: AdoptableMemory): number {
  // By its tag, as it may be of another realm; other shared memory has neighbours, or is a mapping.
  if (Object.prototype.toString.call(memory) === "[object WebAssembly.Memory]" && "buffer" in memory) {
    return memory.buffer.byteLength;
  }
  if (typeof memory !== "object" || memory === null || !("address" in memory)) {
    throw new KernelError("EINVAL", "adopt", "what is adopted is no memory: give a WebAssembly.Memory");
  }
  return memory.byteLength;
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
export async function adopt(mm: AddressSpace, memory: AdoptableMemory, options: AdoptOptions = {}): Promise<Mapping> {
  assertOptions("adopt", options);
  const { maximum, name = "adopted" } = options;
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
      `${name}: a maximum of ${quote(length)} bytes does not fit a memory of ${bytes}: give what it was made with, at most 4 GiB`,
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
  } catch (error) {
    object.windows.trapAt(0)?.trap.giveBack?.();
    throw error;
  } finally {
    await object.put();
  }
}

/**
 * Ends an adoption: the bytes come home, the memory is its owner's alone again, and the mapping goes. Of pages that were lost
 * with their device an MMU that traps gives poison back. An adopted mapping that goes any other way may leave zeros. Nobody
 * may use the memory until this resolves.
 * @throws KernelError as mprotect, Mapping.lease, but for EHWPOISON, and munmap; ENOMEM there is no room to give it back: try again
 */
export async function disown(mapping: Mapping): Promise<void> {
  const { mm, start } = mapping;
  const object = mm.vmas.find(start)?.object;
  if (object !== undefined) {
    // Whatever its program may do with it: its owner may do all.
    await mprotect(mm, start, mapping.length, "rw");
    using _leases = await leaseWhatIsLeft(mapping, object);
    object.windows.trapAt(0)?.trap.giveBack?.();
  }
  await mapping.munmap();
}

/** Leases all pages but those that were lost. */
async function leaseWhatIsLeft(mapping: Mapping, object: MemoryObject): Promise<Disposable> {
  const leases: Lease[] = [];
  const release = () => {
    for (const lease of leases.splice(0)) {
      lease.release();
    }
  };
  for (;;) {
    try {
      for (const { page, end } of runsThatAreLeft(object)) {
        leases.push(await mapping.lease("rw", { offset: page * PAGE_SIZE, length: (end - page) * PAGE_SIZE }));
      }
      return { [Symbol.dispose]: release };
    } catch (error) {
      release();
      // Another page was lost meanwhile, or the device with all of its.
      if (!(error instanceof KernelError && error.code === "EHWPOISON")) {
        throw error;
      }
    }
  }
}

function runsThatAreLeft(object: MemoryObject): { readonly page: number; readonly end: number }[] {
  const runs: { page: number; end: number }[] = [];
  const isLost = (page: number) => (object.flagsOf(page) & PageFlag.Poisoned) !== 0;
  for (let page = 0; page < object.pages; page++) {
    const last = runs.at(-1);
    if (isLost(page)) {
      continue;
    }
    if (last?.end === page) {
      last.end++;
    } else {
      runs.push({ page, end: page + 1 });
    }
  }
  return runs;
}
