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
  /** Windows that are left in each memory that several share, by its address. */
  readonly #sharing = new Map<number, { readonly sides: Sides; left: number }>();

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
      const full = arena?.appAddress ?? 0;
      arena = { ...this.#allocate(ARENA_BYTES), shared: true };
      this.#arena = arena;
      this.#arenaUsed = 0;
      this.#sharing.set(arena.appAddress, { sides: arena, left: 0 });
      if (this.#sharing.get(full)?.left === 0) {
        this.#forget(full);
      }
    }
    const byteOffset = this.#arenaUsed;
    this.#arenaUsed += byteLength;
    const sharing = this.#sharing.get(arena.appAddress);
    if (sharing !== undefined) {
      sharing.left++;
    }
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
    try {
      uffd.register(appAddress, byteLength);
    } catch (error) {
      this.#watch.onForget?.(appAddress);
      throw error;
    }
    return { app, own, appAddress, ownAddress, fileOffset };
  }

  /**
   * A window in the memory at `address` is gone. With the last one the memory is forgotten: arrays may be over it still, but
   * nobody waits for a page of it.
   */
  giveBack(address: number): void {
    const sharing = this.#sharing.get(address);
    if (sharing !== undefined && (--sharing.left > 0 || address === this.#arena?.appAddress)) {
      return;
    }
    this.#forget(address);
  }

  #forget(address: number): void {
    const sides = this.#sharing.get(address)?.sides;
    if (sides !== undefined) {
      this.#clear(sides);
      this.#sharing.delete(address);
    }
    this.#watch.onForget?.(address);
    collectSometimes();
  }

  /** Of memory that windows shared: what is left there is nobody's. */
  #clear({ appAddress, fileOffset }: Sides): void {
    this.#uffd.mapZeros(appAddress, ARENA_BYTES);
    this.#uffd.punch(fileOffset, ARENA_BYTES);
  }

  /** No window gets a place any more. */
  close(): void {
    if (this.#arena !== undefined) {
      this.#clear(this.#arena);
      this.#arena = undefined;
    }
  }
}
