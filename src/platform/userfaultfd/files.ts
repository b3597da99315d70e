/** The descriptors of one MMU. */
import { KernelError } from "../../base/index.ts";
import { CLOEXEC, MFD_CLOEXEC } from "./abi.ts";
import type { Libc } from "./libc.ts";
import { duplicate, type OwnDescriptor, ownDescriptor } from "./own-descriptor.ts";
import { type MappedExtent, mappedExtent, openMaps } from "./process-maps.ts";

/** The file is as long as anybody could ever want; it has pages only where something was written. */
export const FILE_BYTES = 2 ** 46;

/** What the file behind managed memory is called in /proc/self/maps. */
export const FILE_NAME = "pagemirror";

/** A userfaultfd, the file behind its memory, and what the kernel tells of the process's pages and maps. */
export class UffdFiles {
  readonly uffd: number;
  readonly memory: number;
  readonly pagemap: number;
  readonly #maps: number;
  readonly #libc: Libc;
  readonly #own: readonly OwnDescriptor[];

  /** Takes the userfaultfd over. @throws KernelError ENOMEM; the userfaultfd is closed then */
  constructor(libc: Libc, uffd: number) {
    const memory = libc.memfdCreate(FILE_NAME, MFD_CLOEXEC);
    const files = [uffd, memory, libc.open("/proc/self/pagemap", CLOEXEC), openMaps(libc)];
    if (Math.min(...files) < 0 || libc.ftruncate(memory, FILE_BYTES) !== 0) {
      const why = `no file for the memory (errno ${libc.errno}): free descriptors`;
      for (const fd of files) {
        libc.close(fd);
      }
      throw new KernelError("ENOMEM", "open", why);
    }
    this.#libc = libc;
    this.#own = files.map((fd) => ownDescriptor(libc, fd));
    [this.uffd, this.memory, this.pagemap, this.#maps] = this.#own.map(({ fd }) => fd);
  }

  /** Another descriptor of the userfaultfd, for whoever has to clean up after this thread. @throws KernelError ENOMEM */
  duplicate(): number {
    return duplicate(this.#libc, this.uffd);
  }

  /** What the process has mapped at an address range. */
  extent(address: number, bytes = 0): MappedExtent {
    return mappedExtent(this.#maps, address, bytes);
  }

  close(): void {
    for (const own of this.#own) {
      own.close();
    }
  }
}
