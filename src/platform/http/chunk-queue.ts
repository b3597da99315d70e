/** Chunks of an object on their way: wanted, or being fetched. */

/** Where a part of a chunk is to be put. */
export interface Sink {
  /** Offset in the chunk. */
  readonly from: number;
  readonly dst: Uint8Array;
  /** Whose read it belongs to. */
  readonly read: PendingRead;
}

/** A piece of the object, fetched as a whole. */
export interface Chunk {
  readonly index: number;
  readonly sinks: Sink[];
}

/** A read that waits for chunks. Once it has failed, nothing is written to its destination any more. */
export class PendingRead {
  readonly promise: Promise<void>;
  #resolve: () => void = () => undefined;
  #reject: (error: unknown) => void = () => undefined;
  #missing = 0;
  #failed = false;

  constructor() {
    this.promise = new Promise((resolve, reject) => {
      this.#resolve = resolve;
      this.#reject = reject;
    });
  }

  get failed(): boolean {
    return this.#failed;
  }

  /** Waits for one chunk more. */
  expect(): void {
    this.#missing++;
  }

  arrived(): void {
    if (--this.#missing === 0 && !this.#failed) {
      this.#resolve();
    }
  }

  fail(error: unknown): void {
    this.#failed = true;
    this.#reject(error);
  }
}

/** Chunks that nobody fetches yet: what reads wait for goes first, neighbours go together. */
export class ChunkQueue {
  readonly #demanded = new Map<number, Chunk>();
  readonly #ahead = new Map<number, Chunk>();

  has(index: number): boolean {
    return this.#demanded.has(index) || this.#ahead.has(index);
  }

  /** The chunk, queued now if it was not; one that was queued ahead of any read has a reader now. */
  demand(index: number): Chunk {
    const chunk = this.#demanded.get(index) ?? this.#ahead.get(index) ?? { index, sinks: [] };
    this.#ahead.delete(index);
    this.#demanded.set(index, chunk);
    return chunk;
  }

  /** Queues a chunk that no read waits for. */
  add(index: number): void {
    this.#ahead.set(index, { index, sinks: [] });
  }

  /** Takes the chunk that waits longest, with up to `most` neighbours in all, in order. Undefined when there is none. */
  takeRun(most: number): Chunk[] | undefined {
    for (const queue of [this.#demanded, this.#ahead]) {
      for (const index of queue.keys()) {
        return this.#takeAround(index, most);
      }
    }
    return undefined;
  }

  /** Takes everything. */
  takeAll(): Chunk[] {
    const all = [...this.#demanded.values(), ...this.#ahead.values()];
    this.#demanded.clear();
    this.#ahead.clear();
    return all;
  }

  #takeAround(index: number, most: number): Chunk[] {
    let first = index;
    // Reads that go backwards, or come in no order, share requests too.
    while (this.has(first - 1) && index - first + 1 < most) {
      first--;
    }
    const run: Chunk[] = [];
    for (let i = first; run.length < most; i++) {
      const chunk = this.#demanded.get(i) ?? this.#ahead.get(i);
      if (chunk === undefined) {
        break;
      }
      this.#demanded.delete(i);
      this.#ahead.delete(i);
      run.push(chunk);
    }
    return run;
  }
}
