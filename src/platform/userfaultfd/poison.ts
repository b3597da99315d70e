/** Replacing memory whose bytes nobody can bring any more. */
import { Ioctl, MAP_FIXED, MAP_NORESERVE, MAP_PRIVATE, MFD_CLOEXEC, PROT_READ_WRITE } from "./abi.ts";
import { POISON_WORD } from "./fault-log.ts";
import type { Libc } from "./libc.ts";

/** The pattern's file, which is mapped over and over. */
const CHUNK = 2 * 2 ** 20;

/**
 * Puts the poison pattern under the memories, wakes everybody who waits for a page of them, and closes the descriptors,
 * of which the first is the userfaultfd. A page is the pattern or what it was, never zeros.
 */
export function poisonMemories(
  libc: Libc,
  memories: readonly SharedArrayBuffer[],
  descriptors: readonly number[],
): void {
  const file = libc.memfdCreate("pagemirror-poison", MFD_CLOEXEC);
  libc.ftruncate(file, CHUNK);
  const flags = MAP_PRIVATE | MAP_NORESERVE;
  const pattern = libc.mmap(0, CHUNK, PROT_READ_WRITE, 1, file, 0);
  libc.wordsAt(pattern, CHUNK).fill(POISON_WORD);
  for (const memory of memories) {
    const addr = libc.addressOf(memory);
    for (let at = 0; at < memory.byteLength; at += CHUNK) {
      const bytes = Math.min(CHUNK, memory.byteLength - at);
      libc.mmap(addr + at, bytes, PROT_READ_WRITE, flags | MAP_FIXED, file, 0);
    }
    libc.set(0, addr);
    libc.set(1, memory.byteLength);
    libc.ioctl(descriptors[0] ?? -1, Ioctl.Wake, libc.scratch);
  }
  libc.munmap(pattern, CHUNK);
  for (const fd of [file, ...descriptors]) {
    libc.close(fd);
  }
}
