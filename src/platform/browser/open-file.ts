/** Opens what a browser calls a file as a memory object. */
import { KernelError, PAGE_SIZE } from "../../base/index.ts";
import { MemoryObject, type Pager, type PhysicalMemory } from "../../mm/index.ts";
import { BlobPager } from "./blob-pager.ts";
import { fileError } from "./file-error.ts";
import { StreamFilePager } from "./stream-file-pager.ts";
import { type SyncAccessHandle, SyncFilePager } from "./sync-file-pager.ts";

/** How a file is opened. */
export interface OpenFileOptions {
  /** Open for writing too, for shared writable mappings. Takes a FileSystemFileHandle. */
  readonly write?: boolean | undefined;
}

/** A file that a user dropped or picked, any other blob, or a file of the origin private file system. */
export type BrowserFile = Blob | FileSystemFileHandle;

/** A handle as workers have it. */
type WorkerFileHandle = FileSystemFileHandle & {
  createSyncAccessHandle?(options?: { readonly mode: "read-only" | "readwrite" }): Promise<SyncAccessHandle>;
};

/**
 * Opens a file as a memory object, for `mm.mmap({ object })`. The caller owns one reference and `put()`s it when it needs
 * the object no more; mappings hold their own. In a worker, a file of the origin private file system is read and written
 * without a copy in between, and is this object's alone meanwhile where the browser has no shared access.
 * @throws KernelError EINVAL empty, or a Blob for writing; ENOENT; EACCES the user has not allowed it; EBUSY open for
 *   writing elsewhere; ENOSPC; EIO
 */
export async function openBrowserFile(
  memory: PhysicalMemory,
  file: BrowserFile,
  options: OpenFileOptions = {},
): Promise<MemoryObject> {
  const pager = await pagerFor(file, options.write ?? false);
  try {
    if (pager.length === 0) {
      throw new KernelError("EINVAL", "open", `${pager.name} is empty: there is nothing to map`);
    }
    return new MemoryObject(memory, { pages: Math.ceil(pager.length / PAGE_SIZE), pager });
  } catch (error) {
    await pager.close();
    throw error;
  }
}

async function pagerFor(file: BrowserFile, write: boolean): Promise<Pager> {
  if (file instanceof Blob) {
    const name = file instanceof File ? file.name : "blob";
    if (write) {
      throw new KernelError(
        "EINVAL",
        "open",
        `${name} is a snapshot that cannot be written: give its FileSystemFileHandle`,
      );
    }
    return new BlobPager(file, name);
  }
  try {
    return (await syncPager(file, write)) ?? (await asyncPager(file, write));
  } catch (cause) {
    throw fileError("open", file.name, cause);
  }
}

/** Undefined where there is no synchronous access to this file: on pages, and to files outside of OPFS. */
async function syncPager(handle: WorkerFileHandle, write: boolean): Promise<Pager | undefined> {
  if (handle.createSyncAccessHandle === undefined) {
    return undefined;
  }
  try {
    const access = await handle.createSyncAccessHandle({ mode: write ? "readwrite" : "read-only" });
    return new SyncFilePager(access, handle.name, write);
  } catch (error) {
    // A reader need not have the file for itself, so it reads snapshots where the browser says otherwise.
    const isElsewhere = error instanceof Error && error.name === "NoModificationAllowedError";
    if (write && isElsewhere) {
      throw error;
    }
    return undefined;
  }
}

async function asyncPager(handle: FileSystemFileHandle, write: boolean): Promise<Pager> {
  const file = await handle.getFile();
  return write ? new StreamFilePager(handle, file) : new BlobPager(file, file.name);
}
