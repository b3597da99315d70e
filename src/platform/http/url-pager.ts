/**
 * The bytes of a URL, fetched on fault.
 *
 * The object is cut into chunks, the least that a request fetches. A read copies from cached chunks at once; for the
 * others it leaves a sink and waits. Wanted chunks are fetched by at most `concurrency` requests at a time, each of a
 * run of neighbours; a chunk is handed to its sinks as soon as its own bytes are complete.
 */
import { KernelError, type LedgerEntry, ledgerTrack, type MaybePromise, throwIfAborted } from "../../base/index.ts";
import type { Pager } from "../../mm/index.ts";
import { ChunkCache } from "./chunk-cache.ts";
import { type Chunk, ChunkQueue, PendingRead } from "./chunk-queue.ts";
import { ReadAhead } from "./read-ahead.ts";
import type { RemoteObject } from "./remote-object.ts";

/** How the pager fetches. */
export interface FetchPolicy {
  readonly concurrency: number;
  /** Bytes of a chunk. */
  readonly chunkBytes: number;
  /** Bytes of the largest request, and of the largest window ahead of a sequence; a multiple of `chunkBytes`. */
  readonly mostBytes: number;
  readonly cacheBytes: number;
}

/** A read-only pager over ranges of a {@link RemoteObject}. */
export class UrlPager implements Pager {
  readonly name: string;
  readonly length: number;
  readonly writable = false;
  readonly #remote: RemoteObject;
  readonly #policy: FetchPolicy;
  readonly #ledger: LedgerEntry = ledgerTrack("file");
  readonly #cache: ChunkCache;
  readonly #queue = new ChunkQueue();
  readonly #flying = new Map<number, Chunk>();
  readonly #readAhead: ReadAhead;
  readonly #requests = new Set<Promise<void>>();
  readonly #closing = new AbortController();
  readonly #signal: AbortSignal | undefined;
  #pumpTimer: ReturnType<typeof setTimeout> | undefined;

  /** When `signal` fires, every read fails with EINTR from then on. */
  constructor(remote: RemoteObject, policy: FetchPolicy, signal: AbortSignal | undefined) {
    this.name = remote.target.shown;
    this.length = remote.version.length;
    this.#remote = remote;
    this.#policy = policy;
    this.#cache = new ChunkCache(policy.cacheBytes);
    this.#readAhead = new ReadAhead(policy.chunkBytes, Math.min(policy.mostBytes, policy.cacheBytes / 2));
    this.#signal = signal;
    signal?.addEventListener("abort", this.#cancel);
  }

  /**
   * Fills `dst` from `offset`, with zeros past the end. Synchronous when all of it is cached.
   * @throws KernelError EIO the object has changed, or the server fails; ENOENT, EACCES, ENOTSUP by the server's answer;
   *   EINTR the pager was closed, or the signal fired
   */
  read(offset: number, dst: Uint8Array): MaybePromise<void> {
    throwIfAborted(this.#signal, "read");
    throwIfAborted(this.#closing.signal, "read");
    this.#remote.assertThere();
    const wanted = Math.max(0, Math.min(dst.length, this.length - offset));
    dst.fill(0, wanted);
    return wanted === 0 ? undefined : this.#readChunks(offset, dst.subarray(0, wanted));
  }

  /** Half of the cache: others read, too. */
  get nearBytes(): number {
    return this.#policy.cacheBytes / 2;
  }

  near(offset: number, length: number): Promise<void> | undefined {
    const end = Math.min(this.length, offset + length);
    if (offset >= end || length > this.nearBytes || this.#closing.signal.aborted || this.#signal?.aborted) {
      return undefined;
    }
    const { chunkBytes } = this.#policy;
    let pending: PendingRead | undefined;
    for (let index = Math.floor(offset / chunkBytes); index * chunkBytes < end; index++) {
      if (!this.#cache.has(index)) {
        pending ??= new PendingRead();
        pending.expect();
        const chunk = this.#flying.get(index) ?? this.#queue.demand(index);
        chunk.sinks.push({ from: 0, dst: NO_BYTES, read: pending });
      }
    }
    this.#pumpSoon();
    return pending?.promise.catch(() => undefined);
  }

  write(): never {
    throw new KernelError("EIO", "write", `${this.name} is read-only: map it privately to change the copy`);
  }

  sync(): undefined {
    return undefined;
  }

  /** Ends the requests that are going on; reads that wait for them fail with EINTR. */
  async close(): Promise<void> {
    this.#cancel();
    await Promise.all(this.#requests);
    this.#cache.clear();
    this.#signal?.removeEventListener("abort", this.#cancel);
    this.#ledger.end();
  }

  readonly #cancel = () => {
    clearTimeout(this.#pumpTimer);
    this.#closing.abort();
    const error = new KernelError("EINTR", "read", `${this.name}: reading was cancelled: open and map it anew`);
    failAll(this.#queue.takeAll(), error);
  };

  #readChunks(offset: number, dst: Uint8Array): Promise<void> | undefined {
    const { chunkBytes } = this.#policy;
    const end = offset + dst.length;
    let pending: PendingRead | undefined;
    let index = Math.floor(offset / chunkBytes);
    for (; index * chunkBytes < end; index++) {
      const base = index * chunkBytes;
      const from = Math.max(0, offset - base);
      const part = dst.subarray(base + from - offset, Math.min(dst.length, base + chunkBytes - offset));
      const cached = this.#cache.get(index);
      if (cached !== undefined) {
        part.set(cached.subarray(from, from + part.length));
        continue;
      }
      pending ??= new PendingRead();
      pending.expect();
      const chunk = this.#flying.get(index) ?? this.#queue.demand(index);
      chunk.sinks.push({ from, dst: part, read: pending });
    }
    const ahead = Math.min(this.length, this.#readAhead.extend(offset, end));
    for (; index * chunkBytes < ahead; index++) {
      if (!this.#cache.has(index) && !this.#flying.has(index) && !this.#queue.has(index)) {
        this.#queue.add(index);
      }
    }
    this.#pumpSoon();
    return pending?.promise;
  }

  /** Not at once: reads that are made together shall share requests. */
  #pumpSoon(): void {
    this.#pumpTimer ??= setTimeout(() => {
      this.#pumpTimer = undefined;
      this.#pump();
    });
  }

  #pump(): void {
    const { concurrency, chunkBytes, mostBytes } = this.#policy;
    while (this.#requests.size < concurrency) {
      const run = this.#queue.takeRun(mostBytes / chunkBytes);
      if (run === undefined) {
        return;
      }
      const request = this.#fetch(run).then(() => {
        this.#requests.delete(request);
        this.#pump();
      });
      this.#requests.add(request);
    }
  }

  /** Fetches neighbouring chunks. Never rejects: the reads do. */
  async #fetch(run: readonly Chunk[]): Promise<void> {
    const { chunkBytes } = this.#policy;
    const start = run[0].index * chunkBytes;
    const end = Math.min(this.length, start + run.length * chunkBytes);
    const left = [...run];
    for (const chunk of run) {
      this.#flying.set(chunk.index, chunk);
    }
    let bytes = new Uint8Array(0);
    let filled = 0;
    const take = (received: Uint8Array) => {
      for (let at = 0; at < received.length; ) {
        const [chunk] = left;
        if (filled === 0) {
          bytes = new Uint8Array(Math.min(chunkBytes, end - chunk.index * chunkBytes));
        }
        const piece = received.subarray(at, at + bytes.length - filled);
        bytes.set(piece, filled);
        filled += piece.length;
        at += piece.length;
        if (filled === bytes.length) {
          filled = 0;
          left.shift();
          this.#land(chunk, bytes);
        }
      }
    };
    try {
      await this.#remote.read(start, end, take, this.#closing.signal);
    } catch (error) {
      for (const chunk of left) {
        this.#flying.delete(chunk.index);
      }
      failAll(left, error);
    }
  }

  #land(chunk: Chunk, bytes: Uint8Array): void {
    this.#flying.delete(chunk.index);
    let whole = false;
    for (const { from, dst, read } of chunk.sinks) {
      if (!read.failed) {
        dst.set(bytes.subarray(from, from + dst.length));
        whole ||= dst.length === bytes.length;
      }
      read.arrived();
    }
    if (!whole) {
      this.#cache.put(chunk.index, bytes);
    }
  }
}

/** Of who wants a chunk in the cache, and nothing of it now. */
const NO_BYTES = new Uint8Array(0);

function failAll(chunks: readonly Chunk[], error: unknown): void {
  for (const { sinks } of chunks) {
    for (const { read } of sinks) {
      read.fail(error);
    }
  }
}
