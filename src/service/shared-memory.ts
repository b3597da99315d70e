/** An address space of a service, as a program uses it. */
import { assertOptions, KernelError } from "../base/index.ts";
import {
  type AddressSpaceStats,
  type AdoptableMemory,
  type AdoptOptions,
  type Advice,
  adoptableBytes,
  type MremapOptions,
  type Prot,
} from "../mm/index.ts";
import type { Channel, ClientMmapOptions, ObjectInfo, SpaceId, WireRange } from "./protocol.ts";
import { SharedMapping } from "./shared-mapping.ts";

/** An opened file or URL, to map. */
export interface SharedFile extends AsyncDisposable {
  /** @internal */
  readonly id: number;
  readonly pages: number;
  /** Bytes of the file or the URL. */
  readonly length: number;
  /** The caller needs it no more; mappings hold references of their own. Idempotent. */
  put(): Promise<void>;
}

/** Options of {@link SharedMemory.mmap}: those of mmap of mm, with an object that the service opened. */
export interface SharedMmapOptions extends ClientMmapOptions {
  /** What to map; default: zeros. */
  readonly object?: SharedFile | undefined;
}

/** How memory of this thread is named to the service. */
export type Locate = (memory: { readonly buffer: ArrayBufferLike }) => AdoptableMemory;

/** Whose each opened file is: an id means something to one service only. */
const channels = new WeakMap<object, Channel>();

/** @internal What a service opened, for its client. */
export function sharedFile(channel: Channel, info: ObjectInfo): SharedFile {
  const put = async () => void (await channel.call("putObject", info.id));
  const file = { ...info, put, [Symbol.asyncDispose]: put };
  channels.set(file, channel);
  return file;
}

/** The address space behind a client. */
export class SharedMemory implements AsyncDisposable {
  /** @internal */
  readonly space: SpaceId;
  readonly #channel: Channel;
  readonly #locate: Locate;
  /** Adopted memories must not be collected while the service knows their addresses. */
  readonly #kept = new Map<number, object>();
  #exited: Promise<void> | undefined;

  /** @internal Use open of the package, and fork. */
  constructor(channel: Channel, locate: Locate, space: SpaceId = 0) {
    this.#channel = channel;
    this.#locate = locate;
    this.space = space;
  }

  /** @internal The space, to be sent over a channel. @throws KernelError EINVAL it is another service's */
  static idOf(mm: SharedMemory, channel: Channel, op: string): SpaceId {
    if (!(mm instanceof SharedMemory) || mm.#channel !== channel) {
      throw new KernelError(
        "EINVAL",
        op,
        "mm is not of the service that has the kernel: give its pm.mm or a fork of it",
      );
    }
    return mm.space;
  }

  #range(start: number, length: number): WireRange {
    return { space: this.space, start, length, name: "the range" };
  }

  /**
   * Maps a WebAssembly.Memory, so that a pointer p of the program is address `mapping.start + p` for kernels. `maximum`:
   * bytes that it may grow to, as it was made with; growth needs no call. Until this resolves, and while `munmap` or `close`
   * give it back, nobody may use the memory.
   * @throws KernelError as adopt of mm
   */
  async adopt(memory: { readonly buffer: ArrayBufferLike }, options: AdoptOptions = {}): Promise<SharedMapping> {
    assertOptions("adopt", options);
    const { space } = this;
    adoptableBytes(memory);
    const info = await this.#channel.call("adopt", { ...options, space, memory: this.#locate(memory) });
    this.#kept.set(info.start, memory);
    return new SharedMapping(this, this.#channel, info, memory);
  }

  /** Maps memory. @throws KernelError as mmap of mm */
  async mmap(options: SharedMmapOptions): Promise<SharedMapping> {
    assertOptions("mmap", options);
    const { object, ...rest } = options;
    const { space } = this;
    if (object !== undefined && channels.get(object) !== this.#channel) {
      throw new KernelError(
        "EINVAL",
        "mmap",
        "the object is none of this service: give what its openFile() or openUrl() resolved to",
      );
    }
    const info = await this.#channel.call("mmap", { ...rest, space, object: object?.id });
    return new SharedMapping(this, this.#channel, info);
  }

  /** A handle on memory that is mapped already, as a child has after fork. See mapping of mm. @throws KernelError EFAULT */
  async mapping(start: number, length: number): Promise<SharedMapping> {
    const info = await this.#channel.call("mapping", { space: this.space, start, length });
    return new SharedMapping(this, this.#channel, info);
  }

  /**
   * Resizes or moves a mapping; see mremap of mm. Use the arrays of the mapping that it returns: those of the former one may
   * see zeros.
   * @throws KernelError as mremap of mm
   */
  async mremap(
    start: number,
    oldLength: number,
    newLength: number,
    options: MremapOptions = {},
  ): Promise<SharedMapping> {
    const { space } = this;
    const info = await this.#channel.call("mremap", { ...options, space, start, oldLength, newLength });
    return new SharedMapping(this, this.#channel, info);
  }

  /** See munmap of mm. */
  async munmap(start: number, length: number): Promise<void> {
    await this.#channel.call("munmap", this.#range(start, length));
    this.#kept.delete(start);
  }

  /** See mprotect of mm. */
  async mprotect(start: number, length: number, prot: Prot): Promise<void> {
    await this.#channel.call("mprotect", { ...this.#range(start, length), prot });
  }

  /** See madvise of mm. */
  async madvise(start: number, length: number, advice: Advice): Promise<void> {
    await this.#channel.call("madvise", { ...this.#range(start, length), advice });
  }

  /** A child with the same content, which lives until it is disposed of or all is closed. See fork of mm. */
  async fork(): Promise<SharedMemory> {
    const child = await this.#channel.call("fork", this.space);
    return new SharedMemory(this.#channel, this.#locate, child);
  }

  /** Mappings, and their pages by state. */
  stats(): Promise<AddressSpaceStats> {
    return this.#channel.call("stats", this.space);
  }

  /** What is mapped and where its pages are, as text. See formatSmaps of mm. */
  smaps(): Promise<string> {
    return this.#channel.call("smaps", this.space);
  }

  /** The space exits. Idempotent. @throws KernelError EIO, ENOSPC a shared file cannot be written back */
  async [Symbol.asyncDispose](): Promise<void> {
    this.#exited ??= this.#channel.call("exit", this.space).then(() => this.#kept.clear());
    await this.#exited;
  }
}
