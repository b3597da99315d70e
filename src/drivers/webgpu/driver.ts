/** The WebGPU driver: opens devices, and ends with the barrier that lets its code go away. */
import { KernelError } from "../../base/index.ts";
import { mmuNotifierSynchronize } from "../../mmu-notifier/index.ts";
import { lockdepTask } from "../../sync/index.ts";
import { WebGpuDevice, type WebGpuDeviceOptions } from "./device.ts";
import type { DirectWrites } from "./direct-upload.ts";
import { adoptGpuDevice, type GpuHandle, openGpuDevice, type WhileWaiting } from "./gpu-handle.ts";

/** How a device is opened. */
export interface WebGpuOpenOptions extends WebGpuDeviceOptions {
  /** A device of the caller's, which stays his to destroy; or an adapter, whose device the driver opens. */
  readonly gpu: GPUDevice | GPUAdapter;
  /** For messages and GPU debuggers. */
  readonly label?: string | undefined;
  /**
   * What to do while something waits for the GPU. "nudge" sends empty submissions: Firefox notices its end a tenth of a second
   * late otherwise. `openDawn` gives what is good for the adapter that it found.
   */
  readonly waiting?: WhileWaiting;
  /** How small uploads go straight into the GPU's memory. `openDawn` gives it for adapters on which that is faster. */
  readonly writing?: DirectWrites | undefined;
}

/** The driver: opens devices, and ends with all of them. */
export class WebGpuDriver implements AsyncDisposable {
  readonly #devices = new Set<WebGpuDevice>();
  #unloaded: Promise<void> | undefined;

  /**
   * Opens a device over an adapter, or adopts one.
   * @throws KernelError ENODEV the adapter gives no device, the device is lost, or the driver was unloaded; EINVAL
   */
  async open(options: WebGpuOpenOptions): Promise<WebGpuDevice> {
    this.#assertLoaded();
    const label = options.label ?? "pagemirror";
    const gpu: GpuHandle =
      "requestDevice" in options.gpu
        ? await openGpuDevice(options.gpu, label, options)
        : adoptGpuDevice(options.gpu, label, options);
    try {
      this.#assertLoaded();
      const device = new WebGpuDevice(gpu, options);
      this.#devices.add(device);
      return device;
    } catch (error) {
      gpu.destroy();
      throw error;
    }
  }

  #assertLoaded(): void {
    if (this.#unloaded !== undefined) {
      throw new KernelError("ENODEV", "open", "the driver was unloaded: make a new one");
    }
  }

  /**
   * Ends every device: waits for the dispatches that are under way, brings all pages home, unregisters the mirrors, and
   * returns when no callback of the driver runs or will run. Idempotent.
   * @throws KernelError ENOMEM when pages cannot come home: they are lost, all else is done
   * @linux drivers/gpu/drm/amd/amdgpu/amdgpu_drv.c amdgpu_exit
   */
  unload(): Promise<void> {
    this.#unloaded ??= this.#unload();
    return this.#unloaded;
  }

  async #unload(): Promise<void> {
    // Side by side: each a task of its own, for lockdep.
    const close = (device: WebGpuDevice) => lockdepTask(`close ${device.label}`, () => device.close());
    const closed = await Promise.allSettled([...this.#devices].map(close));
    await mmuNotifierSynchronize();
    for (const result of closed) {
      if (result.status === "rejected") {
        throw result.reason;
      }
    }
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.unload();
  }
}
