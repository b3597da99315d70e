/**
 * PageMirror for Node: an address space, on the software MMU or on the kernel's page faults, and a WebGPU device through
 * Dawn that mirrors it.
 */
import { WebGpuDriver } from "./drivers/webgpu/index.ts";
import { AddressSpace, type MemoryObject, PhysicalMemory } from "./mm/index.ts";
import { OpenedMirror } from "./page-mirror.ts";
import { openDawn } from "./platform/node/dawn.ts";
import { settleAtEnd } from "./platform/node/dawn-end.ts";
import { type OpenFileOptions, openFileObject } from "./platform/node/file-pager.ts";
import { SoftwareMmu } from "./platform/software/cpu-mmu.ts";
import { type OpenOptions, openShared, type SharedMirror, type SharedOptions } from "./service/index.ts";

export * from "./index.ts";
export type { AdapterAttempt, AdapterReport } from "./platform/adapter.ts";
export { type OpenAdapter, type OpenDawnOptions, openDawn } from "./platform/node/dawn.ts";
export { type OpenFileOptions, openFileObject } from "./platform/node/file-pager.ts";
export { sendOpenTelemetry } from "./platform/node/otel.ts";
export { publishTrace, traceChannelName } from "./platform/node/trace-channels.ts";
export { type TraceFile, writeTrace } from "./platform/node/trace-file.ts";
export { type FaultError, FaultLog, POISON_WORD } from "./platform/userfaultfd/fault-log.ts";
export { UserfaultfdMmu, type UserfaultfdMmuOptions } from "./platform/userfaultfd/mmu.ts";
export { probeUserfaultfd, type UserfaultfdReport } from "./platform/userfaultfd/probe.ts";
export * from "./service/index.ts";
export { ChromeTraceWriter, type MeterLike, sendMetrics } from "./trace/index.ts";

/** An address space and a device. Dispose it with `await using`, or call `close`. */
export class PageMirror extends OpenedMirror {
  /** Opens a file to map it: `mm.mmap({ object, length, shared: true, prot: "r" })`. See {@link openFileObject}. */
  openFile(path: string, options: OpenFileOptions = {}): Promise<MemoryObject> {
    return openFileObject(this.memory, path, options);
  }
}

/**
 * Opens an address space and a device with one API for both MMUs: on userfaultfd they live in a thread of their own, and
 * mappings are plain arrays that page-fault; on software the same arrays need leases. See {@link openShared}.
 * @throws KernelError ENODEV; EINVAL; ENOTSUP userfaultfd was asked for and does not work, with the remedy
 */
export function open(
  options: SharedOptions & { readonly mmu: NonNullable<SharedOptions["mmu"]> },
): Promise<SharedMirror>;
/**
 * Opens an address space and a device.
 * @throws KernelError ENODEV no adapter, with what was tried; EINVAL
 */
export function open(options?: OpenOptions & { readonly mmu?: undefined }): Promise<PageMirror>;
export function open(options: OpenOptions | SharedOptions = {}): Promise<PageMirror | SharedMirror> {
  return "mmu" in options && options.mmu !== undefined ? openShared(options) : openHere(options);
}

async function openHere(options: OpenOptions): Promise<PageMirror> {
  const { adapter, report, waiting, writing, close } = await openDawn({ adapter: options.adapter });
  const driver = new WebGpuDriver();
  try {
    const { deviceMemory } = options;
    const device = await driver.open({ gpu: adapter, label: "pagemirror", deviceMemory, waiting, writing });
    const memory = new PhysicalMemory(new SoftwareMmu());
    const mm = AddressSpace.create({ memory });
    const settled = settleAtEnd(device.gpu.device);
    return new PageMirror({ mm, memory, driver, device, adapter: report }, () => {
      settled();
      close();
    });
  } catch (error) {
    await driver.unload();
    close();
    throw error;
  }
}
