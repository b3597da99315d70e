/** The address space, driver and device of one service, on either MMU. */
import { KernelError, PAGE_SIZE } from "../base/index.ts";
import { type WebGpuDevice, WebGpuDriver } from "../drivers/webgpu/index.ts";
import { AddressSpace, type CpuMmu, type Mapping, type MemoryObject, PhysicalMemory } from "../mm/index.ts";
import type { AdapterReport } from "../platform/adapter.ts";
import { openDawn } from "../platform/node/dawn.ts";
import { openFileObject } from "../platform/node/file-pager.ts";
import { SoftwareMmu } from "../platform/software/cpu-mmu.ts";
import { FaultLog } from "../platform/userfaultfd/fault-log.ts";
import { UserfaultfdMmu, type UserfaultfdMmuOptions } from "../platform/userfaultfd/mmu.ts";
import type { ServiceOptions } from "./protocol.ts";

/** What a host works with. */
export interface ServiceParts {
  readonly mm: AddressSpace;
  readonly adapter: AdapterReport | undefined;
  readonly log: FaultLog;
  readonly counts: { readonly faults: number; readonly pagesShown: number; readonly errors: number };
  /** For whoever cleans up after a service that died; empty on the software MMU. */
  readonly descriptors: readonly number[];
  /** @throws KernelError ENODEV the service was opened without one */
  device(): WebGpuDevice;
  openFile(path: string, write: boolean): Promise<MemoryObject>;
  /** Shows pages that are present to plain arrays, so that no access to them is a fault. */
  populate(mapping: Mapping, offset: number, length: number): void;
  close(): Promise<void>;
  /** The thread is about to end by an error: faults are left to the rescue. */
  stopServing(): void;
  /** The process ends: nobody waits for a page any more. Synchronous; nothing is written back. */
  quit(): void;
}

/** Opens a service's parts on the software MMU. @throws KernelError ENODEV, EINVAL */
export function openSoftwareParts(options: ServiceOptions): Promise<ServiceParts> {
  return openParts(new SoftwareMmu(), new FaultLog(), options);
}

/** Opens a service's parts on the userfaultfd MMU. @throws KernelError ENOTSUP, ENODEV, EINVAL */
export async function openTrapParts(options: ServiceOptions, mmuOptions: UserfaultfdMmuOptions): Promise<ServiceParts> {
  const mmu = new UserfaultfdMmu({ faultAround: options.faultAround, ...mmuOptions });
  try {
    return await openParts(mmu, mmu.log, options);
  } catch (error) {
    mmu.close();
    throw error;
  }
}

async function openParts(mmu: CpuMmu, log: FaultLog, options: ServiceOptions): Promise<ServiceParts> {
  const dawn = options.device === false ? undefined : await openDawn({ adapter: options.adapter });
  const driver = new WebGpuDriver();
  const memory = new PhysicalMemory(mmu);
  const trapping = mmu instanceof UserfaultfdMmu ? mmu : undefined;
  try {
    const { deviceMemory } = options;
    const device = dawn && (await driver.open({ gpu: dawn.adapter, label: "pagemirror", deviceMemory }));
    const mm = AddressSpace.create({ memory });
    return {
      mm,
      adapter: dawn?.report,
      log,
      descriptors: trapping?.uffd.descriptors ?? [],
      counts: trapping?.counts ?? { faults: 0, pagesShown: 0, errors: 0 },
      device: () => {
        if (device === undefined) {
          throw new KernelError(
            "ENODEV",
            "kernel",
            "the service was opened with device: false: open one with a device",
          );
        }
        return device;
      },
      openFile: (path, write) => openFileObject(memory, path, { write }),
      populate: (mapping, offset, length) => {
        const vma = mm.vmas.find(mapping.start + offset);
        const page = vma?.objectPage(mapping.start + offset) ?? 0;
        const end = page + Math.ceil((((mapping.start + offset) % PAGE_SIZE) + length) / PAGE_SIZE);
        if (vma !== undefined) {
          trapping?.populate(vma.object, page, end);
        }
      },
      stopServing: () => trapping?.uffd.stopServing(),
      quit: () => trapping?.close(),
      close: async () => {
        try {
          await mm[Symbol.asyncDispose]();
        } finally {
          await driver.unload();
          dawn?.close();
          trapping?.close();
        }
      },
    };
  } catch (error) {
    await driver.unload();
    dawn?.close();
    throw error;
  }
}
