/** Files of the origin private file system in a worker: read and written on the spot. */
import { KernelError, type LedgerEntry, ledgerTrack } from "../../base/index.ts";
import type { Pager } from "../../mm/index.ts";
import { fileError } from "./file-error.ts";

/** What workers have, and the library's own types of a page do not know. */
export interface SyncAccessHandle {
  getSize(): number;
  read(buffer: Uint8Array, options: { readonly at: number }): number;
  write(buffer: Uint8Array, options: { readonly at: number }): number;
  flush(): void;
  close(): void;
}

/** Reads and writes through an access handle. The file is its alone until it is closed. */
export class SyncFilePager implements Pager {
  readonly name: string;
  readonly length: number;
  readonly writable: boolean;
  readonly #handle: SyncAccessHandle;
  readonly #ledger: LedgerEntry = ledgerTrack("file");

  constructor(handle: SyncAccessHandle, name: string, writable: boolean) {
    this.name = name;
    this.length = handle.getSize();
    this.writable = writable;
    this.#handle = handle;
  }

  read(offset: number, dst: Uint8Array): void {
    const wanted = Math.max(0, Math.min(dst.length, this.length - offset));
    for (let done = 0; done < wanted; ) {
      const count = this.#try("read", () => this.#handle.read(dst.subarray(done, wanted), { at: offset + done }));
      if (count === 0) {
        throw new KernelError("EIO", "read", `${this.name} became shorter while it was mapped: map it anew`);
      }
      done += count;
    }
    dst.fill(0, wanted);
  }

  write(offset: number, src: Uint8Array): void {
    for (let done = 0; done < src.length; ) {
      const count = this.#try("write", () => this.#handle.write(src.subarray(done), { at: offset + done }));
      if (count === 0) {
        throw new KernelError("ENOSPC", "write", `${this.name}: the origin's quota is used up: remove something`);
      }
      done += count;
    }
  }

  sync(): void {
    this.#try("sync", () => this.#handle.flush());
  }

  close(): void {
    this.#handle.close();
    this.#ledger.end();
  }

  #try<T>(op: string, body: () => T): T {
    try {
      return body();
    } catch (cause) {
      throw fileError(op, this.name, cause);
    }
  }
}
