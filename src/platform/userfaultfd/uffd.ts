/** One userfaultfd, the file behind its memory, and the page map: the operations on page ranges, by address. */
import { KernelError, PAGE_SIZE } from "../../base/index.ts";
import {
  CONTINUE_WP,
  COPY_WP,
  ErrnoNumber,
  EVENT_PAGEFAULT,
  FALLOC_PUNCH_HOLE,
  FAULT_MINOR,
  FAULT_WRITE,
  Ioctl,
  MADV_DONTNEED,
  MAP_ANONYMOUS,
  MAP_FIXED,
  MAP_NORESERVE,
  MAP_PRIVATE,
  MAP_SHARED,
  MREMAP_TO,
  MSG_BYTES,
  PAGE_IS_WRITTEN,
  POLLIN,
  PROT_READ,
  PROT_READ_WRITE,
  REGISTER_MINOR,
  REGISTER_MISSING,
  REGISTER_WP,
  SCAN_ARG_BYTES,
  SCAN_CHECK_WPASYNC,
  SCAN_REGION_WORDS,
  SCAN_WP_MATCHING,
} from "./abi.ts";
import { openUffd } from "./descriptor.ts";
import { UffdFiles } from "./files.ts";
import { Libc, TWO_32, type Watch } from "./libc.ts";

/** Where in the scratch memory things are; the first 4 KiB are the arguments. */
const SHOW_ONE_AT = 2048;
const REGIONS_AT = 4096;
const MAX_REGIONS = 1024;
const MESSAGES_AT = 32_768;
const MAX_MESSAGES = 64;
/** Pages of zeros to copy from: those of the largest fault-around. */
const ZEROS_BYTES = 512 * PAGE_SIZE;
/** Reads of one turn of the event loop: other work gets its turn too. */
const MAX_READS = 200;
/** `inFile`: the file has the page, only the application's side does not show it. */
type FaultListener = (address: number, inFile: boolean, write: boolean) => void;

/** The descriptors of one MMU. Faults are told to `onFault` from the event loop. */
export class Uffd {
  readonly libc: Libc;
  readonly files: UffdFiles;
  readonly systemCalls: boolean;
  readonly #fd: number;
  readonly #memfd: number;
  readonly #pagemap: number;
  readonly #watch: Watch;
  /** Read only, and never anything but zeros. */
  readonly #zeros: number;
  readonly #words: Uint32Array;
  /** Address of the argument that shows one page: all of it but the page's address is written once. */
  readonly #oneArg: number;
  #fileUsed = 0;
  #scanEnd = 0;
  #closed = false;
  #stopped = false;

  private constructor(libc: Libc, files: UffdFiles, systemCalls: boolean, onFault: FaultListener, onTurn: () => void) {
    this.libc = libc;
    this.#words = libc.words;
    this.#oneArg = libc.scratch + SHOW_ONE_AT;
    libc.set(SHOW_ONE_AT / 8 + 1, PAGE_SIZE);
    libc.set(SHOW_ONE_AT / 8 + 2, CONTINUE_WP);
    this.systemCalls = systemCalls;
    this.files = files;
    this.#fd = files.uffd;
    this.#memfd = files.memory;
    this.#pagemap = files.pagemap;
    this.#zeros = libc.mmap(0, ZEROS_BYTES, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    this.#watch = libc.watch(files.uffd, () => {
      try {
        onTurn();
        this.#drain(onFault);
      } catch (error) {
        // Thrown where no native frame is below: an error that passes through one takes the process along.
        setImmediate(() => {
          throw error;
        });
      }
    });
  }

  /** `onTurn` is called before some faults are served. @throws KernelError ENOTSUP with the reason and the remedy; ENOMEM. NoLibc as Libc.load */
  static open(onFault: FaultListener, onTurn: () => void): Uffd {
    const libc = Libc.load();
    const found = openUffd(libc);
    if (!("fd" in found)) {
      libc.dispose();
      throw new KernelError("ENOTSUP", "open", `${found.why}: ${found.remedy}`);
    }
    let files: UffdFiles;
    try {
      files = new UffdFiles(libc, found.fd);
    } catch (error) {
      libc.dispose();
      throw error;
    }
    return new Uffd(libc, files, found.systemCalls, onFault, onTurn);
  }

  /** Serves what is waiting now, without waiting. */
  #drain(onFault: FaultListener): void {
    const { libc } = this;
    const words = this.#words;
    const messages = libc.scratch + MESSAGES_AT;
    let yielded = false;
    for (let i = 0; i < MAX_READS && !this.#closed; i++) {
      const bytes = libc.read(this.#fd, messages, MAX_MESSAGES * MSG_BYTES);
      if (bytes <= 0) {
        // Who was just woken on this processor often faults again at once: cheaper than going round the event loop. Not
        // before this read: mostly who is woken runs at once, and his next fault is there already.
        if (yielded || i === 0) {
          return;
        }
        yielded = true;
        libc.schedYield();
        continue;
      }
      yielded = false;
      // Serving one fault uses the scratch memory's first part only: the messages stay.
      for (let w = MESSAGES_AT / 4; w < (MESSAGES_AT + bytes) / 4; w += MSG_BYTES / 4) {
        if ((words[w] & 0xff) === EVENT_PAGEFAULT) {
          const flags = words[w + 2];
          onFault(words[w + 4] + words[w + 5] * TWO_32, (flags & FAULT_MINOR) !== 0, (flags & FAULT_WRITE) !== 0);
        }
      }
    }
  }

  /** Lets this thread sleep until a fault comes, or the time is over. */
  sleep(ms: number): void {
    const { libc } = this;
    if (this.#stopped) {
      return;
    }
    // struct pollfd: fd i32 @0, events i16 @4; struct timespec.
    libc.words[0] = this.#fd;
    libc.words[1] = POLLIN;
    libc.set(1, 0);
    libc.set(2, ms * 1e6);
    libc.ppoll(libc.scratch, 1, libc.scratch + 8, 0);
  }

  /** A stretch of the file that nobody had before. */
  reserveFile(bytes: number): number {
    const at = this.#fileUsed;
    this.#fileUsed += bytes;
    return at;
  }

  /** Puts bytes of the file under an address range that exists. @throws KernelError ENOMEM */
  mapFile(addr: number, bytes: number, offset: number): void {
    const flags = MAP_SHARED | MAP_FIXED | MAP_NORESERVE;
    if (this.libc.mmap(addr, bytes, PROT_READ_WRITE, flags, this.#memfd, offset) !== addr) {
      throw new KernelError("ENOMEM", "mmap", `no room for a window of ${bytes} bytes (errno ${this.libc.errno})`);
    }
  }

  /**
   * Puts a stretch of the file in the place of memory that somebody uses: `bytes` of it, which the file gets through
   * `ownAddr`; what is reserved behind it, up to `maximum`, becomes accessible when its owner says so, as before. From here on
   * accesses to absent pages of it are told.
   * @throws KernelError ENOMEM; the memory is what it was
   */
  replaceByFile(addr: number, ownAddr: number, bytes: number, maximum: number, offset: number): void {
    this.libc.memcpy(ownAddr, addr, bytes);
    try {
      if (bytes > 0) {
        this.mapFile(addr, bytes, offset);
      }
      const flags = MAP_SHARED | MAP_FIXED | MAP_NORESERVE;
      const rest = addr + bytes;
      if (maximum > bytes && this.libc.mmap(rest, maximum - bytes, 0, flags, this.#memfd, offset + bytes) !== rest) {
        throw new KernelError("ENOMEM", "adopt", `no room behind the memory (errno ${this.libc.errno})`);
      }
      this.register(addr, maximum);
    } catch (error) {
      this.replaceByCopy(addr, ownAddr, bytes, maximum);
      this.punch(offset, maximum);
      throw error;
    }
  }

  /**
   * The way back: private memory with the bytes at `ownAddr`, and reserved memory behind it. False when there is no room:
   * nothing has changed then.
   */
  replaceByCopy(addr: number, ownAddr: number, bytes: number, maximum: number): boolean {
    const { libc } = this;
    const flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
    if (bytes > 0) {
      const copy = libc.mmap(0, bytes, PROT_READ_WRITE, flags, -1, 0);
      if (copy < 0) {
        return false;
      }
      libc.memcpy(copy, ownAddr, bytes);
      if (libc.mremap(copy, bytes, bytes, MREMAP_TO, addr) !== addr) {
        libc.munmap(copy, bytes);
        return false;
      }
    }
    const rest = addr + bytes;
    if (maximum > bytes && libc.mmap(rest, maximum - bytes, 0, flags | MAP_FIXED, -1, 0) !== rest) {
      // What is there may stay, but nobody will serve it.
      this.#unregister(rest, maximum - bytes);
    }
    this.wake(addr, maximum);
    return true;
  }

  #unregister(addr: number, bytes: number): void {
    this.libc.set(0, addr);
    this.libc.set(1, bytes);
    this.libc.ioctl(this.#fd, Ioctl.Unregister, this.libc.scratch);
  }

  /** Puts zeros that belong to nobody under an address range; whoever waits for a page of it goes on. */
  mapZeros(addr: number, bytes: number): void {
    const flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE;
    this.libc.mmap(addr, bytes, PROT_READ_WRITE, flags, -1, 0);
    this.wake(addr, bytes);
  }

  /** From here on accesses to absent pages of the range are told. @throws KernelError ENOMEM */
  register(addr: number, bytes: number): void {
    const { libc } = this;
    libc.set(0, addr);
    libc.set(1, bytes);
    libc.set(2, REGISTER_MISSING | REGISTER_MINOR | REGISTER_WP);
    libc.set(3, 0);
    if (libc.ioctl(this.#fd, Ioctl.Register, libc.scratch) !== 0) {
      throw new KernelError("ENOMEM", "mmap", `UFFDIO_REGISTER fails with errno ${libc.errno}: unmap something`);
    }
  }

  wake(addr: number, bytes: number): void {
    const { libc } = this;
    libc.set(0, addr);
    libc.set(1, bytes);
    libc.ioctl(this.#fd, Ioctl.Wake, libc.scratch);
  }

  /** {@link Uffd.show} of pages that the file does not have yet: zeros. Stops at one that it has (EEXIST). */
  showZeros(addr: number, bytes: number): { readonly pages: number; readonly errno: number } {
    const { libc } = this;
    const wanted = Math.min(bytes, ZEROS_BYTES);
    libc.set(0, addr);
    libc.set(1, this.#zeros);
    libc.set(2, wanted);
    libc.set(3, COPY_WP);
    libc.set(4, 0);
    if (libc.ioctl(this.#fd, Ioctl.Copy, libc.scratch) === 0) {
      return { pages: wanted / PAGE_SIZE, errno: 0 };
    }
    const { errno } = libc;
    const copied = libc.words[9] >>> 31 ? 0 : libc.get(4);
    return { pages: copied / PAGE_SIZE, errno };
  }

  /** {@link Uffd.show} of one page. False when something stands in the way. */
  showOne(addr: number): boolean {
    this.libc.set(SHOW_ONE_AT / 8, addr);
    return this.libc.ioctl(this.#fd, Ioctl.Continue, this.#oneArg) === 0;
  }

  /** Zeros for whoever waits at an address that is no window's any more. */
  showNobodys(addr: number): void {
    if (this.showZeros(addr, PAGE_SIZE).errno !== 0 && this.show(addr, PAGE_SIZE).errno !== 0) {
      // It does not trap any more.
      this.wake(addr, PAGE_SIZE);
    }
  }

  /** Gives a stretch of the file pages, zeros where it had none. @throws KernelError ENOMEM */
  allocate(offset: number, bytes: number): void {
    if (this.libc.fallocate(this.#memfd, 0, offset, bytes) !== 0) {
      throw new KernelError("ENOMEM", "fault", `no memory for ${bytes} bytes (errno ${this.libc.errno}): free some`);
    }
  }

  /** Takes the pages of a stretch of the file away, wherever it is mapped. */
  punch(offset: number, bytes: number): void {
    this.libc.fallocate(this.#memfd, FALLOC_PUNCH_HOLE, offset, bytes);
  }

  /** Makes pages absent for the address range; the file keeps its bytes. */
  hide(addr: number, bytes: number): void {
    this.libc.madvise(addr, bytes, MADV_DONTNEED);
  }

  /**
   * Shows pages of the file, write-protected, and wakes who waits for them. Returns how many pages were done, and what
   * stands in the way of the next one.
   */
  show(addr: number, bytes: number): { readonly pages: number; readonly errno: number } {
    const { libc } = this;
    libc.set(0, addr);
    libc.set(1, bytes);
    libc.set(2, CONTINUE_WP);
    libc.set(3, 0);
    if (libc.ioctl(this.#fd, Ioctl.Continue, libc.scratch) === 0) {
      return { pages: bytes / PAGE_SIZE, errno: 0 };
    }
    const { errno } = libc;
    // `mapped` is negative when nothing was: the errno once more.
    const mapped = libc.words[7] >>> 31 ? 0 : libc.get(3);
    return { pages: mapped / PAGE_SIZE, errno };
  }

  /**
   * Finds addresses whose pages are not write-protected, and protects them again if `protect`. Returns the number of runs,
   * which {@link Uffd.firstPage} tells until the next call of anything; go on from {@link Uffd.scanEnd}.
   * @throws KernelError EIO
   * @linux fs/proc/task_mmu.c do_pagemap_scan
   */
  scanWritten(at: number, end: number, protect: boolean): number {
    const { libc } = this;
    for (;;) {
      libc.set(0, SCAN_ARG_BYTES);
      libc.set(1, protect ? SCAN_WP_MATCHING | SCAN_CHECK_WPASYNC : SCAN_CHECK_WPASYNC);
      libc.set(2, at);
      libc.set(3, end);
      libc.set(4, 0);
      libc.set(5, libc.scratch + REGIONS_AT);
      libc.set(6, MAX_REGIONS);
      libc.set(7, 0);
      libc.set(8, 0);
      libc.set(9, PAGE_IS_WRITTEN);
      libc.set(10, 0);
      libc.set(11, PAGE_IS_WRITTEN);
      const regions = libc.ioctl(this.#pagemap, Ioctl.PagemapScan, libc.scratch);
      if (regions >= 0) {
        const walked = libc.get(4);
        this.#scanEnd = walked > at ? walked : end;
        return regions;
      }
      if (libc.errno !== ErrnoNumber.EAGAIN) {
        throw new KernelError("EIO", "scan", `PAGEMAP_SCAN fails with errno ${libc.errno}: report this`);
      }
    }
  }

  /** Where the last scan stopped. */
  get scanEnd(): number {
    return this.#scanEnd;
  }

  /** The page of a window at the address with this lower half that a run begins with; and one past its last. */
  firstPage(index: number, low: number): number {
    // A window has at most 2^32 bytes: the lower halves tell the pages apart.
    return (this.#words[REGIONS_AT / 4 + index * SCAN_REGION_WORDS] - low) >>> 12;
  }

  endPage(index: number, low: number): number {
    // One less, because the end may be 2^32 bytes away.
    return ((this.#words[REGIONS_AT / 4 + index * SCAN_REGION_WORDS + 2] - 1 - low) >>> 12) + 1;
  }

  /** No fault is served from here on, and no native callback runs any more in this thread. Idempotent. */
  stopServing(): void {
    if (!this.#stopped) {
      this.#stopped = true;
      this.#watch.close();
    }
  }

  /** Lets the process end although faults could still come. */
  unref(): void {
    this.#watch.unref();
  }

  /** All windows must be gone: a thread that waits for one of their pages would never be woken. */
  close(): void {
    if (this.#closed) {
      return;
    }
    this.#closed = true;
    this.stopServing();
    this.libc.munmap(this.#zeros, ZEROS_BYTES);
    this.files.close();
    this.libc.dispose();
  }
}
