/** What a program uses, on either MMU: mappings with plain arrays, leases, files, kernels. */
import { KernelError, PAGE_SIZE } from "../base/index.ts";
import type { DispatchStats, KernelReflection, ParamValues, Workgroups } from "../drivers/webgpu/index.ts";
import { type AdoptableMemory, type Advice, type Prot, svmAddressOf } from "../mm/index.ts";
import type { AdapterReport } from "../platform/adapter.ts";
import { type FaultError, FaultLog } from "../platform/userfaultfd/fault-log.ts";
import type { Channel, FileSource, MappingInfo, ObjectInfo, WireRange } from "./protocol.ts";

/** Which MMU a service uses, and why. */
export interface MmuChoice {
  readonly name: "software" | "userfaultfd";
  readonly why: string;
}

/** An opened file, to map. */
export interface SharedFile extends AsyncDisposable {
  readonly id: number;
  readonly pages: number;
}

/** Options of {@link SharedMemory.mmap}. */
export interface SharedMmapOptions {
  /** Bytes; the mapping covers whole pages. */
  readonly length: number;
  /** Default "rw". */
  readonly prot?: Prot | undefined;
  readonly shared?: boolean | undefined;
  readonly name?: string | undefined;
  /** What to map; default: zeros. */
  readonly object?: SharedFile | undefined;
  /** Byte of the object at which the mapping begins. */
  readonly offset?: number | undefined;
}

/** A part of a mapping, to bind. */
export interface SharedRange {
  readonly mapping: SharedMapping;
  readonly offset: number;
  readonly length: number;
}

/** The right to use a range until disposed, as a lease of mm: needed on the software MMU, cheap on userfaultfd. */
export class SharedLease implements Disposable {
  readonly #release: () => void;
  readonly #arrays: PlainArrays;
  #released = false;

  /** @internal Use SharedMapping.lease. */
  constructor(arrays: PlainArrays, release: () => void) {
    this.#arrays = arrays;
    this.#release = release;
  }

  get u8(): Uint8Array {
    return this.#arrays.u8;
  }

  get u32(): Uint32Array {
    return this.#arrays.u32;
  }

  get i32(): Int32Array {
    return this.#arrays.i32;
  }

  get f32(): Float32Array {
    return this.#arrays.f32;
  }

  get f64(): Float64Array {
    return this.#arrays.f64;
  }

  /** Gives the pages back. Idempotent. */
  release(): void {
    if (!this.#released) {
      this.#released = true;
      this.#release();
    }
  }

  [Symbol.dispose](): void {
    this.release();
  }
}

/** Typed arrays of explicit length over one range of bytes; made once, when first used. */
class PlainArrays {
  readonly buffer: SharedArrayBuffer;
  readonly byteOffset: number;
  readonly byteLength: number;
  readonly #made = new Map<unknown, ArrayBufferView>();

  constructor(buffer: SharedArrayBuffer, byteOffset: number, byteLength: number) {
    this.buffer = buffer;
    this.byteOffset = byteOffset;
    this.byteLength = byteLength;
  }

  #array<T extends ArrayBufferView>(type: {
    new (buffer: SharedArrayBuffer, byteOffset: number, length: number): T;
    readonly BYTES_PER_ELEMENT: number;
  }): T {
    let array = this.#made.get(type) as T | undefined;
    if (array === undefined) {
      const size = type.BYTES_PER_ELEMENT;
      if (this.byteOffset % size !== 0) {
        throw new KernelError("EINVAL", "lease", `the range does not begin at a multiple of ${size} bytes: use u8`);
      }
      array = new type(this.buffer, this.byteOffset, Math.floor(this.byteLength / size));
      this.#made.set(type, array);
    }
    return array;
  }

  get u8(): Uint8Array {
    return this.#array(Uint8Array);
  }

  get u32(): Uint32Array {
    return this.#array(Uint32Array);
  }

  get i32(): Int32Array {
    return this.#array(Int32Array);
  }

  get f32(): Float32Array {
    return this.#array(Float32Array);
  }

  get f64(): Float64Array {
    return this.#array(Float64Array);
  }
}

/** A mapping, used through plain arrays. On the software MMU an access outside of a lease may see or leave old bytes. */
export class SharedMapping {
  readonly start: number;
  readonly length: number;
  readonly name: string;
  readonly #channel: Channel;
  readonly #info: MappingInfo;
  readonly #arrays: PlainArrays | undefined;

  readonly #memory: { readonly buffer: ArrayBufferLike } | undefined;

  /** @internal Use SharedMemory.mmap and adopt. */
  constructor(channel: Channel, info: MappingInfo, memory?: { readonly buffer: ArrayBufferLike }) {
    this.#memory = memory;
    this.#channel = channel;
    this.#info = info;
    this.start = info.start;
    this.length = info.length;
    this.name = info.name;
    this.#arrays = info.view && new PlainArrays(info.view.buffer, info.view.byteOffset, info.length);
  }

  get #plain(): PlainArrays {
    if (this.#memory !== undefined) {
      // It may have grown since.
      const buffer = this.#memory.buffer as SharedArrayBuffer;
      return new PlainArrays(buffer, 0, Math.min(this.length, buffer.byteLength));
    }
    if (this.#arrays === undefined) {
      throw new KernelError("EINVAL", "lease", `${this.name} crosses a multiple of 4 GiB: use read and write`);
    }
    return this.#arrays;
  }

  /** Shared memory that can be posted to workers; the mapping begins at `byteOffset`. */
  get buffer(): SharedArrayBuffer {
    return this.#plain.buffer;
  }

  get byteOffset(): number {
    return this.#plain.byteOffset;
  }

  get u8(): Uint8Array {
    return this.#plain.u8;
  }

  get u32(): Uint32Array {
    return this.#plain.u32;
  }

  get i32(): Int32Array {
    return this.#plain.i32;
  }

  get f32(): Float32Array {
    return this.#plain.f32;
  }

  get f64(): Float64Array {
    return this.#plain.f64;
  }

  /** See Mapping.svmAddress. @throws KernelError EINVAL the mapping lies outside the aperture of 16 GiB */
  get svmAddress(): number {
    return svmAddressOf(this.start, this.name);
  }

  /** One past the last byte. */
  get end(): number {
    return this.start + this.length;
  }

  /** A part, to bind. @throws KernelError EINVAL when it is not inside */
  range(offset: number, length = this.length - offset): SharedRange {
    if (!(offset >= 0 && length > 0 && offset + length <= this.length)) {
      throw new KernelError("EINVAL", "range", `bytes ${offset} to ${offset + length} are not inside ${this.name}`);
    }
    return { mapping: this, offset, length };
  }

  /** @internal */
  wire(offset = 0, length = this.length - offset): WireRange {
    return { id: this.#info.id, offset, length };
  }

  /** See Mapping.lease. @throws KernelError as it does */
  async lease(
    mode: "r" | "rw",
    part: { readonly offset?: number; readonly length?: number } = {},
  ): Promise<SharedLease> {
    const { offset = 0 } = part;
    const { length = this.length - offset } = part;
    const { buffer, byteOffset } = this.#plain;
    const id = await this.#channel.call("lease", { ...this.wire(offset, length), mode });
    const release = () => void this.#channel.call("unlease", id).catch(() => undefined);
    return new SharedLease(new PlainArrays(buffer, byteOffset + offset, length), release);
  }

  /** Brings pages in and shows them, so that the next accesses are no faults: before system calls, where those may not wait. */
  async populate(offset = 0, length = this.length - offset): Promise<void> {
    await this.#channel.call("populate", this.wire(offset, length));
  }

  /** A copy of bytes. @throws KernelError as Mapping.read */
  read(offset = 0, length = this.length - offset): Promise<Uint8Array> {
    return this.#channel.call("read", this.wire(offset, length));
  }

  /** Writes bytes. @throws KernelError as Mapping.write */
  async write(offset: number, bytes: ArrayBufferView): Promise<void> {
    const copy = new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength).slice();
    await this.#channel.call("write", { ...this.wire(offset, copy.length), bytes: copy });
  }

  /** See msync of mm. */
  async msync(): Promise<void> {
    await this.#channel.call("msync", this.wire());
  }

  /** Unmaps. On userfaultfd arrays over it see zeros from here on, and what is written to them goes nowhere. */
  async munmap(): Promise<void> {
    await this.#channel.call("munmap", this.wire());
  }

  /** See mprotect of mm. */
  async mprotect(prot: Prot): Promise<void> {
    await this.#channel.call("mprotect", { ...this.wire(), prot });
  }

  /** See madvise of mm. Offsets and lengths are page aligned. */
  async madvise(
    advice: Advice,
    offset = 0,
    length = Math.ceil((this.length - offset) / PAGE_SIZE) * PAGE_SIZE,
  ): Promise<void> {
    await this.#channel.call("madvise", { ...this.wire(offset, length), advice });
  }
}

/** A kernel of the service's device. */
export interface SharedKernel {
  readonly name: string;
  readonly reflection: KernelReflection;
  /** See WebGpuKernel.dispatch. @throws KernelError as it does */
  dispatch(options: {
    readonly bind?: Readonly<Record<string, SharedMapping | SharedRange>> | undefined;
    readonly params?: ParamValues | undefined;
    /** In svm mode: the client's memory. */
    readonly mm?: SharedMemory | undefined;
    readonly workgroups: Workgroups;
    readonly timeoutMs?: number | undefined;
  }): Promise<DispatchStats>;
}

/** How memory of this thread is named to the service. */
export type Locate = (memory: { readonly buffer: ArrayBufferLike }) => AdoptableMemory;

/** The address space behind a client. */
export class SharedMemory {
  readonly #channel: Channel;
  readonly #locate: Locate;
  /** Adopted memories must not be collected while the service knows their addresses. */
  readonly #kept = new Set<object>();

  /** @internal Use open of the package. */
  constructor(channel: Channel, locate: Locate) {
    this.#channel = channel;
    this.#locate = locate;
  }

  /**
   * Maps a WebAssembly.Memory, so that a pointer p of the program is address `mapping.start + p` for kernels. `maximum`:
   * bytes that it may grow to, as it was made with; growth needs no call. Until this resolves, and while `munmap` or `close`
   * give it back, nobody may use the memory.
   * @throws KernelError as adopt of mm
   */
  async adopt(
    memory: { readonly buffer: ArrayBufferLike },
    options: { readonly maximum?: number; readonly name?: string } = {},
  ): Promise<SharedMapping> {
    this.#kept.add(memory);
    const info = await this.#channel.call("adopt", { ...options, memory: this.#locate(memory) });
    return new SharedMapping(this.#channel, info, memory);
  }

  /** Maps memory. @throws KernelError as mmap of mm */
  async mmap({ object, ...options }: SharedMmapOptions): Promise<SharedMapping> {
    return new SharedMapping(this.#channel, await this.#channel.call("mmap", { ...options, object: object?.id }));
  }
}

/** The device behind a client. */
export class SharedDevice {
  readonly #channel: Channel;

  constructor(channel: Channel) {
    this.#channel = channel;
  }

  /** Compiles a kernel. @throws KernelError as WebGpuDevice.kernel; ENODEV the service has no device */
  async kernel(
    wgsl: string,
    options: { readonly entryPoint?: string; readonly name?: string } = {},
  ): Promise<SharedKernel> {
    const { id, name, reflection } = await this.#channel.call("kernel", { wgsl, ...options });
    return {
      name,
      reflection,
      dispatch: ({ bind = {}, mm, ...rest }) => {
        const wired = Object.entries(bind).map(([variable, target]) => {
          const { mapping, offset, length } = target instanceof SharedMapping ? target.range(0) : target;
          return [variable, mapping.wire(offset, length)] as const;
        });
        return this.#channel.call("dispatch", {
          ...rest,
          kernel: id,
          svm: mm !== undefined,
          bind: Object.fromEntries(wired),
        });
      },
    };
  }
}

/** A client of a service. Dispose it with `await using`, or call `close`. */
export class SharedMirror implements AsyncDisposable {
  readonly mm: SharedMemory;
  readonly device: SharedDevice;
  readonly mmu: MmuChoice;
  /** Which adapter was chosen; undefined when none was asked for. */
  readonly adapter: AdapterReport | undefined;
  readonly #channel: Channel;
  readonly #log: FaultLog;
  readonly #end: () => Promise<void>;
  readonly #kill: () => Promise<void>;
  #closed: Promise<void> | undefined;

  /** @internal Use open of the package. */
  constructor(
    channel: Channel,
    mmu: MmuChoice,
    { adapter, log }: { readonly adapter: AdapterReport | undefined; readonly log: SharedArrayBuffer },
    end: () => Promise<void>,
    kill: () => Promise<void>,
    locate: Locate,
  ) {
    this.mm = new SharedMemory(channel, locate);
    this.device = new SharedDevice(channel);
    this.mmu = mmu;
    this.adapter = adapter;
    this.#channel = channel;
    this.#log = new FaultLog(log);
    this.#end = end;
    this.#kill = kill;
  }

  /** Shared memory in which errors of plain accesses are counted: post it to workers, `new FaultLog(it)` there. */
  get faultLog(): FaultLog {
    return this.#log;
  }

  /** Errors of plain accesses so far: one atomic load. A program that cares looks after each batch of work. */
  get faultErrorCount(): number {
    return this.#log.count;
  }

  /** What went wrong in plain accesses, from the `from`-th error on. `ESRCH`: the service died, and all is poisoned. */
  faultErrors(from = 0): FaultError[] {
    return this.#log.since(from);
  }

  /**
   * Opens a file to map it: a path on Node; a File, another Blob, or a handle in browsers.
   * @throws KernelError as openFileObject, as openBrowserFile
   */
  async openFile(file: FileSource, options: { readonly write?: boolean } = {}): Promise<SharedFile> {
    return this.#file(await this.#channel.call("openFile", { file, ...options }));
  }

  /** Opens an HTTP(S) URL to map it. @throws KernelError as openUrlObject */
  async openUrl(
    url: string | URL,
    options: { readonly headers?: Readonly<Record<string, string>> } = {},
  ): Promise<SharedFile> {
    return this.#file(await this.#channel.call("openUrl", { url: String(url), ...options }));
  }

  #file({ id, pages }: ObjectInfo): SharedFile {
    return { id, pages, [Symbol.asyncDispose]: async () => void (await this.#channel.call("putObject", id)) };
  }

  /** Faults served so far. */
  counts(): Promise<{ readonly faults: number; readonly pagesShown: number; readonly errors: number }> {
    return this.#channel.call("counts", undefined);
  }

  /** @internal For tests: the service thread dies here and now. Resolves when all is poisoned. */
  kill(): Promise<void> {
    return this.#kill();
  }

  /**
   * Ends everything: files are written back, threads that wait for a page go on and see zeros, the service ends. Idempotent.
   * @throws KernelError EIO, ENOSPC a file cannot be written back; everything is ended all the same
   */
  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  async #close(): Promise<void> {
    try {
      await this.#channel.call("close", undefined);
    } finally {
      await this.#end();
    }
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
