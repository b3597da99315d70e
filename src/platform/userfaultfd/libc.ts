/** The seam to the C library: everything else of the platform speaks of numbers and of this class. */
import { createRequire } from "node:module";
import type koffiModule from "koffi";
import { KernelError } from "../../base/index.ts";
import { MAP_ANONYMOUS, MAP_PRIVATE, PROT_READ_WRITE } from "./abi.ts";

type Koffi = typeof koffiModule;

/** Why there is no seam. */
export class NoLibc extends Error {}

/** 64 KiB for the arguments of system calls: mapped once, never the garbage collector's. */
const SCRATCH_BYTES = 65_536;
export const TWO_32 = 2 ** 32;

/** Watches a descriptor from the event loop, outside libuv's thread pool. */
export interface Watch {
  close(): void;
  ref(): void;
  unref(): void;
}

/** System calls, with addresses and lengths as numbers. One of them belongs to one thread. */
export class Libc {
  readonly ioctl: (fd: number, request: number, arg: number) => number;
  readonly mmap: (addr: number, length: number, prot: number, flags: number, fd: number, offset: number) => number;
  readonly munmap: (addr: number, length: number) => number;
  readonly madvise: (addr: number, length: number, advice: number) => number;
  readonly memfdCreate: (name: string, flags: number) => number;
  readonly ftruncate: (fd: number, length: number) => number;
  readonly fallocate: (fd: number, mode: number, offset: number, length: number) => number;
  readonly read: (fd: number, addr: number, length: number) => number;
  readonly open: (path: string, flags: number) => number;
  readonly close: (fd: number) => number;
  readonly dup3: (fd: number, to: number, flags: number) => number;
  readonly memcpy: (to: number, from: number, bytes: number) => number;
  readonly mremap: (from: number, length: number, newLength: number, flags: number, to: number) => number;
  readonly ppoll: (fds: number, count: number, timeout: number, mask: number) => number;
  readonly schedYield: () => number;
  readonly schedSetaffinity: (thread: number, bytes: number, mask: number) => number;
  readonly syscall: (number: number, a: number, b: number, c: number, d: number) => number;
  /** Address of the scratch memory, and its words: a 64-bit field is words 2i (low) and 2i + 1. */
  readonly scratch: number;
  readonly words: Uint32Array;
  readonly #koffi: Koffi;

  private constructor(koffi: Koffi) {
    this.#koffi = koffi;
    const libc = koffi.load("libc.so.6");
    this.ioctl = libc.func("int ioctl(int fd, unsigned long request, uintptr_t arg)");
    this.mmap = libc.func("intptr_t mmap(uintptr_t addr, size_t length, int prot, int flags, int fd, int64_t offset)");
    this.munmap = libc.func("int munmap(uintptr_t addr, size_t length)");
    this.madvise = libc.func("int madvise(uintptr_t addr, size_t length, int advice)");
    this.memfdCreate = libc.func("int memfd_create(const char *name, unsigned int flags)");
    this.ftruncate = libc.func("int ftruncate(int fd, int64_t length)");
    this.fallocate = libc.func("int fallocate(int fd, int mode, int64_t offset, int64_t length)");
    this.read = libc.func("intptr_t read(int fd, uintptr_t addr, size_t length)");
    this.open = libc.func("int open(const char *path, int flags)");
    this.close = libc.func("int close(int fd)");
    this.dup3 = libc.func("int dup3(int fd, int to, int flags)");
    this.memcpy = libc.func("intptr_t memcpy(uintptr_t to, uintptr_t from, size_t bytes)");
    this.mremap = libc.func(
      "intptr_t mremap(uintptr_t from, size_t length, size_t newLength, int flags, uintptr_t to)",
    );
    this.ppoll = libc.func("int ppoll(uintptr_t fds, unsigned long count, uintptr_t timeout, uintptr_t mask)");
    this.schedYield = libc.func("int sched_yield()");
    this.schedSetaffinity = libc.func("int sched_setaffinity(int pid, size_t bytes, uintptr_t mask)");
    this.syscall = libc.func("intptr_t syscall(long number, intptr_t a, intptr_t b, intptr_t c, intptr_t d)");
    this.scratch = this.mmap(0, SCRATCH_BYTES, PROT_READ_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (this.scratch < 0) {
      throw new KernelError("ENOMEM", "open", "no memory for the arguments of system calls: free some");
    }
    this.words = this.wordsAt(this.scratch, SCRATCH_BYTES);
  }

  /** @throws NoLibc not Linux with glibc on x64 or arm64, or no koffi; the message says what to do */
  static load(): Libc {
    if (process.platform !== "linux") {
      throw new NoLibc(`this is ${process.platform}, and userfaultfd is Linux's: nothing to do`);
    }
    let koffi: Koffi;
    try {
      koffi = createRequire(import.meta.url)("koffi") as Koffi;
    } catch (error) {
      const message = error instanceof Error ? error.message.split("\n")[0] : String(error);
      if (message.startsWith("Cannot find module 'koffi'")) {
        throw new NoLibc("the optional package koffi is not installed: npm install koffi");
      }
      const forbidden = error instanceof Error && "code" in error && error.code === "ERR_DLOPEN_DISABLED";
      const remedy = forbidden
        ? "run node without --no-addons, or with --allow-addons"
        : "install it again, with its optional packages";
      throw new NoLibc(`the optional package koffi does not load (${message}): ${remedy}`);
    }
    try {
      return new Libc(koffi);
    } catch (error) {
      throw new NoLibc(`the C library cannot be used (${String(error)}): run on Linux with glibc`);
    }
  }

  get errno(): number {
    return this.#koffi.errno();
  }

  /** Where a buffer's bytes are. They must not move: wasm memories do not. */
  addressOf(buffer: ArrayBufferLike): number {
    return Number(this.#koffi.address(new Uint8Array(buffer)));
  }

  /** Memory that this process mapped itself, as words. It must stay mapped while they are used. */
  wordsAt(addr: number, bytes: number): Uint32Array {
    return new Uint32Array(this.#koffi.view(addr as unknown as Parameters<Koffi["view"]>[0], bytes));
  }

  /** Sets 64-bit field `index` of the scratch memory. */
  set(index: number, value: number): void {
    // The lower half is meant: several times as fast as a remainder, in the path of every page fault.
    const low = value >>> 0;
    this.words[2 * index] = low;
    this.words[2 * index + 1] = (value - low) / TWO_32;
  }

  /** Field `index` as a number; exact below 2^53. */
  get(index: number): number {
    return this.words[2 * index] + this.words[2 * index + 1] * TWO_32;
  }

  /** Calls back from the event loop while the descriptor is readable. */
  watch(fd: number, readable: () => void): Watch {
    return this.#koffi.node.poll(fd, { readable: true }, readable);
  }

  /** Gives the scratch memory back; nothing may be called afterwards. */
  dispose(): void {
    this.munmap(this.scratch, SCRATCH_BYTES);
  }
}

/** Ends the process here and now: no handler runs, no thread is waited for. */
export function endProcess(status: number): never {
  const exit = (createRequire(import.meta.url)("koffi") as Koffi).load("libc.so.6").func("void _exit(int status)");
  exit(status);
  throw new Error("the process has ended");
}
