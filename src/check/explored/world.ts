/** What the tasks of a scenario share: one address space with mappings, devices and notifiers, and what must hold of it. */
import { addrOf, ledgerCounts, type Pfn, virtAddr, vpnOf } from "../../base/index.ts";
import { type Dmirror, DmirrorDriver } from "../../drivers/dmirror/index.ts";
import {
  AddressSpace,
  announceRuns,
  type Mapping,
  type MemoryObject,
  PhysicalMemory,
  PTE_PRESENT,
  PTE_WRITE,
  PteKind,
  pteIsKind,
  ptePfn,
  rewriteEntries,
  SVM_APERTURE_BASE,
  validateMm,
} from "../../mm/index.ts";
import {
  type MmuNotifierOps,
  mmuNotifierGet,
  mmuNotifierPut,
  mmuNotifierSynchronize,
} from "../../mmu-notifier/index.ts";
import type { Host } from "../scenario.ts";
import { CheckMmu, PrivateMemory } from "./memory.ts";
import { type ProbeNotifier, probeOps } from "./probe.ts";

/** Pages of the one mapping. */
export const PAGES = 4;
/** Kinds of entries of pages that a device may have while the CPU may not touch them. */
const AWAY = [PteKind.DevicePrivate, PteKind.DeviceExclusive];
/** Above 2^40, where arithmetic in 32 bits would show, and where kernels in svm mode get. */
export const BASE = SVM_APERTURE_BASE + 2 ** 20;
export const START = virtAddr(BASE, "check");
export const PAGE = 4096;

const mmu = new CheckMmu();

/** An entry of a device's table. */
interface CheckedEntry {
  readonly pfn: number;
  readonly write: boolean;
  /** The device has the page for itself. */
  readonly exclusive?: boolean;
}

/** A device whose entries are compared with the CPU's. */
export interface CheckedDevice {
  readonly mm: AddressSpace;
  /** By virtual page number. */
  readonly table: { entries(): Iterable<[number, CheckedEntry]> };
}

/** The state of one run. */
export class World {
  readonly host: Host;
  readonly memory: PhysicalMemory;
  readonly mm: AddressSpace;
  readonly driver = new DmirrorDriver();
  /** All devices that are or were open, for the check of their entries. */
  readonly devices: CheckedDevice[] = [];
  readonly notifiers: ProbeNotifier[] = [];
  readonly ops: MmuNotifierOps<ProbeNotifier>;
  /** What has to be given back when the tasks have ended, the latest first. */
  readonly endings: (() => unknown)[] = [];
  /** Notifiers whose last put was made. */
  readonly put = new Set<ProbeNotifier>();
  readonly #ledger = ledgerCounts();
  #privateMemory: PrivateMemory | undefined;
  #creatorsUser = true;
  readonly #spaces: AddressSpace[] = [];

  constructor(host: Host) {
    this.host = host;
    mmu.reset();
    this.memory = new PhysicalMemory(mmu);
    this.mm = AddressSpace.create({ memory: this.memory });
    this.#spaces.push(this.mm);
    this.ops = probeOps(host, this.notifiers);
  }

  /** Maps the pages and lets the CPU write the first half of them. */
  async map(): Promise<Mapping> {
    // The queues of the domain outlive a run. Emptied, they are of this one.
    await mmuNotifierSynchronize();
    const mapping = await this.mm.mmap({ addr: BASE, length: PAGES * PAGE, fixed: true });
    using lease = await mapping.lease("rw", { offset: 0, length: (PAGES / 2) * PAGE });
    lease.u8.fill(1, 0, 8);
    return mapping;
  }

  /** A device, opened. */
  async open(driver: DmirrorDriver = this.driver, which = 0): Promise<Dmirror> {
    const device = await driver.open(this.mm, { device: which });
    this.devices.push(device);
    return device;
  }

  /** One memory of a device for all tasks. */
  get privateMemory(): PrivateMemory {
    if (this.#privateMemory === undefined) {
      const made = new PrivateMemory(this.memory);
      this.#privateMemory = made;
    }
    return this.#privateMemory;
  }

  /** A space that `fork` made. */
  watch(mm: AddressSpace): void {
    this.#spaces.push(mm);
  }

  /** A probe, got once. */
  get(): Promise<ProbeNotifier> {
    return mmuNotifierGet(this.ops, this.mm);
  }

  /** Gives one get back. */
  release(probe: ProbeNotifier): void {
    mmuNotifierPut(probe);
    if (probe.users === 0) {
      this.put.add(probe);
    }
  }

  /**
   * What plain arrays wrote to the first two pages becomes known: two runs in one invalidation, as a trap may tell of them.
   * From then on the next write is a fault.
   */
  async clearRuns(): Promise<void> {
    const object = this.mm.vmas.find(START)?.object.get();
    if (object !== undefined) {
      try {
        await announceRuns(object, [0, 1, 1, 2], "clear", () => this.changeRuns(object));
      } finally {
        await object.put();
      }
    }
  }

  /** Between the start and the end of that invalidation. */
  protected changeRuns(object: MemoryObject): void {
    rewriteEntries(object, 0, 2, (pte) => (pte & PTE_PRESENT && !object.isPinned(0, 2, "rw") ? pte & ~PTE_WRITE : pte));
  }

  /** The creator's user, dropped by whoever comes first. */
  async exit(): Promise<void> {
    if (this.#creatorsUser) {
      this.#creatorsUser = false;
      await this.mm.mmput();
    }
  }

  /** After every step. */
  check(): void {
    for (const mm of this.#spaces) {
      // Between its last put and the end of its exit a space is neither alive nor empty.
      if (mm.users > 0) {
        validateMm(mm);
      }
    }
    for (const device of this.devices) {
      this.#checkEntries(device);
    }
    for (const probe of this.notifiers) {
      if (probe.frees > 0 && !this.put.has(probe)) {
        this.host.fail("I-MN-3", `${probe.name} is freed while somebody holds it`);
      }
    }
  }

  /** I-HMM-1: a device's entry is absent, or where the CPU's says that the page is, with no more permission. */
  #checkEntries(device: CheckedDevice): void {
    for (const [vpn, entry] of device.table.entries()) {
      const pte = device.mm.pageTable.get(vpn);
      const page = vpn - vpnOf(addrOf(BASE / PAGE));
      if (pteIsKind(pte, PteKind.Migrating)) {
        // The driver that moves the page tells its device before the CPU; to others it was taken away before.
        this.#checkMoving(page, entry.pfn);
      } else if (!(pte & PTE_PRESENT) && !AWAY.some((kind) => pteIsKind(pte, kind))) {
        this.host.fail("I-HMM-1", `a device has an entry for page ${page}, which the CPU has not`);
      } else if (ptePfn(pte) !== entry.pfn) {
        this.host.fail(
          "I-HMM-1",
          `a device's entry for page ${page} names frame ${entry.pfn}, the CPU's ${ptePfn(pte)}`,
        );
      } else if (entry.write && !(pte & PTE_WRITE)) {
        this.host.fail("I-HMM-1", `a device may write page ${page}, the CPU may not`);
      } else if (entry.exclusive && !pteIsKind(pte, PteKind.DeviceExclusive)) {
        this.host.fail("I-HMM-1", `a device has page ${page} for itself, and so has the CPU`);
      }
    }
  }

  /** A page that is on its way may be known only to the device that it goes to, or where it was. */
  #checkMoving(page: number, pfn: number): void {
    if (this.memory.blockOf(pfn as Pfn)?.pagemap === undefined) {
      this.host.fail("I-HMM-1", `a device has page ${page} in system memory, which is moving`);
    }
  }

  /** Gives everything back. */
  async finish(): Promise<void> {
    for (const ending of this.endings.splice(0).reverse()) {
      await ending();
    }
    await this.exit();
    await this.driver.unload();
    await mmuNotifierSynchronize();
    this.#privateMemory?.remove();
  }

  /** Nothing may be left. */
  checkEnd(): void {
    for (const probe of this.notifiers) {
      if (probe.frees !== 1) {
        this.host.fail("I-MN-3", `${probe.name} was freed ${probe.frees} times`);
      }
    }
    for (const mm of this.#spaces) {
      validateMm(mm);
    }
    const now = ledgerCounts();
    for (const kind of Object.keys({ ...now, ...this.#ledger }) as (keyof typeof now)[]) {
      if ((now[kind] ?? 0) !== (this.#ledger[kind] ?? 0)) {
        this.host.fail("I-CHK-4", `${(now[kind] ?? 0) - (this.#ledger[kind] ?? 0)} of "${kind}" are left at the end`);
      }
    }
  }
}
