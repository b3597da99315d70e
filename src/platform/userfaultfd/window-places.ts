/** Where windows lie: each large one in a memory of its own, small ones side by side. */
import { createWindowMemory } from "../../mm/index.ts";
import { collectSometimes } from "./collect.ts";
import type { TrappedMemory } from "./poison.ts";
import type { Sides } from "./trap.ts";
import type { Uffd } from "./uffd.ts";

const WASM_PAGE = 65_536;
/** Windows below a quarter of this share memories: each WebAssembly.Memory reserves gigabytes of address space. */
const ARENA_BYTES = 16 * 2 ** 20;

/** Who wants to know which memory of applications can trap. */
export interface MemoryWatch {
  /** Called with memory of applications before it can trap. */
  readonly onMemory?: ((memory: TrappedMemory) => void) | undefined;
  /** Called with the address of what traps no more. */
  readonly onForget?: ((address: number) => void) | undefined;
}

/** Gives windows a place in memory that traps, seen from both sides. */
export class WindowPlaces {
  readonly #uffd: Uffd;
  readonly #watch: MemoryWatch;
  /** The memory that small windows get places in at present, and how much of it is taken. */
  #arena: Sides | undefined;
  #arenaUsed = 0;
  /** Windows that are left in each memory that several share. */
  readonly #sharing = new Map<number, number>();

  constructor(uffd: Uffd, watch: MemoryWatch) {
    this.#uffd = uffd;
    this.#watch = watch;
  }

  /** A place for a window. @throws KernelError ENOMEM */
  take(byteLength: number): { readonly sides: Sides; readonly byteOffset: number } {
    if (byteLength > ARENA_BYTES / 4) {
      return { sides: this.#allocate(byteLength), byteOffset: 0 };
    }
    let arena = this.#arena;
    if (arena === undefined || this.#arenaUsed + byteLength > ARENA_BYTES) {
      const full = arena?.appAddress;
      arena = this.#allocate(ARENA_BYTES);
      this.#arena = arena;
      this.#arenaUsed = 0;
      if (full !== undefined && this.#sharing.get(full) === 0) {
        this.giveBack(full);
      }
    }
    const byteOffset = this.#arenaUsed;
    this.#arenaUsed += byteLength;
    this.#sharing.set(arena.appAddress, (this.#sharing.get(arena.appAddress) ?? 0) + 1);
    return { sides: arena, byteOffset };
  }

  #allocate(byteLength: number): Sides {
    const uffd = this.#uffd;
    const app = createWindowMemory(byteLength);
    const own = createWindowMemory(byteLength, false);
    const appAddress = uffd.libc.addressOf(app);
    const ownAddress = uffd.libc.addressOf(own);
    const fileOffset = uffd.reserveFile(Math.ceil(byteLength / WASM_PAGE) * WASM_PAGE);
    uffd.mapFile(ownAddress, byteLength, fileOffset);
    uffd.mapFile(appAddress, byteLength, fileOffset);
    this.#watch.onMemory?.({ buffer: app });
    uffd.register(appAddress, byteLength);
    return { app, own, appAddress, ownAddress, fileOffset };
  }

  /**
   * A window in the memory at `address` is gone. With the last one the memory is forgotten: arrays may be over it still, but
   * nobody waits for a page of it.
   */
  giveBack(address: number): void {
    const left = (this.#sharing.get(address) ?? 1) - 1;
    if (left > 0 || address === this.#arena?.appAddress) {
      this.#sharing.set(address, left);
      return;
    }
    this.#sharing.delete(address);
    this.#watch.onForget?.(address);
    collectSometimes();
  }

  /** No window gets a place any more. */
  close(): void {
    this.#arena = undefined;
  }
}
