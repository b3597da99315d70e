/** Files as the backing of memory objects. Read on fault with pread: a mapped file is never slurped. */
import { readSync, writeSync } from "node:fs";
import { type FileHandle, open } from "node:fs/promises";
import {
  type Errno,
  KernelError,
  type LedgerEntry,
  ledgerTrack,
  type MaybePromise,
  PAGE_SIZE,
} from "../../base/index.ts";
import { MemoryObject, type Pager, type PhysicalMemory } from "../../mm/index.ts";

/** How a file is opened. */
export interface OpenFileOptions {
  /** Open for writing too, for shared writable mappings. */
  readonly write?: boolean | undefined;
}

/** How a file is read and written. */
export interface FileTransferOptions extends OpenFileOptions {
  /**
   * Read and write in the calling thread, which waits for the disk: for a thread that serves page faults, since the threads of
   * libuv's pool may all be waiting for it.
   */
  readonly synchronous?: boolean | undefined;
}

/**
 * Opens a file as a memory object, for `mm.mmap({ object })`. The caller owns one reference and `put()`s it when it needs
 * the object no more; mappings hold their own.
 * @throws KernelError ENOENT, EISDIR, EACCES, EINVAL (empty, or no regular file), EIO, each naming the path
 */
export async function openFileObject(
  memory: PhysicalMemory,
  path: string,
  options: FileTransferOptions = {},
): Promise<MemoryObject> {
  const pager = await FilePager.open(path, options);
  try {
    return new MemoryObject(memory, { pages: Math.ceil(pager.length / PAGE_SIZE), pager });
  } catch (error) {
    await pager.close();
    throw error;
  }
}

class FilePager implements Pager {
  readonly name: string;
  readonly length: number;
  readonly writable: boolean;
  readonly #handle: FileHandle;
  readonly #synchronous: boolean;
  readonly #ledger: LedgerEntry = ledgerTrack("file");
  #transfers = 0;
  #closing: (() => void) | undefined;

  private constructor(name: string, length: number, writable: boolean, handle: FileHandle, synchronous: boolean) {
    this.#synchronous = synchronous;
    this.name = name;
    this.length = length;
    this.writable = writable;
    this.#handle = handle;
  }

  static async open(path: string, { write = false, synchronous = false }: FileTransferOptions): Promise<FilePager> {
    const handle = await open(path, write ? "r+" : "r").catch((cause: unknown) => {
      throw openError(path, cause, write);
    });
    try {
      const stat = await handle.stat();
      if (stat.isDirectory()) {
        throw new KernelError("EISDIR", "open", `${path} is a directory: name a file in it`);
      }
      if (!stat.isFile()) {
        throw new KernelError("EINVAL", "open", `${path} is not a regular file: copy its bytes to one first`);
      }
      if (stat.size === 0) {
        throw new KernelError("EINVAL", "open", `${path} is empty: there is nothing to map`);
      }
      return new FilePager(path, stat.size, write, handle, synchronous);
    } catch (error) {
      await handle.close();
      throw error;
    }
  }

  read(offset: number, dst: Uint8Array): MaybePromise<void> {
    const wanted = Math.max(0, Math.min(dst.length, this.length - offset));
    if (this.#synchronous) {
      this.#now("read", () => {
        for (let done = 0; done < wanted; ) {
          done += this.#some(readSync(this.#handle.fd, dst, done, wanted - done, offset + done));
        }
      });
      dst.fill(0, wanted);
      return undefined;
    }
    return this.#transfer("read", async () => {
      for (let done = 0; done < wanted; ) {
        done += this.#some((await this.#handle.read(dst, done, wanted - done, offset + done)).bytesRead);
      }
      dst.fill(0, wanted);
    });
  }

  #some(bytesRead: number): number {
    if (bytesRead === 0) {
      throw new KernelError("EIO", "read", `${this.name} became shorter while it was mapped: map it anew`);
    }
    return bytesRead;
  }

  write(offset: number, src: Uint8Array): MaybePromise<void> {
    if (this.#synchronous) {
      this.#now("write", () => {
        for (let done = 0; done < src.length; ) {
          done += writeSync(this.#handle.fd, src, done, src.length - done, offset + done);
        }
      });
      return undefined;
    }
    return this.#transfer("write", async () => {
      for (let done = 0; done < src.length; ) {
        const { bytesWritten } = await this.#handle.write(src, done, src.length - done, offset + done);
        done += bytesWritten;
      }
    });
  }

  /** Nobody's page waits for this: it may take a thread of the pool, and its time. */
  sync(): Promise<void> {
    return this.#transfer("sync", () => this.#handle.datasync());
  }

  /** Waits for transfers that are going on. */
  async close(): Promise<void> {
    if (this.#transfers > 0) {
      await new Promise<void>((resolve) => {
        this.#closing = resolve;
      });
    }
    await this.#handle.close();
    this.#ledger.end();
  }

  #now(op: string, body: () => void): void {
    try {
      body();
    } catch (cause) {
      throw this.#failure(op, cause);
    }
  }

  async #transfer(op: string, body: () => Promise<void>): Promise<void> {
    this.#transfers++;
    try {
      await body();
    } catch (cause) {
      throw this.#failure(op, cause);
    } finally {
      if (--this.#transfers === 0) {
        this.#closing?.();
      }
    }
  }

  #failure(op: string, cause: unknown): KernelError {
    if (cause instanceof KernelError) {
      return cause;
    }
    const code = (cause as NodeJS.ErrnoException).code === "ENOSPC" ? "ENOSPC" : "EIO";
    const remedy = code === "ENOSPC" ? "make room on its disk" : "check the disk, then map it anew";
    return new KernelError(code, op, `${this.name}: ${reason(cause)}: ${remedy}`, { cause });
  }
}

function reason(cause: unknown): string {
  return cause instanceof Error ? cause.message : String(cause);
}

const OPEN_REMEDIES: Readonly<Record<string, readonly [Errno, string]>> = {
  ENOENT: ["ENOENT", "does not exist: check the path"],
  ENOTDIR: ["ENOENT", "does not exist: a part of its path is a file"],
  EISDIR: ["EISDIR", "is a directory: name a file in it"],
  EACCES: ["EACCES", "may not be opened by this user: change its permissions"],
  EPERM: ["EACCES", "may not be opened by this user: change its permissions"],
  EROFS: ["EACCES", "is on a read-only file system: map a copy of it"],
  ENXIO: ["EINVAL", "is not a regular file: copy its bytes to one first"],
};

/** The code for a file that cannot be opened or written. */
export function errnoOfOpen(cause: unknown): Errno {
  const code = (cause as NodeJS.ErrnoException).code ?? "";
  return code === "ENOSPC" ? "ENOSPC" : (OPEN_REMEDIES[code]?.[0] ?? "EIO");
}

function openError(path: string, cause: unknown, write: boolean): KernelError {
  const code = (cause as NodeJS.ErrnoException).code ?? "";
  const [errno, why] = OPEN_REMEDIES[code] ?? ["EIO", `cannot be opened (${reason(cause)})`];
  const what = write && errno === "EACCES" ? ", or map it :r or :cow" : "";
  return new KernelError(errno, "open", `${path} ${why}${what}`, { cause });
}
