/** The cap on what this library allocates on a device. */
import { KernelError } from "../../base/index.ts";
import type { Extent } from "./extent.ts";

/** Finds something to evict: brings it home and frees it. False when there is nothing left to evict. */
export type Evictor = (keep: ReadonlySet<Extent>) => Promise<boolean>;

/** Bytes of GPU buffers that hold pages. Others (`GpuHandle.bufferBytes` has all) do not grow with the data. */
export class MemoryBudget {
  readonly limit: number;
  readonly #evict: Evictor;
  #used = 0;

  constructor(limit: number, evict: Evictor) {
    this.limit = limit;
    this.#evict = evict;
  }

  get used(): number {
    return this.#used;
  }

  /** Whether that much fits with everything else evicted. */
  couldHold(bytes: number): boolean {
    return bytes <= this.limit;
  }

  /**
   * Takes bytes, evicting the least recently bound extents that `keep` does not name until they fit.
   * @throws KernelError ENOMEM when they cannot fit
   */
  async reserve(bytes: number, keep: ReadonlySet<Extent>, what: string): Promise<void> {
    while (this.#used + bytes > this.limit) {
      if (!this.couldHold(bytes) || !(await this.#evict(keep))) {
        const inUse = this.#used === 0 ? "" : ` beside ${this.#used} bytes that this dispatch uses`;
        throw new KernelError(
          "ENOMEM",
          "dispatch",
          `${what} needs ${bytes} bytes of device memory${inUse}, over the budget of ${this.limit}: raise deviceMemory, or bind smaller ranges`,
        );
      }
    }
    this.#used += bytes;
  }

  release(bytes: number): void {
    this.#used -= bytes;
  }
}
