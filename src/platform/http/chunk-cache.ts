/** Chunks that were fetched and not read as a whole: the least recently used go first when there is no room. */
export class ChunkCache {
  readonly #most: number;
  readonly #chunks = new Map<number, Uint8Array>();
  #bytes = 0;

  /** Keeps at most `most` bytes. */
  constructor(most: number) {
    this.#most = most;
  }

  has(index: number): boolean {
    return this.#chunks.has(index);
  }

  get(index: number): Uint8Array | undefined {
    const bytes = this.#chunks.get(index);
    if (bytes !== undefined) {
      this.#chunks.delete(index);
      this.#chunks.set(index, bytes);
    }
    return bytes;
  }

  put(index: number, bytes: Uint8Array): void {
    this.delete(index);
    this.#chunks.set(index, bytes);
    this.#bytes += bytes.length;
    for (const oldest of this.#chunks.keys()) {
      if (this.#bytes <= this.#most) {
        break;
      }
      this.delete(oldest);
    }
  }

  delete(index: number): void {
    this.#bytes -= this.#chunks.get(index)?.length ?? 0;
    this.#chunks.delete(index);
  }

  clear(): void {
    this.#chunks.clear();
    this.#bytes = 0;
  }
}
