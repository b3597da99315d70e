/** Files behind a FileSystemFileHandle where no synchronous access is offered: on pages, and for files outside of OPFS. */
import { type LedgerEntry, ledgerTrack } from "../../base/index.ts";
import type { Pager } from "../../mm/index.ts";
import { readBlob } from "./blob-pager.ts";
import { fileError } from "./file-error.ts";

/**
 * Reads snapshots and writes through a stream. What is written shows only when the stream is closed, and each new stream
 * copies the file: so one stays open until `sync`, or until somebody reads.
 */
export class StreamFilePager implements Pager {
  readonly name: string;
  readonly length: number;
  readonly writable = true;
  readonly #handle: FileSystemFileHandle;
  readonly #ledger: LedgerEntry = ledgerTrack("file");
  #snapshot: File | undefined;
  #stream: FileSystemWritableFileStream | undefined;
  /** One operation after the other: a read must not pass the write before it. */
  #last: Promise<unknown> = Promise.resolve();

  /** `file` is the handle's as it is now. */
  constructor(handle: FileSystemFileHandle, file: File) {
    this.name = file.name;
    this.length = file.size;
    this.#handle = handle;
    this.#snapshot = file;
  }

  read(offset: number, dst: Uint8Array): Promise<void> {
    return this.#inTurn("read", async () => {
      await this.#commit();
      this.#snapshot ??= await this.#handle.getFile();
      await readBlob(this.#snapshot, this.name, offset, dst);
    });
  }

  write(offset: number, src: Uint8Array): Promise<void> {
    // Streams take no shared memory, and keep what they are given until they have written it.
    const data = src.slice() as Uint8Array<ArrayBuffer>;
    return this.#inTurn("write", async () => {
      this.#stream ??= await this.#handle.createWritable({ keepExistingData: true });
      await this.#stream.write({ type: "write", position: offset, data });
    });
  }

  sync(): Promise<void> {
    return this.#inTurn("sync", () => this.#commit());
  }

  close(): Promise<void> {
    return this.#inTurn("close", () => this.#commit()).finally(() => this.#ledger.end());
  }

  async #commit(): Promise<void> {
    const stream = this.#stream;
    if (stream !== undefined) {
      this.#stream = undefined;
      this.#snapshot = undefined;
      await stream.close();
    }
  }

  #inTurn(op: string, body: () => Promise<void>): Promise<void> {
    const turn = this.#last.then(body).catch((cause: unknown) => {
      throw fileError(op, this.name, cause);
    });
    this.#last = turn.catch(() => undefined);
    return turn;
  }
}
