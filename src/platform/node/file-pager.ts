/** Files as the backing of memory objects. Read on fault with pread: a mapped file is never slurped. */
import { type FileHandle, open } from "node:fs/promises";
import { type Errno, KernelError, type LedgerEntry, ledgerTrack, PAGE_SIZE } from "../../base/index.ts";
import { MemoryObject, type Pager, type PhysicalMemory } from "../../mm/index.ts";

export interface OpenFileOptions {
  /** Open for writing too, for shared writable mappings. */
  readonly write?: boolean | undefined;
}

/**
 * Opens a file as a memory object, for `mm.mmap({ object })`. The caller owns one reference and `put()`s it when it needs
 * the object no more; mappings hold their own.
 * @throws KernelError ENOENT, EISDIR, EACCES, EINVAL (empty, or no regular file), EIO, each naming the path
 */
export async function openFileObject(
  memory: PhysicalMemory,
  path: string,
  options: OpenFileOptions = {},
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
  readonly #ledger: LedgerEntry = ledgerTrack("file");
  #transfers = 0;
  #closing: (() => void) | undefined;

  private constructor(name: string, length: number, writable: boolean, handle: FileHandle) {
    this.name = name;
    this.length = length;
    this.writable = writable;
    this.#handle = handle;
  }

  static async open(path: string, { write = false }: OpenFileOptions): Promise<FilePager> {
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
      return new FilePager(path, stat.size, write, handle);
    } catch (error) {
      await handle.close();
      throw error;
    }
  }

  async read(offset: number, dst: Uint8Array): Promise<void> {
    const wanted = Math.max(0, Math.min(dst.length, this.length - offset));
    await this.#transfer("read", async () => {
      for (let done = 0; done < wanted; ) {
        const { bytesRead } = await this.#handle.read(dst, done, wanted - done, offset + done);
        if (bytesRead === 0) {
          throw new KernelError("EIO", "read", `${this.name} became shorter while it was mapped: map it anew`);
        }
        done += bytesRead;
      }
    });
    dst.fill(0, wanted);
  }

  async write(offset: number, src: Uint8Array): Promise<void> {
    await this.#transfer("write", async () => {
      for (let done = 0; done < src.length; ) {
        const { bytesWritten } = await this.#handle.write(src, done, src.length - done, offset + done);
        done += bytesWritten;
      }
    });
  }

  async sync(): Promise<void> {
    await this.#transfer("sync", () => this.#handle.datasync());
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

  async #transfer(op: string, body: () => Promise<void>): Promise<void> {
    this.#transfers++;
    try {
      await body();
    } catch (cause) {
      if (cause instanceof KernelError) {
        throw cause;
      }
      const code = (cause as NodeJS.ErrnoException).code === "ENOSPC" ? "ENOSPC" : "EIO";
      const remedy = code === "ENOSPC" ? "make room on its disk" : "check the disk, then map it anew";
      throw new KernelError(code, op, `${this.name}: ${reason(cause)}: ${remedy}`, { cause });
    } finally {
      if (--this.#transfers === 0) {
        this.#closing?.();
      }
    }
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
