/** A machine's memory for thousands of short runs, and a device with memory of its own that can be lost. */
import { KernelError, PAGE_SIZE } from "../../base/index.ts";
import {
  type CpuMmu,
  type CpuWindow,
  DevicePagemap,
  type DeviceRun,
  type MemoryObject,
  PageFlag,
  type PhysicalMemory,
  poisonPages,
} from "../../mm/index.ts";

/** Windows that are used again from run to run: an MMU whose bytes cost nothing. */
export class CheckMmu implements CpuMmu {
  readonly name = "software";
  readonly #windows: SharedArrayBuffer[] = [];
  #used = 0;

  /** Begins a new run: windows handed out before are free, and zero. */
  reset(): void {
    for (let i = 0; i < this.#used; i++) {
      new Uint8Array(this.#windows[i]).fill(0);
    }
    this.#used = 0;
  }

  createWindow(byteLength: number): CpuWindow {
    const at = this.#used++;
    const kept = this.#windows[at];
    const buffer = kept !== undefined && kept.byteLength === byteLength ? kept : new SharedArrayBuffer(byteLength);
    this.#windows[at] = buffer;
    return { buffer, byteOffset: 0, byteLength };
  }
}

/** Pages that one migration of this device takes at most. */
const FRAMES = 512;

/** A device with frames of its own. Its copies take a turn, so that something may come in between. */
export class PrivateMemory {
  readonly pagemap: DevicePagemap;
  readonly #pages = new Map<
    number,
    { readonly object: MemoryObject; readonly page: number; readonly bytes: Uint8Array }
  >();
  readonly #first: number;
  #next = 0;
  #lost = false;

  constructor(memory: PhysicalMemory) {
    this.pagemap = new DevicePagemap(memory, this, {
      migrateToRam: (runs, take) => this.#bringBack(runs, take),
      pageFree: (frame, count) => {
        for (let f = frame; f < frame + count; f++) {
          this.#pages.delete(f);
        }
      },
    });
    this.#first = this.pagemap.addFrames(FRAMES);
  }

  get lost(): boolean {
    return this.#lost;
  }

  /** Copies a page of the host into a frame. @throws KernelError ENODEV when the device was lost */
  async copyIn(object: MemoryObject, page: number): Promise<number> {
    await undefined;
    if (this.#lost) {
      throw new KernelError("ENODEV", "copy", "the device was lost");
    }
    const frame = this.#first + this.#next++;
    this.#pages.set(frame, { object, page, bytes: bytesOf(object, page).slice() });
    return frame;
  }

  /** The device goes away: what only it has is lost, and everybody is told so. */
  lose(): void {
    this.#lost = true;
    for (const { object, page } of [...this.#pages.values()]) {
      // A page in transit is poisoned by whoever moves it, when the copy fails.
      if ((object.flagsOf(page) & (PageFlag.Device | PageFlag.Busy)) === PageFlag.Device) {
        poisonPages(object, page, page + 1);
      }
    }
    this.#pages.clear();
  }

  /** No page may live here any more. */
  remove(): void {
    this.pagemap.removeFrames(this.#first, FRAMES);
  }

  async #bringBack(
    runs: readonly DeviceRun[],
    take: (run: DeviceRun, byteOffset: number, bytes: Uint8Array) => void,
  ): Promise<void> {
    await undefined;
    for (const run of runs) {
      for (let i = 0; i < run.count; i++) {
        const held = this.#pages.get(run.frame + i);
        if (this.#lost || held === undefined) {
          throw new KernelError("ENODEV", "copy", "the device was lost");
        }
        take(run, i * PAGE_SIZE, held.bytes);
        this.#pages.delete(run.frame + i);
      }
    }
  }
}

function bytesOf(object: MemoryObject, page: number): Uint8Array {
  object.windows.ensureAll(page, page + 1);
  return object.windows.bytes(page, page + 1);
}
