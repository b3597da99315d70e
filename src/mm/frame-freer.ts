/** Gives device frames of dropped pages back to their drivers, in runs. */
import { invariant } from "../base/index.ts";
import type { DevicePagemap } from "./device-pagemap.ts";
import { type ObjectBlock, PageFlag } from "./page-flags.ts";
import type { PhysicalMemory } from "./physical-memory.ts";

/** Collects frames; {@link flush} ends it. */
export class FrameFreer {
  readonly #memory: PhysicalMemory;
  #run: { readonly pagemap: DevicePagemap; readonly frame: number; count: number } | undefined;

  constructor(memory: PhysicalMemory) {
    this.#memory = memory;
  }

  /** The pages `[from, to)` of a block whose flags still tell where they are. `base` is the block's first page. */
  add(block: ObjectBlock, from: number, to: number, base: number): void {
    for (let i = from; i < to; i++) {
      if (block.flags[i] & (PageFlag.Device | PageFlag.Coherent)) {
        const pfn = block.device?.[i] ?? 0;
        const pagemap = this.#memory.blockOf(pfn)?.pagemap;
        const frame = pagemap?.frameOf(pfn);
        invariant(pagemap !== undefined && frame !== undefined, "I-MIG-1", () => `page ${base + i} is on no device`);
        this.#addFrame(pagemap, frame);
      }
    }
  }

  #addFrame(pagemap: DevicePagemap, frame: number): void {
    if (this.#run?.pagemap === pagemap && this.#run.frame + this.#run.count === frame) {
      this.#run.count++;
    } else {
      this.flush();
      this.#run = { pagemap, frame, count: 1 };
    }
  }

  flush(): void {
    this.#run?.pagemap.ops.pageFree(this.#run.frame, this.#run.count);
    this.#run = undefined;
  }
}
