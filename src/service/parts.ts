/** The address space, driver and device of one service, on either MMU. */
import { KernelError, PAGE_SIZE } from "../base/index.ts";
import { WebGpuDriver } from "../drivers/webgpu/index.ts";
import { AddressSpace, type CpuMmu, PhysicalMemory } from "../mm/index.ts";
import { openUrlObject } from "../platform/http/index.ts";
import { openDawn } from "../platform/node/dawn.ts";
import { openFileObject } from "../platform/node/file-pager.ts";
import { SoftwareMmu } from "../platform/software/cpu-mmu.ts";
import { FaultLog } from "../platform/userfaultfd/fault-log.ts";
import { UserfaultfdMmu, type UserfaultfdMmuOptions } from "../platform/userfaultfd/mmu.ts";
import type { ServiceParts } from "./host.ts";
import type { ServiceOptions } from "./protocol.ts";

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
      openFile: (path, write) => {
        if (typeof path !== "string") {
          throw new KernelError("EINVAL", "open", "a File is a browser's: give a path here");
        }
        return openFileObject(memory, path, { write });
      },
      openUrl: (url, headers) => openUrlObject(memory, url, { headers }),
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
