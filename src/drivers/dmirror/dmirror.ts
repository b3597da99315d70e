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
  PAGES_PER_BLOCK,
  type Pfn,
  pageAlignDown,
  pageAlignUp,
  virtAddr,
} from "../../base/index.ts";
import { DEFAULT_PFN_FLAGS, HMM_RANGE_DEFAULT_TIMEOUT, HmmMirror, HmmRange } from "../../hmm/index.ts";
import { type AddressSpace, faultRange, type MmuNotifierRange } from "../../mm/index.ts";
import { lockdepTask, Mutex, type WaitOptions } from "../../sync/index.ts";
import { DeviceTable } from "./device-table.ts";

/** What the CPU's page table grants for a page. @linux lib/test_hmm_uapi.h HMM_DMIRROR_PROT_NONE and following */
export type DmirrorProt = "none" | "r" | "rw";

/** Pages that one fault asks for at most. */
const FAULT_PAGES = PAGES_PER_BLOCK;

/** @linux lib/test_hmm.c struct dmirror */
export class Dmirror {
  readonly mm: AddressSpace;
  /** Protected by the update lock. */
  readonly table = new DeviceTable();
  readonly update = new Mutex("update");
  readonly #mirror: HmmMirror;
  #faults = 0;

  /** @internal Use DmirrorDriver.open. */
  constructor(mm: AddressSpace) {
    this.mm = mm;
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
   * @throws KernelError EFAULT nothing is mapped there, or the address space has exited; EPERM not readable; EINVAL no
   *   address; EBUSY it was invalidated again and again for `timeoutMs` (1000); EINTR, ENOMEM
   * @linux lib/test_hmm.c dmirror_read
   */
  async read(addr: number, length: number, options?: WaitOptions): Promise<Uint8Array> {
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
  async write(addr: number, bytes: Uint8Array, options?: WaitOptions): Promise<void> {
    await this.#access(addr, bytes.length, true, options, (page, offset, count, at) => {
      page.set(bytes.subarray(at, at + count), offset);
    });
  }

  /**
   * What the CPU's page table grants for each page that `[addr, addr + length)` touches. Faults nothing in.
   * @throws KernelError as {@link read}
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

  /** Lets the device access bytes; serves its page faults until it is through. */
  #access(
    addr: number,
    length: number,
    write: boolean,
    options: WaitOptions | undefined,
    copy: (page: Uint8Array, offset: number, count: number, at: number) => void,
  ): Promise<void> {
    return lockdepTask(write ? "dmirror write" : "dmirror read", async () => {
      const { end: lastPageEnd } = pagesOf(write ? "write" : "read", addr, length);
      const end = addr + length;
      for (let at = addr; ; ) {
        {
          using _ = await this.update.lock(options);
          at = this.table.walk(at, end, write, (pfn, offset, count, from) => {
            copy(this.#bytesOf(pfn), offset, count, from - addr);
          });
        }
        if (at === end) {
          return;
        }
        const start = pageAlignDown(at);
        await this.#fault(start, Math.min(lastPageEnd, start + FAULT_PAGES * PAGE_SIZE), write, options);
      }
    });
  }

  /** @linux lib/test_hmm.c dmirror_fault */
  async #fault(start: number, end: number, write: boolean, options: WaitOptions | undefined): Promise<void> {
    const { valid, write: writable } = DEFAULT_PFN_FLAGS;
    const range = new HmmRange({ start, end, defaultFlags: write ? valid | writable : valid });
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
    const faulted = await range.faultLocked(lock, { signal: options?.signal });
    if (typeof faulted !== "number") {
      return false;
    }
    // A frame's bytes may still be in a file; this device needs them in memory. Before the update lock: it may wait.
    await faultRange(this.mm, range.start, range.end, { cpu: true, write });
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
      this.table.drop(update.start, update.end);
      return 0;
    }
    return update.blockable ? this.#syncWhenFree(update) : "EAGAIN";
  }

  async #syncWhenFree(update: MmuNotifierRange): Promise<0> {
    using _ = await this.update.lock();
    this.table.drop(update.start, update.end);
    return 0;
  }

  /** Nothing is accessible any more. When the space exits, unregistering has to come later, from elsewhere. */
  async #release(): Promise<void> {
    using _ = await this.update.lock();
    this.table.clear();
  }

  /** The bytes of a frame that the table names. They stay where they are while the entry exists. */
  #bytesOf(pfn: Pfn): Uint8Array {
    const page = this.mm.memory.pageOf(pfn);
    invariant(page !== undefined, "I-HMM-1", () => `the device's table names frame ${pfn}, which is no page`);
    return page.object.windowBytes(page.page, page.page + 1);
  }
}

function protOf(range: HmmRange, entry: number): DmirrorProt {
  if ((entry & range.flags.valid) === 0) {
    return "none";
  }
  return entry & range.flags.write ? "rw" : "r";
}

function pagesOf(op: string, addr: number, length: number): { readonly start: number; readonly end: number } {
  const end = addLength(virtAddr(addr, `dmirror ${op}`), length);
  if (end === undefined || !Number.isSafeInteger(length)) {
    throw new KernelError("EINVAL", `dmirror ${op}`, `${length} bytes from ${addr} leave the address space`);
  }
  return { start: pageAlignDown(addr), end: pageAlignUp(end) };
}
