/**
 * One address space: VMAs, page tables, the lock that protects them, and two reference counts.
 *
 * Lock order, outermost first:
 *
 *     mm.mmapLock                      rwsem; faults hold it for reading, mmap and its like for writing
 *       (SRCU read)                    inside notifier callbacks
 *         hmm.mirrorsSem               rwsem
 *           driver.update              mutex of a driver
 *             subscriptions, page tables, frames: synchronous, never across an await
 *
 * Never mmapLock under driver.update. Never wait for validity or for a page in transit while holding driver.update.
 * Nothing holds two mmap locks: fork() fills a child that nobody else can see yet.
 */
import { bugOn, KernelError, type LedgerEntry, ledgerTrack, type MaybePromise, warnOn } from "../base/index.ts";
import { RangeMap } from "../collections/index.ts";
import { RwSemaphore } from "../sync/index.ts";
import { type AdoptOptions, adopt } from "./adopt.ts";
import { exitMmap } from "./exit.ts";
import { fork } from "./fork.ts";
import { type Advice, madvise } from "./madvise.ts";
import { type Mapping, mappingAt } from "./mapping.ts";
import { type AddressSpaceStats, spaceStats } from "./maps.ts";
import { type MmapOptions, mmap } from "./mmap.ts";
import { mprotect } from "./mprotect.ts";
import { type MremapOptions, mremap } from "./mremap.ts";
import { munmap } from "./munmap.ts";
import { PageTable } from "./page-table.ts";
import type { PhysicalMemory } from "./physical-memory.ts";
import type { AdoptableMemory, MmNotifierHooks } from "./ports.ts";
import type { Prot, Vma } from "./vma.ts";

/** @linux include/linux/mm_types.h struct mm_struct */
export class AddressSpace implements AsyncDisposable {
  readonly memory: PhysicalMemory;
  readonly mmapLock: RwSemaphore<"mmap">;
  /** Protected by mmapLock. */
  readonly vmas = new RangeMap<Vma>();
  /** Entries are protected by run-to-completion; see PageTable. */
  readonly pageTable: PageTable;
  /** Subscriptions of mmu notifiers; made by the first registration, kept until the structure dies. */
  notifiers: MmNotifierHooks | undefined;
  /** @internal Its number in trace events. */
  traceId = 0;
  #disposed = false;
  readonly #usersLedger: LedgerEntry;
  readonly #countLedger: LedgerEntry;
  #users = 1;
  #count = 1;
  #exit: Promise<void> | undefined;

  /** @throws KernelError ENOMEM */
  static create(options: { readonly memory: PhysicalMemory }): AddressSpace {
    return new AddressSpace(options.memory);
  }

  /** @internal Use {@link AddressSpace.create} or {@link AddressSpace.fork}. */
  constructor(memory: PhysicalMemory) {
    memory.charge("address space");
    this.memory = memory;
    this.mmapLock = new RwSemaphore("mmap");
    this.pageTable = new PageTable(memory);
    this.#usersLedger = ledgerTrack("mm users");
    this.#countLedger = ledgerTrack("mm count");
  }

  /** Users of the mappings. At 0 the address space is torn down. @linux mm_users */
  get users(): number {
    return this.#users;
  }

  /** References to the structure, all users together counting as one. @linux mm_count */
  get count(): number {
    return this.#count;
  }

  /** @linux include/linux/sched/mm.h mmget */
  mmget(): void {
    bugOn(this.#users === 0, "I-REF-1", () => "mmget of an address space that has exited");
    this.#users++;
  }

  /** One more user, unless the address space is exiting. @linux include/linux/sched/mm.h mmget_not_zero */
  tryGetUsers(): boolean {
    if (this.#users === 0) {
      return false;
    }
    this.#users++;
    return true;
  }

  /**
   * Drops a user. The last one runs the whole exit path (release callbacks included): hold no lock that they take.
   * @throws KernelError EIO, ENOSPC when the last user's exit cannot write a shared file back
   * @linux kernel/fork.c mmput
   */
  mmput(): MaybePromise<void> {
    if (warnOn(this.#users === 0, "I-REF-1", () => "mmput of an address space without users")) {
      return undefined;
    }
    if (--this.#users > 0) {
      return undefined;
    }
    this.#exit = exitMmap(this).finally(() => {
      this.#usersLedger.end();
      this.mmdrop();
    });
    return this.#exit;
  }

  /** Keeps the structure, not the mappings. @linux include/linux/sched/mm.h mmgrab */
  mmgrab(): void {
    this.#count++;
  }

  /** @linux include/linux/sched/mm.h mmdrop */
  mmdrop(): void {
    if (warnOn(this.#count === 0, "I-REF-1", () => "mmdrop of an address space without references")) {
      return;
    }
    if (--this.#count === 0) {
      this.notifiers?.destroy();
      this.#countLedger.end();
    }
  }

  /** @throws KernelError ESRCH when the address space has exited */
  assertAlive(op: string): void {
    if (this.#users === 0) {
      throw new KernelError("ESRCH", op, "the address space has exited: open a new one");
    }
  }

  /** Mappings, and their pages by state. Looks at each entry. */
  stats(): AddressSpaceStats {
    return spaceStats(this);
  }

  /** See {@link adopt}. */
  adopt(memory: AdoptableMemory, options: AdoptOptions = {}): Promise<Mapping> {
    return adopt(this, memory, options);
  }

  /** See {@link mmap}. */
  mmap(options: MmapOptions): Promise<Mapping> {
    return mmap(this, options);
  }

  /** See {@link mappingAt}. */
  mapping(start: number, length: number): Mapping {
    return mappingAt(this, start, length);
  }

  /** See {@link munmap}. */
  munmap(start: number, length: number): Promise<void> {
    return munmap(this, start, length);
  }

  /** See {@link mprotect}. */
  mprotect(start: number, length: number, prot: Prot): Promise<void> {
    return mprotect(this, start, length, prot);
  }

  /** See {@link madvise}. */
  madvise(start: number, length: number, advice: Advice): Promise<void> {
    return madvise(this, start, length, advice);
  }

  /** See {@link mremap}. */
  mremap(start: number, oldLength: number, newLength: number, options?: MremapOptions): Promise<Mapping> {
    return mremap(this, start, oldLength, newLength, options);
  }

  /** See {@link fork}. */
  fork(): Promise<AddressSpace> {
    return fork(this, () => new AddressSpace(this.memory));
  }

  /** Drops the creator's user reference, once; resolves when the exit path has run, if it was the last. */
  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#disposed) {
      this.#disposed = true;
      await this.mmput();
    }
    await this.#exit;
  }
}
