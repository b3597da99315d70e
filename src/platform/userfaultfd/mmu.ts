/**
 * The userfaultfd MMU: windows that applications use as plain arrays.
 *
 * Every window is mapped twice over one file in memory. This thread's side is an ordinary mapping: it never waits, so that
 * whoever serves faults cannot wait for himself. The application's side is registered with the kernel: pages are shown
 * there one by one, write-protected asynchronously.
 */
import { KernelError, PAGE_SIZE, PAGES_PER_BLOCK, traceNow, traceOn, warnOn } from "../../base/index.ts";
import { RangeMap } from "../../collections/index.ts";
import {
  type AdoptableMemory,
  type CpuFault,
  type CpuMmu,
  type CpuWindow,
  createWindowMemory,
  type FaultAround,
  findShowable,
  forEachReadOnly,
  hasReadOnly,
  type MemoryObject,
  PageFlag,
  type PageSpan,
  readAheadFromDevice,
  serveCpuFault,
  takeCpuFailure,
  traceShown,
} from "../../mm/index.ts";
import { lockdepTask } from "../../sync/index.ts";
import { AROUND, assertFaultAround, COME_HOME, SEQUENTIAL } from "./around.ts";
import { FaultLog, POISON_WORD } from "./fault-log.ts";
import { readOnlyError, spaceAddress } from "./fault-report.ts";
import { FILE_NAME } from "./files.ts";
import type { ReadAhead } from "./read-ahead.ts";
import { UffdTrap, type WindowOwner } from "./trap.ts";
import { Uffd } from "./uffd.ts";
import { type MemoryWatch, WindowPlaces } from "./window-places.ts";

/** How the MMU is opened. */
export interface UserfaultfdMmuOptions extends MemoryWatch {
  /** Pages that a fault on host memory may bring along: a power of two up to 512. Default 64. */
  readonly faultAround?: number | undefined;
  /** Where errors of plain accesses are reported. Default: a log of its own. */
  readonly log?: FaultLog | undefined;
  /** Called after an error was reported, with the address in the address space, if the page is mapped. */
  readonly onError?: ((error: KernelError, address: number | undefined) => void) | undefined;
  /** Called before faults are served, some at a time. What it throws ends the serving. */
  readonly pulse?: (() => void) | undefined;
}

/** Counts since the MMU was opened. */
export interface MmuCounts {
  faults: number;
  pagesShown: number;
  errors: number;
}

/** A fault on a page that somebody holds. */
interface HeldFault {
  readonly trap: UffdTrap;
  readonly page: number;
  readonly inFile: boolean;
  readonly write: boolean;
  readonly since: number;
}

/** The MMU of plain arrays: the kernel traps what is absent or write-protected. */
export class UserfaultfdMmu implements CpuMmu, WindowOwner, Disposable {
  readonly name = "userfaultfd";
  readonly traps = true;
  readonly uffd: Uffd;
  readonly log: FaultLog;
  readonly counts: MmuCounts = { faults: 0, pagesShown: 0, errors: 0 };
  readonly #around: FaultAround;
  readonly #sequential: FaultAround;
  readonly #options: UserfaultfdMmuOptions;
  readonly #traps = new RangeMap<UffdTrap>();
  #last: UffdTrap | undefined;
  /** What {@link findShowable} fills in: a fault makes no object. */
  readonly #span: PageSpan = { page: 0, end: 0 };
  #held: HeldFault[] = [];
  readonly #places: WindowPlaces;
  #closed = false;

  /** @throws KernelError ENOTSUP with the reason and the remedy; EINVAL; NoLibc. Ask probeUserfaultfd first */
  constructor(options: UserfaultfdMmuOptions = {}) {
    const host = options.faultAround ?? AROUND.host;
    assertFaultAround(host);
    this.uffd = Uffd.open(
      (address, inFile, write) => this.#fault(address, inFile, write, traceNow()),
      () => options.pulse?.(),
    );
    this.#places = new WindowPlaces(this.uffd, options);
    this.log = options.log ?? new FaultLog();
    this.#options = options;
    this.#around = { ...AROUND, host };
    this.#sequential = { ...SEQUENTIAL, host };
  }

  /** Windows in use. */
  get windows(): number {
    return this.#traps.size;
  }

  createWindow(byteLength: number, object?: MemoryObject, page = 0): CpuWindow {
    const { sides, byteOffset } = this.#places.take(byteLength);
    const trap = new UffdTrap(this, sides, byteOffset, byteLength, object, page);
    this.#traps.insert(trap.address, trap.address + byteLength, trap);
    return trap.window;
  }

  /** The memory's place is taken by a stretch of the file with the same bytes. Nobody may use it meanwhile. */
  adoptWindow(memory: AdoptableMemory, maximum: number, object: MemoryObject): CpuWindow {
    const { uffd } = this;
    const appAddress = "address" in memory ? memory.address : uffd.libc.addressOf(memory.buffer);
    const bytes = "address" in memory ? memory.byteLength : memory.buffer.byteLength;
    if (appAddress % PAGE_SIZE !== 0) {
      throw new KernelError("EINVAL", "adopt", "the memory begins within a page: give a WebAssembly.Memory");
    }
    const extent = uffd.files.extent(appAddress, maximum);
    // Never copied from: this thread would wait for itself.
    if (extent.files.some((file) => file.includes(FILE_NAME))) {
      throw new KernelError("EINVAL", "adopt", "the memory is a mapping or adopted already: munmap it first");
    }
    if (extent.accessible < bytes || extent.mapped < maximum) {
      throw new KernelError(
        "EINVAL",
        "adopt",
        `the memory has reserved ${extent.mapped} bytes: give the maximum that it was made with`,
      );
    }
    const own = createWindowMemory(maximum);
    const ownAddress = uffd.libc.addressOf(own);
    const fileOffset = uffd.reserveFile(maximum);
    uffd.mapFile(ownAddress, maximum, fileOffset);
    this.#options.onMemory?.({ address: appAddress, byteLength: maximum });
    try {
      uffd.replaceByFile(appAddress, ownAddress, bytes, maximum, fileOffset);
    } catch (error) {
      this.#options.onForget?.(appAddress);
      throw error;
    }
    const app = "buffer" in memory ? (memory.buffer as SharedArrayBuffer) : own;
    const sides = { app, own, appAddress, ownAddress, fileOffset, adopted: true };
    const trap = new UffdTrap(this, sides, 0, maximum, object, 0);
    this.#traps.insert(appAddress, appAddress + maximum, trap);
    return trap.window;
  }

  #fault(address: number, inFile: boolean, write: boolean, since: number): void {
    this.counts.faults++;
    let trap = this.#last;
    if (trap === undefined || address < trap.address || address >= trap.address + trap.byteLength) {
      trap = this.#traps.find(address);
      this.#last = trap;
    }
    if (trap === undefined) {
      // The window went, maybe while the message was on its way.
      this.uffd.showNobodys(address - (address % PAGE_SIZE));
      return;
    }
    const page = Math.floor((address - trap.address) / PAGE_SIZE);
    this.#serve(trap, page, inFile, write, since, trap.streams.find(page));
  }

  /**
   * `since`: when the fault came. `stream`: the access in order that met the page. `home`: what this fault asked for has come
   * home.
   */
  #serve(
    trap: UffdTrap,
    page: number,
    inFile: boolean,
    write: boolean,
    since: number,
    stream: ReadAhead | undefined,
    home = false,
  ): void {
    const { object, base } = trap;
    if (trap.released || object === undefined) {
      this.uffd.wake(trap.address + page * PAGE_SIZE, PAGE_SIZE);
      return;
    }
    if (trap.isHeld(page)) {
      this.#held.push({ trap, page, inFile, write, since });
      return;
    }
    const failure = takeCpuFailure(object, base + page);
    const around = stream === undefined ? this.#around : home ? COME_HOME : this.#sequential;
    const span = this.#span;
    if (failure === undefined && findShowable(object, base + page, around.host, span)) {
      const { page: first, end } = span;
      this.#showAround(trap, first - base, end - base, page, inFile, stream);
      if (traceOn) {
        traceShown(object, first, end, write, since);
      }
      if (stream !== undefined) {
        this.#readAhead(trap, base + page, stream);
      }
      return;
    }
    const served: CpuFault | Promise<void> =
      failure === undefined
        ? serveCpuFault(object, base + page, around)
        : { page: base + page, end: base + page + 1, error: failure };
    if (stream !== undefined) {
      // Also when this page has to be waited for: the next ones come along.
      this.#readAhead(trap, base + page, stream);
    }
    if (served instanceof Promise) {
      served.then(
        () => this.#serve(trap, page, true, write, since, stream && trap.streams.find(page), true),
        (error: unknown) => {
          warnOn(true, "I-UFFD-2", () => `a fault cannot be served: ${String(error)}`);
          this.#fail(trap, page, new KernelError("EIO", "fault", String(error)));
        },
      );
      return;
    }
    if (served.error !== undefined) {
      this.#fail(trap, page, served.error);
      return;
    }
    this.#showAround(trap, served.page - base, served.end - base, page, inFile, stream);
    if (traceOn) {
      traceShown(object, served.page, served.end, write, since);
    }
  }

  #showAround(trap: UffdTrap, page: number, end: number, wanted: number, inFile: boolean, stream?: ReadAhead): void {
    // Who meets a page that another thread has just met is no access of its own.
    const isNew = stream === undefined && !trap.isShown(wanted);
    this.#show(trap, page, end, wanted, inFile);
    if (isNew) {
      trap.streams.begin(trap.firstHidden(end));
    }
  }

  /** Of what is on a device behind the block of a page of the trap's object. */
  #readAhead(trap: UffdTrap, page: number, stream: ReadAhead): void {
    const { object, base } = trap;
    const limit = base + trap.byteLength / PAGE_SIZE;
    for (let from = stream.next(page, limit); object !== undefined && from >= 0; from = stream.next(page, limit)) {
      const to = Math.min(stream.end, limit);
      const home = trap.isHeld(from - base) ? undefined : readAheadFromDevice(object, from, to);
      if (home !== undefined) {
        stream.brought();
        void home.then(() => this.#showAhead(trap, from - base, to - base));
      }
    }
  }

  /** Shows what has come home before anybody asked, but for the first page: see {@link ReadAhead}. */
  #showAhead(trap: UffdTrap, page: number, end: number): void {
    const { object, base } = trap;
    const span = this.#span;
    for (let p = page + 1; p < end && !trap.released && object !== undefined; ) {
      if (trap.isHeld(p) || !findShowable(object, base + p, PAGES_PER_BLOCK, span)) {
        p++;
        continue;
      }
      const to = Math.min(end, span.end - base);
      this.#show(trap, p, to, p, true);
      p = to;
    }
  }

  #show(trap: UffdTrap, page: number, end: number, wanted: number, inFile: boolean): void {
    try {
      trap.show(page, end, wanted, inFile);
      trap.streams.passed(page, end, trap);
      this.counts.pagesShown += end - page;
    } catch (error) {
      this.#options.pulse?.();
      // No page can be had: the access sees zeros that are nobody's, and the error is known before it does.
      this.#report(trap, wanted, error instanceof KernelError ? error : new KernelError("EIO", "fault", String(error)));
      this.uffd.mapZeros(trap.address + wanted * PAGE_SIZE, PAGE_SIZE);
    }
  }

  #report(trap: UffdTrap, page: number, error: KernelError): void {
    this.counts.errors++;
    const address = trap.address + page * PAGE_SIZE;
    this.log.report(error.code, address);
    this.#options.onError?.(error, spaceAddress(trap, page));
  }

  /** Reported first; then the access sees a pattern that is no number, never zeros that could be data. */
  #fail(trap: UffdTrap, page: number, error: KernelError): void {
    const { object, base } = trap;
    this.#report(trap, page, error);
    if (object !== undefined && error.code !== "EFAULT" && (object.flagsOf(base + page) & PageFlag.Uptodate) === 0) {
      trap.wordsOf(page).fill(POISON_WORD);
      object.updateFlags(base + page, base + page + 1, PageFlag.Used, 0);
    }
    this.#show(trap, page, page + 1, page, false);
  }

  /** Shows pages of an object that are present, so that no access to them is a fault. */
  populate(object: MemoryObject, page: number, end: number): void {
    const found = object.windows.trapAt(page);
    if (found === undefined || !(found.trap instanceof UffdTrap)) {
      return;
    }
    const { trap, base } = found;
    for (let p = page; p < Math.min(end, object.pages); ) {
      const since = traceNow();
      const served = trap.isHeld(p - base) ? undefined : serveCpuFault(object, p, this.#sequential);
      if (served === undefined || served instanceof Promise || served.error !== undefined) {
        p++;
        continue;
      }
      trap.show(served.page - base, served.end - base, p - base, true);
      if (traceOn) {
        traceShown(object, served.page, served.end, false, since);
      }
      p = served.end;
    }
  }

  retryHeld(): void {
    if (this.#held.length === 0) {
      return;
    }
    const held = this.#held;
    this.#held = [];
    // Later, as accesses of nobody in particular: who held the pages has still to finish what he does with them.
    queueMicrotask(() =>
      lockdepTask("cpu fault", () => {
        for (const { trap, page, inFile, write, since } of held) {
          this.#serve(trap, page, inFile, write, since, trap.streams.find(page));
        }
      }),
    );
  }

  hasReadOnly({ object, base }: UffdTrap, page: number, end: number): boolean {
    return object !== undefined && hasReadOnly(object, base + page, base + end);
  }

  written(trap: UffdTrap, page: number, end: number): void {
    const { object, base } = trap;
    if (object !== undefined) {
      forEachReadOnly(object, base + page, base + end, (from) =>
        this.#report(trap, from - base, readOnlyError(object, from)),
      );
    }
  }

  released(trap: UffdTrap): void {
    this.#traps.delete(trap.address);
    this.#places.giveBack(trap.memoryAddress);
    if (this.#last === trap) {
      this.#last = undefined;
    }
    this.#held = this.#held.filter((held) => held.trap !== trap);
  }

  /**
   * Ends the MMU. Windows that are still there are released: arrays see zeros, threads that wait for a page go on, and each
   * of their accesses is reported as ESRCH only if it was waiting. Idempotent.
   */
  close(): void {
    if (this.#closed) {
      return;
    }
    this.#closed = true;
    for (const trap of [...this.#traps.values()]) {
      trap.release();
    }
    this.#places.close();
    this.uffd.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }
}
