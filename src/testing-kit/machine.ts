/** The machine that one test of the suite runs on. */
import { PAGE_SIZE } from "../base/index.ts";
import { AddressSpace, type CpuMmu, type Mapping, PhysicalMemory, SVM_APERTURE_BASE, validateMm } from "../mm/index.ts";
import type { ConformanceDevice, ConformanceDriver } from "./driver.ts";

/** Above 2^40, where arithmetic in 32 bits would show; 16 KiB aligned, and where kernels in svm mode can get. */
export const BASE = SVM_APERTURE_BASE + 2 ** 33;

/** Memory, a driver, and the address spaces of one test. */
export class TestMachine {
  readonly memory: PhysicalMemory;
  readonly driver: ConformanceDriver;
  readonly #spaces: AddressSpace[] = [];

  constructor(mmu: CpuMmu, driver: ConformanceDriver) {
    this.memory = new PhysicalMemory(mmu);
    this.driver = driver;
  }

  /** One more address space, or one that a fork made. */
  space(mm: AddressSpace = AddressSpace.create({ memory: this.memory })): AddressSpace {
    this.#spaces.push(mm);
    return mm;
  }

  /** A space with `pages` pages mapped at {@link BASE}, and a device that is open for it. */
  async open(pages = 4): Promise<{ mm: AddressSpace; map: Mapping; device: ConformanceDevice }> {
    const mm = this.space();
    const map = await mm.mmap({ addr: BASE, length: pages * PAGE_SIZE, fixed: true });
    return { mm, map, device: await this.driver.open(mm) };
  }

  /** Every space is in order. */
  validate(): void {
    for (const mm of this.#spaces) {
      validateMm(mm);
    }
  }

  /** The spaces exit, the driver is unloaded. */
  async end(): Promise<void> {
    for (const mm of this.#spaces) {
      await mm[Symbol.asyncDispose]();
    }
    await this.driver.unload();
  }
}
