/** Files that a user picked or dropped, and blobs, as the backing of memory objects. Read on fault, never slurped. */
import { KernelError, type LedgerEntry, ledgerTrack } from "../../base/index.ts";
import type { Pager } from "../../mm/index.ts";

/** Reads a Blob. A File is a snapshot: when the file changes on disk, the browser refuses to read it. */
export class BlobPager implements Pager {
  readonly name: string;
  readonly length: number;
  readonly writable = false;
  readonly #blob: Blob;
  readonly #ledger: LedgerEntry = ledgerTrack("file");

  constructor(blob: Blob, name: string) {
    this.name = name;
    this.length = blob.size;
    this.#blob = blob;
  }

  async read(offset: number, dst: Uint8Array): Promise<void> {
    await readBlob(this.#blob, this.name, offset, dst);
  }

  write(): never {
    throw new KernelError("EACCES", "write", `${this.name} was opened for reading`);
  }

  sync(): void {}

  close(): void {
    this.#ledger.end();
  }
}

/** Fills `dst` from a blob, past its end with zeros. @throws KernelError EIO it cannot be read, or has changed */
export async function readBlob(blob: Blob, name: string, offset: number, dst: Uint8Array): Promise<void> {
  const end = Math.max(offset, Math.min(blob.size, offset + dst.length));
  let bytes: Uint8Array;
  try {
    bytes = new Uint8Array(await blob.slice(offset, end).arrayBuffer());
  } catch (cause) {
    throw new KernelError("EIO", "read", `${name} has changed or is gone since it was opened: open it again`, {
      cause,
    });
  }
  if (bytes.length < end - offset) {
    throw new KernelError("EIO", "read", `${name} became shorter while it was mapped: open it again`);
  }
  dst.set(bytes);
  dst.fill(0, bytes.length);
}
