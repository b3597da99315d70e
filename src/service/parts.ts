/** The address space, driver and device of one service, on either MMU. */
import { KernelError, PAGE_SIZE } from "../base/index.ts";
import { WebGpuDriver } from "../drivers/webgpu/index.ts";
import { AddressSpace, type CpuMmu, PhysicalMemory } from "../mm/index.ts";
import { openUrlObject } from "../platform/http/index.ts";
import { openDawn, untilDawnRests } from "../platform/node/dawn.ts";
import { settleAtEnd } from "../platform/node/dawn-end.ts";
import { openFileObject } from "../platform/node/file-pager.ts";
import { PollPause, SLEEP_MS } from "../platform/node/poll-pause.ts";
import { SoftwareMmu } from "../platform/software/cpu-mmu.ts";
import { FaultLog } from "../platform/userfaultfd/fault-log.ts";
import { UserfaultfdMmu, type UserfaultfdMmuOptions } from "../platform/userfaultfd/mmu.ts";
import type { ServiceParts } from "./host.ts";
import type { ServiceOptions } from "./options.ts";

/** Told of errors that no call reports, with the address in the space, if they have one. */
export type ErrorListener = (error: KernelError, address?: number) => void;

/** Opens a service's parts on the software MMU. @throws KernelError ENODEV, EINVAL */
export function openSoftwareParts(options: ServiceOptions, onError: ErrorListener): Promise<ServiceParts> {
  return openParts(new SoftwareMmu(), new FaultLog(), options, onError);
}

/** The parts of a service whose thread serves faults. */
export interface TrapParts {
  readonly parts: ServiceParts;
  readonly mmu: UserfaultfdMmu;
  /** Cuts the GPU's work off; resolves when the thread may end. */
  stopGpu(): Promise<void>;
}

/** Opens a service's parts on the userfaultfd MMU. @throws KernelError ENOTSUP, ENODEV, EINVAL */
export async function openTrapParts(
  options: ServiceOptions,
  mmuOptions: UserfaultfdMmuOptions,
  onError: ErrorListener,
): Promise<TrapParts> {
  const mmu = new UserfaultfdMmu({ faultAround: options.faultAround, ...mmuOptions });
  try {
    const parts = await openParts(mmu, mmu.log, options, onError);
    const stopGpu = async () => {
      if (options.device !== false) {
        parts.device().gpu.device.destroy();
        await untilDawnRests();
      }
    };
    return { mmu, parts, stopGpu };
  } catch (error) {
    mmu.close();
    throw error;
  }
}

async function openParts(
  mmu: CpuMmu,
  log: FaultLog,
  options: ServiceOptions,
  onError: ErrorListener,
): Promise<ServiceParts> {
  const dawn = options.device === false ? undefined : await openDawn({ adapter: options.adapter });
  const driver = new WebGpuDriver();
  const memory = new PhysicalMemory(mmu);
  const trapping = mmu instanceof UserfaultfdMmu ? mmu : undefined;
  let closing = false;
  try {
    const { deviceMemory } = options;
    // A thread that serves faults may sleep, but not through one.
    const waiting =
      trapping === undefined ? dawn?.waiting : dawn?.waiting && new PollPause(() => trapping.uffd.sleep(SLEEP_MS));
    const device =
      dawn &&
      (await driver.open({ gpu: dawn.adapter, label: "pagemirror", deviceMemory, waiting, writing: dawn.writing }));
    device?.gpu.lost.onLost(() => {
      if (!closing) {
        onError(device.gpu.lost.error("device"));
      }
    });
    const mm = AddressSpace.create({ memory });
    // A service thread is not ended before its GPU rests.
    const settled = trapping === undefined && device !== undefined ? settleAtEnd(device.gpu.device) : () => {};
    return {
      mm,
      adapter: dawn?.report,
      log,
      counts: trapping?.counts ?? { faults: 0, pagesShown: 0, errors: 0 },
      device: () => {
        if (device === undefined) {
          throw new KernelError(
            "ENODEV",
            "device",
            "the service was opened with device: false: open one with a device",
          );
        }
        return device;
      },
      // A fault must not wait for libuv's threads: they may wait for faults themselves.
      openFile: (path, fileOptions) => {
        if (typeof path !== "string") {
          throw new KernelError("EINVAL", "open", "a File is a browser's: give a path here");
        }
        return openFileObject(memory, path, { ...fileOptions, ...(trapping && { synchronous: true }) });
      },
      openUrl: (url, urlOptions) => openUrlObject(memory, url, urlOptions),
      populate: ({ mm: space, start, end }) => {
        const vma = space.vmas.find(start);
        const page = vma?.objectPage(start) ?? 0;
        if (vma !== undefined) {
          trapping?.populate(vma.object, page, page + Math.ceil(((start % PAGE_SIZE) + (end - start)) / PAGE_SIZE));
        }
      },
      close: async () => {
        closing = true;
        try {
          await mm[Symbol.asyncDispose]();
        } finally {
          await driver.unload();
          settled();
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
