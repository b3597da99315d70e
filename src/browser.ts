/**
 * PageMirror for browsers, in a page or in a worker of it: an address space on the software MMU, and a WebGPU device that
 * mirrors it.
 */
import "./platform/browser/dispose-symbols.ts";
import { WebGpuDriver } from "./drivers/webgpu/index.ts";
import { AddressSpace, type MemoryObject, PhysicalMemory } from "./mm/index.ts";
import { OpenedMirror } from "./page-mirror.ts";
import {
  type BrowserFile,
  type OpenFileOptions,
  openBrowserAdapter,
  openBrowserFile,
  queueNeedsNudging,
  reportOn,
} from "./platform/browser/index.ts";
import { SoftwareMmu } from "./platform/software/cpu-mmu.ts";

export { type OpenWorkerOptions, openWorker } from "./browser-client.ts";
export * from "./index.ts";
export type { AdapterAttempt, AdapterReport } from "./platform/adapter.ts";
export { type BrowserFile, type OpenFileOptions, openBrowserFile } from "./platform/browser/index.ts";
export { MemoryErrorEvent, SharedMirror } from "./service/client.ts";
export type { MmuChoice } from "./service/options.ts";
export { PlainArrays, SharedLease } from "./service/plain-arrays.ts";
export {
  SharedDevice,
  type SharedDispatchOptions,
  type SharedKernel,
  type SharedTarget,
} from "./service/shared-device.ts";
export { SharedMapping, type SharedRange } from "./service/shared-mapping.ts";
export { type SharedFile, SharedMemory, type SharedMmapOptions } from "./service/shared-memory.ts";
export { ChromeTraceWriter } from "./trace/index.ts";

/** How the library is opened in a page. */
export interface OpenOptions {
  /** The most bytes of GPU buffers that hold pages. */
  readonly deviceMemory?: number | undefined;
  /**
   * A device of the page's, which stays its to destroy, or an adapter that has given no device yet. Default: a device with
   * all that the browser's adapter can do.
   */
  readonly gpu?: GPUDevice | GPUAdapter | undefined;
}

/** An address space and a device. Dispose it with `await using`, or call `close`. */
export class PageMirror extends OpenedMirror {
  /**
   * Opens a file to map it: `mm.mmap({ object, length: file.size, shared: true, prot: "r" })`. See {@link openBrowserFile}.
   */
  openFile(file: BrowserFile, options: OpenFileOptions = {}): Promise<MemoryObject> {
    return openBrowserFile(this.memory, file, options);
  }
}

/**
 * Opens an address space and a device.
 * @throws KernelError ENODEV no secure context, no WebGPU, no adapter, or one that has given its device: each with the
 *   remedy; EINVAL
 */
export async function open(options: OpenOptions = {}): Promise<PageMirror> {
  const { gpu, report } =
    options.gpu === undefined ? await openBrowserAdapter() : { gpu: options.gpu, report: reportOn(options.gpu) };
  const driver = new WebGpuDriver();
  try {
    const device = await driver.open({
      gpu,
      label: "pagemirror",
      deviceMemory: options.deviceMemory,
      waiting: queueNeedsNudging() ? "nudge" : undefined,
    });
    const memory = new PhysicalMemory(new SoftwareMmu());
    const mm = AddressSpace.create({ memory });
    return new PageMirror({ mm, memory, driver, device, adapter: report }, () => undefined);
  } catch (error) {
    await driver.unload();
    throw error;
  }
}
