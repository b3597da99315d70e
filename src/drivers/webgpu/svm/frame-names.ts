/** What a space calls the frames of the pool: the frames of its mirror's pagemap. */
import { PAGES_PER_BLOCK } from "../../../base/index.ts";
import type { DevicePagemap } from "../../../mm/index.ts";
import { SUB_PAGES } from "./page-entry.ts";

/** Frames whose pages one block of the pagemap names. */
const CHUNK = PAGES_PER_BLOCK / SUB_PAGES;

/** Given when the space first uses a frame near it: pfns are few, and a pool shared by many spaces is large. */
export class FrameNames {
  readonly #pagemap: DevicePagemap;
  /** Blocks of the pagemap, by the chunks of the pool that they name, and the other way round. */
  readonly #blocks = new Map<number, number>();
  readonly #chunks = new Map<number, number>();

  constructor(pagemap: DevicePagemap) {
    this.#pagemap = pagemap;
  }

  /** The name of CPU page 0 of a frame. @throws KernelError ENOMEM */
  of(index: number): number {
    const chunk = Math.floor(index / CHUNK);
    let first = this.#blocks.get(chunk);
    if (first === undefined) {
      first = this.#pagemap.addFrames(CHUNK * SUB_PAGES);
      this.#blocks.set(chunk, first);
      this.#chunks.set(first, chunk);
    }
    return first + (index % CHUNK) * SUB_PAGES;
  }

  /** The frame of the pool that a name is about. */
  indexOf(name: number): number | undefined {
    const at = name % (CHUNK * SUB_PAGES);
    const chunk = this.#chunks.get(name - at);
    return chunk === undefined ? undefined : chunk * CHUNK + Math.floor(at / SUB_PAGES);
  }

  /** Gives all names back. */
  remove(): void {
    for (const first of this.#chunks.keys()) {
      this.#pagemap.removeFrames(first, CHUNK * SUB_PAGES);
    }
    this.#chunks.clear();
    this.#blocks.clear();
  }
}
