/** The side of a service that owns the address space, the driver and the device: does what a client asks for. */
import { KernelError } from "../base/index.ts";
import type { BindTarget, WebGpuDevice, WebGpuKernel } from "../drivers/webgpu/index.ts";
import { type AddressSpace, disown, type Lease, type Mapping, type MemoryObject, msync } from "../mm/index.ts";
import type { AdapterReport } from "../platform/adapter.ts";
import type { FaultLog } from "../platform/userfaultfd/fault-log.ts";
import { mappingView } from "./mapping-view.ts";
import type { Channel, FileSource, MappingInfo, Operation, Operations, WireRange } from "./protocol.ts";

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
  /** A path on Node, a File or a handle in browsers. */
  openFile(file: FileSource, write: boolean): Promise<MemoryObject>;
  openUrl(url: string, headers: Readonly<Record<string, string>> | undefined): Promise<MemoryObject>;
  /** Shows pages that are present to plain arrays, so that no access to them is a fault. */
  populate(mapping: Mapping, offset: number, length: number): void;
  close(): Promise<void>;
  /** The thread is about to end by an error: faults are left to the rescue. */
  stopServing(): void;
  /** The process ends: nobody waits for a page any more. Synchronous; nothing is written back. */
  quit(): void;
}

type Handlers = { [K in Operation]: (args: Operations[K][0]) => Promise<Operations[K][1]> | Operations[K][1] };

/** Serves one client. */
export class ServiceHost implements Channel {
  readonly #parts: ServiceParts;
  readonly #mappings = new Map<number, Mapping>();
  /** Mappings of memory that its owner gets back. */
  readonly #adopted = new Set<number>();
  readonly #objects = new Map<number, MemoryObject>();
  readonly #leases = new Map<number, Lease>();
  readonly #kernels = new Map<number, WebGpuKernel>();
  #nextId = 1;

  constructor(parts: ServiceParts) {
    this.#parts = parts;
  }

  get #mm(): AddressSpace {
    return this.#parts.mm;
  }

  /** @throws KernelError as the operation's own function does; EINVAL an id that is gone */
  async call<K extends Operation>(op: K, args: Operations[K][0]): Promise<Operations[K][1]> {
    return await this.#handlers[op](args);
  }

  #mapping(op: string, id: number): Mapping {
    const mapping = this.#mappings.get(id);
    if (mapping === undefined) {
      throw new KernelError("EINVAL", op, "the mapping has been unmapped: map it anew");
    }
    return mapping;
  }

  #add<T>(map: Map<number, T>, value: T): number {
    const id = this.#nextId++;
    map.set(id, value);
    return id;
  }

  #target({ id, offset, length }: WireRange): BindTarget {
    return this.#mapping("dispatch", id).range(offset, length);
  }

  #info(mapping: Mapping): MappingInfo {
    const { start, length, name } = mapping;
    return { id: this.#add(this.#mappings, mapping), start, length, name, view: mappingView(mapping) };
  }

  readonly #handlers: Handlers = {
    hello: () => ({ adapter: this.#parts.adapter, log: this.#parts.log.buffer }),
    mmap: async ({ object, ...options }) => {
      const known = object === undefined ? undefined : this.#objects.get(object);
      return this.#info(await this.#mm.mmap({ ...options, object: known }));
    },
    adopt: async ({ memory, ...options }) => {
      const mapping = await this.#mm.adopt(memory, options);
      const { start, length, name } = mapping;
      const id = this.#add(this.#mappings, mapping);
      this.#adopted.add(id);
      return { id, start, length, name, view: undefined };
    },
    munmap: async ({ id, offset, length }) => {
      const mapping = this.#mapping("munmap", id);
      if (this.#adopted.delete(id)) {
        this.#mappings.delete(id);
        await disown(mapping);
        return;
      }
      await this.#mm.munmap(mapping.start + offset, length);
      if (offset === 0 && length >= mapping.length) {
        this.#mappings.delete(id);
      }
    },
    mprotect: async ({ id, offset, length, prot }) => {
      await this.#mm.mprotect(this.#mapping("mprotect", id).start + offset, length, prot);
    },
    madvise: async ({ id, offset, length, advice }) => {
      await this.#mm.madvise(this.#mapping("madvise", id).start + offset, length, advice);
    },
    msync: async ({ id, offset, length }) => {
      await msync(this.#mm, this.#mapping("msync", id).start + offset, length);
    },
    populate: async ({ id, offset, length }) => {
      const mapping = this.#mapping("populate", id);
      using _lease = await mapping.lease("r", { offset, length });
      this.#parts.populate(mapping, offset, length);
    },
    read: async ({ id, offset, length }) => this.#mapping("read", id).read(offset, length),
    write: async ({ id, offset, bytes }) => {
      await this.#mapping("write", id).write(offset, bytes);
    },
    lease: async ({ id, offset, length, mode }) => {
      const mapping = this.#mapping("lease", id);
      const lease = await mapping.lease(mode, { offset, length });
      this.#parts.populate(mapping, offset, length);
      return this.#add(this.#leases, lease);
    },
    unlease: (id) => {
      this.#leases.get(id)?.release();
      this.#leases.delete(id);
      return undefined;
    },
    openFile: async ({ file, write }) => {
      const object = await this.#parts.openFile(file, write === true);
      return { id: this.#add(this.#objects, object), pages: object.pages };
    },
    openUrl: async ({ url, headers }) => {
      const object = await this.#parts.openUrl(url, headers);
      return { id: this.#add(this.#objects, object), pages: object.pages };
    },
    putObject: async (id) => {
      const object = this.#objects.get(id);
      this.#objects.delete(id);
      await object?.put();
    },
    kernel: async ({ wgsl, ...options }) => {
      const kernel = await this.#parts.device().kernel(wgsl, options);
      return { id: this.#add(this.#kernels, kernel), name: kernel.name, reflection: kernel.reflection };
    },
    dispatch: async ({ kernel, bind, svm, params, workgroups, timeoutMs }) => {
      const found = this.#kernels.get(kernel);
      if (found === undefined) {
        throw new KernelError("EINVAL", "dispatch", "the kernel is another service's: make it anew");
      }
      const targets = Object.fromEntries(Object.entries(bind).map(([name, range]) => [name, this.#target(range)]));
      const mm = svm || found.mode === "svm" ? this.#mm : undefined;
      return found.dispatch({ bind: targets, params, workgroups, timeoutMs, mm });
    },
    counts: () => ({ ...this.#parts.counts }),
    close: async () => {
      for (const lease of this.#leases.values()) {
        lease.release();
      }
      this.#leases.clear();
      for (const id of this.#adopted) {
        await disown(this.#mapping("close", id));
      }
      this.#adopted.clear();
      const objects = [...this.#objects.values()];
      this.#objects.clear();
      for (const object of objects) {
        await object.put();
      }
      await this.#parts.close();
    },
  };
}
