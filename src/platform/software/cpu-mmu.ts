/** The software MMU: works everywhere; the CPU announces its accesses with leases. */
import { KernelError } from "../../base/index.ts";
import { type AdoptableMemory, type CpuMmu, type CpuWindow, createWindowMemory } from "../../mm/index.ts";

/**
 * Windows below this size share arenas: each WebAssembly.Memory reserves gigabytes of address space for its guards, so a
 * process can have some thousands only.
 */
const ARENA_BYTES = 16 * 2 ** 20;

/** Memories that are mapped, by whichever instance. */
const adopted = new WeakSet<object>();

/** Whether arrays may be seen by several threads here. Only pages may not: without cross-origin isolation they have one. */
function canShare(): boolean {
  return !("crossOriginIsolated" in globalThis) || globalThis.crossOriginIsolated;
}

/**
 * Windows out of WebAssembly memories, which are page aligned and committed lazily. They are shared, and can be posted to
 * workers, wherever that is allowed.
 *
 * An arena's bytes are never handed out twice: an array that outlives its mapping cannot see another one. The arena goes
 * when its last array is collected.
 */
export class SoftwareMmu implements CpuMmu {
  readonly name = "software";
  readonly #shared: boolean;
  #arena: ArrayBufferLike | undefined;
  #used = 0;

  /** `shared`: whether windows are shared memory. Default: wherever that is allowed. */
  constructor(shared: boolean = canShare()) {
    this.#shared = shared;
  }

  /** The memory itself, wherever it is after it has grown. */
  adoptWindow(memory: AdoptableMemory, maximum: number): CpuWindow {
    if (!("buffer" in memory)) {
      throw new KernelError("EINVAL", "adopt", "an address is not enough here: give the WebAssembly.Memory itself");
    }
    if (adopted.has(memory)) {
      throw new KernelError("EINVAL", "adopt", "the memory is a mapping or adopted already: munmap it first");
    }
    adopted.add(memory);
    return {
      release: () => void adopted.delete(memory),
      get buffer() {
        return memory.buffer;
      },
      byteOffset: 0,
      byteLength: maximum,
    };
  }

  createWindow(byteLength: number): CpuWindow {
    if (byteLength > ARENA_BYTES / 4) {
      return { buffer: createWindowMemory(byteLength, this.#shared), byteOffset: 0, byteLength };
    }
    if (this.#arena === undefined || this.#used + byteLength > ARENA_BYTES) {
      this.#arena = createWindowMemory(ARENA_BYTES, this.#shared);
      this.#used = 0;
    }
    const byteOffset = this.#used;
    this.#used += byteLength;
    return { buffer: this.#arena, byteOffset, byteLength };
  }
}
