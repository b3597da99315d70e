/** Replacing memory whose bytes nobody can bring any more. */
import { Ioctl, MAP_FIXED, MAP_NORESERVE, MAP_PRIVATE, MAP_SHARED, MFD_CLOEXEC, PROT_READ_WRITE } from "./abi.ts";
import { POISON_WORD } from "./fault-log.ts";
import type { Libc } from "./libc.ts";
import { ownDescriptor } from "./own-descriptor.ts";
import { mappedExtent, openMaps } from "./process-maps.ts";

/** Bytes of the pattern's file, which is mapped over and over: at least; and how often at most, as a process has so many maps. */
const CHUNK = 2 * 2 ** 20;
const MOST_CHUNKS = 4096;

/** Memory of an application that traps: of this library, or adopted, which its owner keeps. */
export type TrappedMemory =
  | { readonly buffer: SharedArrayBuffer }
  | { readonly buffer?: undefined; readonly address: number; readonly byteLength: number };

/** What poisoning takes, made before it is needed: by then the process may have no descriptor left. */
export class Poison {
  readonly #libc: Libc;
  readonly #file: number;
  readonly #maps: number;

  constructor(libc: Libc) {
    this.#libc = libc;
    this.#file = ownDescriptor(libc, libc.memfdCreate("pagemirror-poison", MFD_CLOEXEC)).fd;
    this.#maps = ownDescriptor(libc, openMaps(libc)).fd;
  }

  /** Puts the poison pattern under the memories, and wakes everybody who waits for a page of them. */
  spread(memories: readonly TrappedMemory[], uffd: number): void {
    const libc = this.#libc;
    const total = memories.reduce((sum, memory) => sum + (memory.buffer ?? memory).byteLength, 0);
    let chunk = CHUNK;
    while (chunk * MOST_CHUNKS < total) {
      chunk *= 2;
    }
    this.#fill(chunk);
    for (const memory of memories) {
      const addr = memory.buffer === undefined ? memory.address : libc.addressOf(memory.buffer);
      const bytes = (memory.buffer ?? memory).byteLength;
      // What an adopted memory has not grown into stays out of reach.
      const end =
        addr + (memory.buffer === undefined ? Math.min(bytes, mappedExtent(this.#maps, addr).accessible) : bytes);
      for (let at = addr; at < end; at += chunk) {
        const flags = MAP_PRIVATE | MAP_NORESERVE | MAP_FIXED;
        libc.mmap(at, Math.min(chunk, end - at), PROT_READ_WRITE, flags, this.#file, 0);
      }
      libc.set(0, addr);
      libc.set(1, bytes);
      // And when it grows nobody waits there.
      libc.ioctl(uffd, Ioctl.Unregister, libc.scratch);
      libc.ioctl(uffd, Ioctl.Wake, libc.scratch);
    }
  }

  #fill(bytes: number): void {
    const libc = this.#libc;
    libc.ftruncate(this.#file, bytes);
    const pattern = libc.mmap(0, bytes, PROT_READ_WRITE, MAP_SHARED, this.#file, 0);
    if (pattern > 0) {
      libc.wordsAt(pattern, bytes).fill(POISON_WORD);
      libc.munmap(pattern, bytes);
    }
  }
}
