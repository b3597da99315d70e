/** Replacing memory whose bytes nobody can bring any more. */
import { Ioctl, MAP_FIXED, MAP_NORESERVE, MAP_PRIVATE, MFD_CLOEXEC, PROT_READ_WRITE } from "./abi.ts";
import { POISON_WORD } from "./fault-log.ts";
import type { Libc } from "./libc.ts";
import { mappedExtent } from "./process-maps.ts";

/** The pattern's file, which is mapped over and over. */
const CHUNK = 2 * 2 ** 20;

/** Memory of an application that traps: of this library, or adopted, which its owner keeps. */
export type TrappedMemory =
  | { readonly buffer: SharedArrayBuffer }
  | { readonly buffer?: undefined; readonly address: number; readonly byteLength: number };

/** Puts the poison pattern under the memories, and wakes everybody who waits for a page of them. */
export function poisonMemories(libc: Libc, memories: readonly TrappedMemory[], uffd: number): void {
  const file = libc.memfdCreate("pagemirror-poison", MFD_CLOEXEC);
  libc.ftruncate(file, CHUNK);
  const flags = MAP_PRIVATE | MAP_NORESERVE;
  const pattern = libc.mmap(0, CHUNK, PROT_READ_WRITE, 1, file, 0);
  libc.wordsAt(pattern, CHUNK).fill(POISON_WORD);
  for (const memory of memories) {
    const addr = memory.buffer === undefined ? memory.address : libc.addressOf(memory.buffer);
    // What an adopted memory has not grown into stays out of reach.
    const bytes =
      memory.buffer === undefined
        ? Math.min(memory.byteLength, mappedExtent(addr).accessible)
        : memory.buffer.byteLength;
    for (let at = 0; at < bytes; at += CHUNK) {
      libc.mmap(addr + at, Math.min(CHUNK, bytes - at), PROT_READ_WRITE, flags | MAP_FIXED, file, 0);
    }
    libc.set(0, addr);
    libc.set(1, bytes);
    libc.ioctl(uffd, Ioctl.Wake, libc.scratch);
  }
  libc.munmap(pattern, CHUNK);
  libc.close(file);
}
