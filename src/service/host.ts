/** The side of a service that owns the address space, the driver and the device: does what a client asks for. */
import { KernelError, type MaybePromise, type VirtAddr } from "../base/index.ts";
import type { BindTarget, WebGpuDevice, WebGpuKernel } from "../drivers/webgpu/index.ts";
import {
  type AddressSpace,
  disown,
  formatSmaps,
  type Lease,
  Mapping,
  type MemoryObject,
  msync,
  syncReadOnly,
} from "../mm/index.ts";
import type { AdapterReport } from "../platform/adapter.ts";
import type { OpenUrlOptions } from "../platform/http/index.ts";
import type { FaultLog } from "../platform/userfaultfd/fault-log.ts";
import { mappingView } from "./mapping-view.ts";
import type {
  Channel,
  ClientFileOptions,
  FileSource,
  MappingInfo,
  ObjectInfo,
  Operation,
  Operations,
  ServiceCounts,
  SpaceId,
  WireRange,
} from "./protocol.ts";

/** What a host works with. */
export interface ServiceParts {
  readonly mm: AddressSpace;
  readonly adapter: AdapterReport | undefined;
  readonly log: FaultLog;
  readonly counts: ServiceCounts;
  /** @throws KernelError ENODEV the service was opened without one */
  device(): WebGpuDevice;
  /** A path on Node, a File or a handle in browsers. */
  openFile(file: FileSource, options: ClientFileOptions): Promise<MemoryObject>;
  openUrl(url: string, options: OpenUrlOptions): Promise<MemoryObject>;
  /** Shows pages that are present to plain arrays, so that no access to them is a fault. */
  populate(mapping: Mapping): void;
  close(): Promise<void>;
}

type Handlers = {
  [K in Operation]: (
    args: Operations[K][0],
    signal: AbortSignal | undefined,
  ) => Promise<Operations[K][1]> | Operations[K][1];
};

const MAIN: SpaceId = 0;

/** What gives something back is no mistake after the end. */
const LETS_GO: ReadonlySet<Operation> = new Set<Operation>(["close", "putObject", "unlease"]);

/** Serves one client. */
export class ServiceHost implements Channel {
  readonly #parts: ServiceParts;
  readonly #spaces = new Map<SpaceId, AddressSpace>();
  /** Memory that its owner gets back. */
  readonly #adopted = new Set<Mapping>();
  readonly #objects = new Map<number, MemoryObject>();
  readonly #leases = new Map<number, Lease>();
  readonly #kernels = new Map<number, WebGpuKernel>();
  #nextId = 1;
  #closed = false;

  constructor(parts: ServiceParts) {
    this.#parts = parts;
    this.#spaces.set(MAIN, parts.mm);
  }

  /** @throws KernelError as the operation's own function does; ESRCH a space that has exited, or the service was closed */
  async call<K extends Operation>(op: K, args: Operations[K][0], signal?: AbortSignal): Promise<Operations[K][1]> {
    if (this.#closed && !LETS_GO.has(op)) {
      throw new KernelError("ESRCH", op, "the service was closed: open a new one");
    }
    return await this.#handlers[op](args, signal);
  }

  /** The address spaces that are there. */
  get spaces(): readonly AddressSpace[] {
    return [...this.#spaces.values()];
  }

  /** Finds plain writes to what may only be read; the MMU reports them. */
  async sweep(): Promise<void> {
    for (const mm of this.spaces) {
      await syncReadOnly(mm);
    }
  }

  #space(op: string, id: SpaceId): AddressSpace {
    const mm = this.#spaces.get(id);
    if (mm === undefined) {
      throw new KernelError("ESRCH", op, "the address space has exited: open a new one");
    }
    return mm;
  }

  #mapping(op: string, { space, start, length, name }: WireRange): Mapping {
    return new Mapping(this.#space(op, space), start as VirtAddr, length, name);
  }

  #add<T>(map: Map<number, T>, value: T): number {
    const id = this.#nextId++;
    map.set(id, value);
    return id;
  }

  #target(range: WireRange): BindTarget {
    const mapping = this.#mapping("dispatch", range);
    return { mapping, start: mapping.start, end: mapping.end };
  }

  #info(mapping: Mapping): MappingInfo {
    const { start, length, name } = mapping;
    return { start, length, name, view: mappingView(mapping) };
  }

  async #opened(opening: Promise<MemoryObject>): Promise<ObjectInfo> {
    const object = await opening;
    if (this.#closed) {
      await object.put();
      throw new KernelError("ESRCH", "open", "the service was closed meanwhile: open a new one");
    }
    const { pages, length } = object;
    return { id: this.#add(this.#objects, object), pages, length };
  }

  async #disownAll(mm: AddressSpace): Promise<void> {
    for (const mapping of this.#adopted) {
      if (mapping.mm === mm) {
        this.#adopted.delete(mapping);
        await disown(mapping);
      }
    }
  }

  /** @throws KernelError EINVAL adopted memory would go, or a part of it, without being given back */
  #assertNoneAdopted(op: string, mm: AddressSpace, start: number, length: number): void {
    for (const mapping of this.#adopted) {
      if (mapping.mm === mm && start < mapping.end && start + length > mapping.start) {
        const why = `${mapping.name} is an adopted memory, which stays where it is: end it with its munmap(), alone and whole`;
        throw new KernelError("EINVAL", op, why);
      }
    }
  }

  readonly #handlers: Handlers = {
    hello: () => ({ adapter: this.#parts.adapter, log: this.#parts.log.buffer }),
    mmap: async ({ object, space, ...options }) => {
      const mm = this.#space("mmap", space);
      const known = object === undefined ? undefined : this.#objects.get(object);
      if (object !== undefined && known === undefined) {
        throw new KernelError("EINVAL", "mmap", "the object has been put: open it anew");
      }
      if (options.fixed) {
        this.#assertNoneAdopted("mmap", mm, options.addr ?? 0, options.length);
      }
      return this.#info(await mm.mmap({ ...options, object: known }));
    },
    adopt: async ({ memory, space, ...options }) => {
      const mapping = await this.#space("adopt", space).adopt(memory, options);
      const { start, length, name } = mapping;
      this.#adopted.add(mapping);
      return { start, length, name, view: undefined };
    },
    mapping: ({ space, start, length }) => this.#info(this.#space("mapping", space).mapping(start, length)),
    mremap: async ({ space, start, oldLength, newLength, ...options }) => {
      const mm = this.#space("mremap", space);
      this.#assertNoneAdopted("mremap", mm, start, oldLength);
      return this.#info(await mm.mremap(start, oldLength, newLength, options));
    },
    munmap: async ({ space, start, length }) => {
      const mm = this.#space("munmap", space);
      const adopted = [...this.#adopted].find((each) => each.mm === mm && each.start === start);
      if (adopted !== undefined && adopted.length === length) {
        this.#adopted.delete(adopted);
        try {
          await disown(adopted);
        } catch (error) {
          // Only so that its owner can try again: what goes another way leaves zeros.
          this.#adopted.add(adopted);
          throw error;
        }
        return;
      }
      this.#assertNoneAdopted("munmap", mm, start, length);
      await mm.munmap(start, length);
    },
    mprotect: ({ space, start, length, prot }) => none(this.#space("mprotect", space).mprotect(start, length, prot)),
    madvise: ({ space, start, length, advice }) => none(this.#space("madvise", space).madvise(start, length, advice)),
    msync: ({ space, start, length }) => none(msync(this.#space("msync", space), start, length)),
    populate: async (range) => {
      const mapping = this.#mapping("populate", range);
      using _lease = await mapping.lease("r");
      this.#parts.populate(mapping);
    },
    read: (range) => this.#mapping("read", range).read(),
    write: ({ bytes, ...range }) => none(this.#mapping("write", range).write(0, bytes)),
    lease: async ({ mode, longTerm, present, ...range }) => {
      const mapping = this.#mapping("lease", range);
      const lease = await mapping.lease(mode, longTerm === undefined ? {} : { longTerm });
      if (present > 0) {
        this.#parts.populate(this.#mapping("lease", { ...range, length: present }));
      }
      return this.#add(this.#leases, lease);
    },
    unlease: (id) => {
      this.#leases.get(id)?.release();
      this.#leases.delete(id);
      return undefined;
    },
    fork: async (space) => {
      const child = await this.#space("fork", space).fork();
      return this.#add(this.#spaces, child);
    },
    exit: async (space) => {
      const mm = this.#space("exit", space);
      await this.#disownAll(mm);
      this.#spaces.delete(space);
      await mm[Symbol.asyncDispose]();
      return undefined;
    },
    stats: (space) => this.#space("stats", space).stats(),
    smaps: (space) => formatSmaps(this.#space("smaps", space)),
    openFile: ({ file, ...options }) => this.#opened(this.#parts.openFile(file, options)),
    openUrl: ({ url, ...options }, signal) =>
      // The signal is the opening's alone: it must not end reads later.
      this.#opened(this.#parts.openUrl(url, { ...options, signal })),
    putObject: async (id) => {
      const object = this.#objects.get(id);
      this.#objects.delete(id);
      await object?.put();
    },
    kernel: async ({ wgsl, ...options }, signal) => {
      const kernel = await this.#parts.device().kernel(wgsl, { ...options, signal });
      const { name, mode, reflection } = kernel;
      return { id: this.#add(this.#kernels, kernel), name, mode, reflection };
    },
    dispatch: async ({ kernel, bind, space, ...options }, signal) => {
      const found = this.#kernels.get(kernel);
      if (found === undefined) {
        throw new KernelError("EINVAL", "dispatch", "the kernel is another service's: make it anew");
      }
      const targets = Object.fromEntries(Object.entries(bind).map(([name, range]) => [name, this.#target(range)]));
      const mm = space === undefined ? undefined : this.#space("dispatch", space);
      return found.dispatch({ ...options, bind: targets, mm, signal });
    },
    prefetch: ({ write, timeoutMs, ...range }, signal) =>
      this.#parts.device().prefetch(this.#target(range), {
        ...(write !== undefined && { write }),
        ...(timeoutMs !== undefined && { timeoutMs }),
        ...(signal !== undefined && { signal }),
      }),
    advise: ({ advice, ...range }) => none(this.#parts.device().advise(this.#target(range), advice)),
    deviceStats: () => this.#parts.device().stats(),
    counts: () => ({ ...this.#parts.counts }),
    close: () => none(this.#close()),
  };

  /** Everything is ended, whatever fails. @throws the first failure */
  async #close(): Promise<void> {
    this.#closed = true;
    for (const lease of this.#leases.values()) {
      lease.release();
    }
    this.#leases.clear();
    const failures: unknown[] = [];
    const attempt = async (work: () => MaybePromise<void>) => {
      try {
        await work();
      } catch (error) {
        failures.push(error);
      }
    };
    await attempt(() => this.sweep());
    const spaces = [...this.#spaces.values()].reverse();
    this.#spaces.clear();
    for (const mm of spaces) {
      await attempt(() => this.#disownAll(mm));
    }
    const objects = [...this.#objects.values()];
    this.#objects.clear();
    for (const object of objects) {
      await attempt(() => object.put());
    }
    for (const mm of spaces) {
      await attempt(() => mm[Symbol.asyncDispose]());
    }
    await attempt(() => this.#parts.close());
    if (failures.length > 0) {
      throw failures[0];
    }
  }
}

async function none(work: Promise<unknown>): Promise<undefined> {
  await work;
  return undefined;
}
