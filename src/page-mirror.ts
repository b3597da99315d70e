/** What `open` gives on every platform: an address space, and a WebGPU device that mirrors it. */
import type { WebGpuDevice, WebGpuDriver } from "./drivers/webgpu/index.ts";
import type { AddressSpace, MemoryObject, PhysicalMemory } from "./mm/index.ts";
import type { AdapterReport } from "./platform/adapter.ts";
import type { OpenUrlOptions } from "./platform/http/index.ts";

/** The parts that a platform puts together. */
export interface PageMirrorParts {
  readonly mm: AddressSpace;
  readonly memory: PhysicalMemory;
  readonly driver: WebGpuDriver;
  readonly device: WebGpuDevice;
  readonly adapter: AdapterReport;
}

/** An address space and a device; each platform adds how it opens files. */
export class OpenedMirror implements AsyncDisposable {
  readonly mm: AddressSpace;
  readonly memory: PhysicalMemory;
  readonly driver: WebGpuDriver;
  readonly device: WebGpuDevice;
  /** Which adapter was chosen, and why. */
  readonly adapter: AdapterReport;
  readonly #release: () => void;
  #closed: Promise<void> | undefined;

  /** @internal Use `open` of the platform. */
  constructor(parts: PageMirrorParts, release: () => void) {
    this.mm = parts.mm;
    this.memory = parts.memory;
    this.driver = parts.driver;
    this.device = parts.device;
    this.adapter = parts.adapter;
    this.#release = release;
  }

  /**
   * Opens an HTTP(S) URL to map it: `mm.mmap({ object, length, shared: true, prot: "r" })`. Its pages are fetched by ranges
   * on fault. See `openUrlObject`.
   */
  async openUrl(url: string | URL, options: OpenUrlOptions = {}): Promise<MemoryObject> {
    // Bundlers make it a chunk of its own, for the programs that use it.
    const { openUrlObject } = await import("./platform/http/index.ts");
    return openUrlObject(this.memory, url, options);
  }

  /**
   * Ends everything: pages come home, shared files are written back, the driver is unloaded. Idempotent.
   * @throws KernelError EIO, ENOSPC a file cannot be written back; everything is ended all the same
   */
  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  async #close(): Promise<void> {
    try {
      await this.mm[Symbol.asyncDispose]();
    } finally {
      await this.driver.unload();
      this.#release();
    }
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
