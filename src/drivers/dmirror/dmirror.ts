/**
 * One open of the reference device: a mirror of one address space, and the access loop that every driver has.
 *
 * The device reads and writes system memory in place, by frame number, through a page table of its own. The update lock
 * orders the two who change that table: the sync callback removes entries before the CPU's change, and an access puts
 * entries in only while its range is valid. So either the callback sees the new entry and removes it, or the access sees
 * that its range is not valid any more.
 */
import {
  addLength,
  formatRange,
  invariant,
  KernelError,
  type MaybePromise,
  PAGE_SIZE,
  type Pfn,
  pageAlignDown,
  pageAlignUp,
  type VirtRange,
  virtAddr,
  vpnOf,
} from "../../base/index.ts";
import { DEFAULT_PFN_FLAGS, HMM_RANGE_DEFAULT_TIMEOUT, HmmMirror, HmmRange } from "../../hmm/index.ts";
import { type AddressSpace, forEachPart, type MmuNotifierRange, makeDeviceExclusive, ptePfn } from "../../mm/index.ts";
import { lockdepTask, type MmapRead, Mutex, type WaitOptions } from "../../sync/index.ts";
import type { DmirrorDevice } from "./device-memory.ts";
import { DeviceEntryBits, DeviceTable } from "./device-table.ts";
import { bringBytes, checkReadable } from "./fault-bytes.ts";
import { moveToDevice, moveToSystem } from "./migrate.ts";
import { snapshotPages } from "./snapshot.ts";

/** What the CPU's page table grants for a page. @linux lib/test_hmm_uapi.h HMM_DMIRROR_PROT_NONE and following */
export type DmirrorProt = "none" | "r" | "rw";

/** What a command came to. @linux lib/test_hmm_uapi.h struct hmm_dmirror_cmd */
export interface DmirrorCounts {
  /** Pages that the command got through with. */
  pages: number;
  /** Passes of device page faults: a cold range of any size is one. */
  faults: number;
}

/** How a command is given. */
export interface DmirrorOptions extends WaitOptions {
  /** Filled in, also when the command fails. */
  readonly counts?: DmirrorCounts;
}

/** @linux lib/test_hmm.c struct dmirror */
export class Dmirror {
  readonly mm: AddressSpace;
  readonly device: DmirrorDevice;
  /** Protected by the update lock. */
  readonly table = new DeviceTable();
  readonly update = new Mutex("update");
  readonly #mirror: HmmMirror;
  #faults = 0;

  /** @internal Use DmirrorDriver.open. */
  constructor(mm: AddressSpace, device: DmirrorDevice) {
    this.mm = mm;
    this.device = device;
    this.#mirror = new HmmMirror({
      name: "dmirror",
      syncCpuDevicePagetables: (_mirror, update) => this.#sync(update),
      release: () => this.#release(),
    });
  }

  /** Device page faults served so far. */
  get faults(): number {
    return this.#faults;
  }

  /** @internal An invalidation that overlaps is under way. */
  isInvalidating(start: number, end: number): boolean {
    return this.#mirror.hmm.isInvalidating(start, end);
  }

  /** @internal */
  register(options?: WaitOptions): Promise<void> {
    return this.#mirror.register(this.mm, options);
  }

  /** @internal On return no callback runs or comes. Accesses have ended. */
  async unregister(): Promise<void> {
    // First, because afterwards nobody tells this device of changes.
    await this.#release();
    await this.#mirror.unregister();
  }

  /**
   * Reads memory through the device.
   * @throws KernelError EFAULT nothing is mapped there, it is not readable, or the address space has exited; EINVAL no
   *   address; EBUSY it was invalidated again and again for `timeoutMs` (1000); EINTR, ENOMEM
   * @linux lib/test_hmm.c dmirror_read
   */
  async read(addr: number, length: number, options?: DmirrorOptions): Promise<Uint8Array> {
    const bytes = new Uint8Array(length);
    await this.#access(addr, length, false, options, (page, offset, count, at) => {
      bytes.set(page.subarray(offset, offset + count), at);
    });
    return bytes;
  }

  /**
   * Writes memory through the device.
   * @throws KernelError as {@link read}; EPERM not writable
   * @linux lib/test_hmm.c dmirror_write
   */
  async write(addr: number, bytes: Uint8Array, options?: DmirrorOptions): Promise<void> {
    await this.#access(addr, bytes.length, true, options, (page, offset, count, at) => {
      page.set(bytes.subarray(at, at + count), offset);
    });
  }

  /**
   * What the CPU's page table grants for each page that `[addr, addr + length)` touches. Faults nothing in.
   * @throws KernelError as {@link read}; EPERM a mapping without read permission
   * @linux lib/test_hmm.c dmirror_snapshot
   */
  snapshot(addr: number, length: number, options?: WaitOptions): Promise<DmirrorProt[]> {
    return lockdepTask("dmirror snapshot", async () => {
      const { start, end } = pagesOf("snapshot", addr, length);
      const range = new HmmRange({ start, end });
      range.register(this.#mirror);
      try {
        await this.#untilDone(range, options, () => this.#trySnapshot(range, options));
        return Array.from(range.pfns, (entry) => protOf(range, entry));
      } finally {
        await range.unregister();
      }
    });
  }

  /**
   * A byte of `DmirrorPage` for each page that `[addr, addr + length)` touches. Faults nothing in.
   * @throws KernelError EINVAL no address, or the space has exited; EBUSY, EINTR, ENOMEM
   * @linux lib/test_hmm.c dmirror_snapshot
   */
  snapshotPages(addr: number, length: number, options?: WaitOptions): Promise<Uint8Array> {
    return lockdepTask("dmirror snapshot", () =>
      snapshotPages(this.mm, this.device, pagesOf("snapshot", addr, length), options),
    );
  }

  /**
   * Moves the pages of `[addr, addr + length)` into the device's memory. Returns how many are there.
   * @throws KernelError EINVAL a hole, a mapping that is not readable, no address, or the space has exited; ENOENT a page did
   *   not move: a lease holds it, it is another device's, or the device has no memory; the others did
   * @linux lib/test_hmm.c dmirror_migrate_to_device
   */
  async migrateToDevice(addr: number, length: number, options?: DmirrorOptions): Promise<number> {
    const range = pagesOf("migrate", addr, length);
    const pages = await this.#underLock("dmirror migrate", options, async (lock) => {
      await moveToDevice(this, this.device, lock, range);
      return this.#pagesHere(range);
    });
    count(options, pages, 0);
    const all = (range.end - range.start) / PAGE_SIZE;
    if (pages < all) {
      const why = `${all - pages} of ${all} pages did not move: dispose leases on them, or release device memory`;
      throw new KernelError("ENOENT", "dmirror migrate", why);
    }
    return pages;
  }

  /**
   * Moves the pages of `[addr, addr + length)` that are in the device's memory back to the system's. Returns how many did.
   * @throws KernelError EINVAL as {@link migrateToDevice}
   * @linux lib/test_hmm.c dmirror_migrate_to_system
   */
  async migrateToSystem(addr: number, length: number, options?: DmirrorOptions): Promise<number> {
    const range = pagesOf("migrate", addr, length);
    const pages = await this.#underLock("dmirror migrate", options, (lock) =>
      moveToSystem(this, this.device, lock, range),
    );
    count(options, pages, 0);
    return pages;
  }

  /**
   * Gives the device the pages of `[addr, addr + length)`, in system memory, for itself. Whoever touches one takes it back.
   * @throws KernelError EBUSY a lease holds a page; EINVAL, EFAULT as `makeDeviceExclusive`; pages before it are the device's
   * @linux lib/test_hmm.c dmirror_exclusive
   */
  async exclusive(addr: number, length: number, options?: DmirrorOptions): Promise<void> {
    const { start, end } = pagesOf("exclusive", addr, length);
    await this.#underLock("dmirror exclusive", options, async (lock) => {
      for (let at: number = start; at < end; at += PAGE_SIZE) {
        const page = await makeDeviceExclusive(this.mm, lock, at, this.device);
        if (page === "EBUSY") {
          throw new KernelError(
            "EBUSY",
            "dmirror exclusive",
            `a lease holds ${formatRange({ start: at, end })}: dispose it`,
          );
        }
        using locked = page;
        using _ = await this.update.lock();
        // While an invalidation is under way the device has been told of it already: its next access takes the page back.
        if (!this.isInvalidating(at, at + PAGE_SIZE)) {
          this.table.setPfn(vpnOf(at), locked.pfn, DeviceEntryBits.Write | DeviceEntryBits.Exclusive);
        }
        count(options, 1 + (at - start) / PAGE_SIZE, 0);
      }
    });
  }

  /**
   * Checks that the device has no page of `[addr, addr + length)` for itself any more.
   * @throws KernelError EPERM it has one
   * @linux lib/test_hmm.c dmirror_check_exclusive
   */
  async checkExclusive(addr: number, length: number, options?: WaitOptions): Promise<void> {
    const { start, end } = pagesOf("check exclusive", addr, length);
    using _ = await this.update.lock(options);
    for (let vpn: number = vpnOf(start); vpn < vpnOf(end); vpn++) {
      if (this.table.get(vpn)?.exclusive) {
        throw new KernelError("EPERM", "dmirror check exclusive", "the device has a page there for itself");
      }
    }
  }

  /** Runs a command under the mmap lock, with a user of the space. */
  #underLock<T>(name: string, options: WaitOptions | undefined, body: (lock: MmapRead) => Promise<T>): Promise<T> {
    return lockdepTask(name, async () => {
      if (!this.mm.tryGetUsers()) {
        throw new KernelError("EINVAL", name, "the address space has exited: open a new one");
      }
      try {
        using lock = this.mm.mmapLock.tryRead() ?? (await this.mm.mmapLock.read(options));
        return await body(lock);
      } finally {
        await this.mm.mmput();
      }
    });
  }

  /** Pages of the range that are in the device's memory. */
  #pagesHere({ start, end }: VirtRange): number {
    const { pagemap } = this.device.memoryOf(this.mm.memory);
    let pages = 0;
    for (let vpn: number = vpnOf(start); vpn < vpnOf(end); vpn++) {
      const pte = this.mm.pageTable.get(vpn);
      pages += pte !== 0 && pagemap.frameOf(ptePfn(pte)) !== undefined ? 1 : 0;
    }
    return pages;
  }

  /** Lets the device access bytes; serves its page faults until it is through. */
  #access(
    addr: number,
    length: number,
    write: boolean,
    options: DmirrorOptions | undefined,
    copy: (page: Uint8Array, offset: number, count: number, at: number) => void,
  ): Promise<void> {
    return lockdepTask(write ? "dmirror write" : "dmirror read", async () => {
      const { end: lastPageEnd } = pagesOf(write ? "write" : "read", addr, length);
      const end = addr + length;
      let faults = 0;
      for (let at = addr; ; ) {
        {
          using _ = await this.update.lock(options);
          at = this.table.walk(at, end, write, (pfn, offset, count, from) => {
            copy(this.#bytesOf(pfn), offset, count, from - addr);
          });
        }
        count(options, Math.ceil((at - pageAlignDown(addr)) / PAGE_SIZE), faults++);
        if (at === end) {
          return;
        }
        const start = pageAlignDown(at);
        await this.#fault(start, lastPageEnd, write, options);
      }
    });
  }

  /** @linux lib/test_hmm.c dmirror_fault */
  async #fault(start: number, end: number, write: boolean, options: WaitOptions | undefined): Promise<void> {
    const { valid, write: writable } = DEFAULT_PFN_FLAGS;
    const devicePrivateOwner = this.device;
    const range = new HmmRange({ start, end, defaultFlags: write ? valid | writable : valid, devicePrivateOwner });
    range.register(this.#mirror);
    try {
      await this.#untilDone(range, options, () => this.#tryFault(range, write, options));
      this.#faults++;
    } finally {
      // May be the last user of the space and run its exit, so no lock is held here.
      await range.unregister();
    }
  }

  /** The canonical loop: wait until nothing is in the way, try, start over when something came in between. */
  async #untilDone(range: HmmRange, options: WaitOptions | undefined, attempt: () => Promise<boolean>): Promise<void> {
    const { signal, timeoutMs = HMM_RANGE_DEFAULT_TIMEOUT } = options ?? {};
    const deadline = Date.now() + timeoutMs;
    do {
      const left = Math.max(0, deadline - Date.now());
      if ((await range.waitUntilValid({ signal, timeoutMs: left })) && (await attempt())) {
        return;
      }
    } while (Date.now() < deadline);
    throw new KernelError(
      "EBUSY",
      "dmirror",
      `${formatRange(range)} was invalidated again and again for ${timeoutMs} ms: stop changing it, or try again`,
    );
  }

  /** One try; false to start over. */
  async #tryFault(range: HmmRange, write: boolean, options: WaitOptions | undefined): Promise<boolean> {
    using lock = await this.mm.mmapLock.read(options);
    checkReadable(this.mm, range);
    const faulted = await range.faultLocked(lock, { signal: options?.signal });
    if (typeof faulted !== "number") {
      return false;
    }
    await bringBytes(this.mm, range, write);
    using _ = await this.update.lock(options);
    if (!range.valid) {
      return false;
    }
    this.table.program(range);
    return true;
  }

  async #trySnapshot(range: HmmRange, options: WaitOptions | undefined): Promise<boolean> {
    using lock = await this.mm.mmapLock.read(options);
    if (range.snapshotLocked(lock) === "EBUSY") {
      return false;
    }
    using _ = await this.update.lock(options);
    return range.valid;
  }

  /** @linux lib/test_hmm.c dmirror_interval_invalidate */
  #sync(update: MmuNotifierRange): MaybePromise<0 | "EAGAIN"> {
    using guard = this.update.tryLock();
    if (guard !== undefined) {
      this.#drop(update);
      return 0;
    }
    return update.blockable ? this.#syncWhenFree(update) : "EAGAIN";
  }

  async #syncWhenFree(update: MmuNotifierRange): Promise<0> {
    using _ = await this.update.lock();
    this.#drop(update);
    return 0;
  }

  #drop(update: MmuNotifierRange): void {
    forEachPart(update, (start, end) => this.table.drop(start, end));
  }

  /** Nothing is accessible any more. When the space exits, unregistering has to come later, from elsewhere. */
  async #release(): Promise<void> {
    using _ = await this.update.lock();
    this.table.clear();
  }

  /** The bytes of a frame that the table names. They stay where they are while the entry exists. */
  #bytesOf(pfn: Pfn): Uint8Array {
    const own = this.device.memoryOf(this.mm.memory).bytesOfPfn(pfn);
    if (own !== undefined) {
      return own;
    }
    const page = this.mm.memory.pageOf(pfn);
    invariant(page !== undefined, "I-HMM-1", () => `the device's table names frame ${pfn}, which is no page`);
    return page.object.windows.bytes(page.page, page.page + 1);
  }
}

function count({ counts }: DmirrorOptions = {}, pages: number, faults: number): void {
  if (counts !== undefined) {
    counts.pages = pages;
    counts.faults = faults;
  }
}

function protOf(range: HmmRange, entry: number): DmirrorProt {
  if ((entry & range.flags.valid) === 0) {
    return "none";
  }
  return entry & range.flags.write ? "rw" : "r";
}

function pagesOf(op: string, addr: number, length: number): VirtRange {
  const end = addLength(virtAddr(addr, `dmirror ${op}`), length);
  if (end === undefined || !Number.isSafeInteger(length)) {
    throw new KernelError("EINVAL", `dmirror ${op}`, `${length} bytes from ${addr} leave the address space`);
  }
  return { start: pageAlignDown(addr), end: pageAlignUp(end) };
}
