/** A mapping of a service, as a program uses it. */
import { assertOptions, KernelError, PAGE_SIZE } from "../base/index.ts";
import {
  type Advice,
  assertBytes,
  type LeaseOptions,
  notAMapping,
  type PinMode,
  type Prot,
  resolveByteRange,
  svmAddressOf,
} from "../mm/index.ts";
import { PlainArrays, SharedLease } from "./plain-arrays.ts";
import type { Channel, MappingInfo, WireRange } from "./protocol.ts";
import type { SharedMemory } from "./shared-memory.ts";

/** A part of a mapping, to bind. */
export interface SharedRange {
  readonly mapping: SharedMapping;
  readonly start: number;
  readonly end: number;
}

/** A mapping, used through plain arrays. On the software MMU an access outside of a lease may see or leave old bytes. */
export class SharedMapping {
  readonly mm: SharedMemory;
  readonly start: number;
  readonly length: number;
  readonly name: string;
  readonly #channel: Channel;
  readonly #arrays: PlainArrays | undefined;
  readonly #memory: { readonly buffer: ArrayBufferLike } | undefined;

  /** @internal Use SharedMemory.mmap and adopt. */
  constructor(mm: SharedMemory, channel: Channel, info: MappingInfo, memory?: { readonly buffer: ArrayBufferLike }) {
    this.mm = mm;
    this.#channel = channel;
    this.#memory = memory;
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
      throw new KernelError(
        "EINVAL",
        "lease",
        `no one array can show ${this.name}, which crosses a multiple of 4 GiB or is of several pieces: use read and write`,
      );
    }
    return this.#arrays;
  }

  /**
   * False for a mapping that no one array can show: it crosses a multiple of 4 GiB, or is of several pieces, as one that became
   * smaller and larger again. Use `read` and `write` then.
   */
  get hasArrays(): boolean {
    return this.#memory !== undefined || this.#arrays !== undefined;
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

  /** See Mapping.svmAddress. @throws KernelError EINVAL the mapping is not wholly inside the aperture of 16 GiB */
  get svmAddress(): number {
    return svmAddressOf(this.start, this.name, this.length);
  }

  /** One past the last byte. */
  get end(): number {
    return this.start + this.length;
  }

  /** A part, to bind. @throws KernelError EINVAL when it is not inside */
  range(offset: number, length?: number): SharedRange {
    return { mapping: this, ...resolveByteRange("range", this, { offset, length }) };
  }

  #wire(op: string, offset = 0, length?: number): WireRange {
    const { start, end } = resolveByteRange(op, this, { offset, length });
    return { space: this.mm.space, start, length: end - start, name: this.name };
  }

  /**
   * What to send of a mapping or a part. @internal
   * @throws KernelError EINVAL it is neither, or another service's: `what` says what it was given for
   */
  static wired(target: SharedMapping | SharedRange, channel: Channel, op: string, what: string): WireRange {
    const mapping = target instanceof SharedMapping ? target : (target as SharedRange | null)?.mapping;
    if (!(mapping instanceof SharedMapping)) {
      throw notAMapping(op, what);
    }
    if (mapping.#channel !== channel) {
      throw new KernelError(
        "EINVAL",
        op,
        `${what} is ${mapping.name}, which another open() has mapped: map it with this one`,
      );
    }
    return mapping.#wire(op, target.start - mapping.start, target.end - target.start);
  }

  /**
   * See Mapping.lease. Of an adopted memory all of the range is leased, so that it may grow meanwhile; the arrays are over
   * what it has now.
   * @throws KernelError as Mapping.lease
   */
  async lease(mode: PinMode, part: LeaseOptions = {}) {
    assertOptions("lease", part);
    const { offset = 0, length, longTerm } = part;
    const range = this.#wire("lease", offset, length);
    const { buffer, byteOffset, byteLength } = this.#plain;
    const present = Math.max(0, Math.min(range.length, byteLength - offset));
    const id = await this.#channel.call("lease", { ...range, mode, longTerm, present });
    const release = () => void this.#channel.call("unlease", id).catch(() => undefined);
    const bytes = { buffer, byteOffset: byteOffset + Math.min(offset, byteLength), byteLength: present };
    return new SharedLease(mode, { start: range.start, end: range.start + range.length }, bytes, release);
  }

  /** Brings pages in and shows them, so that the next accesses are no faults: before system calls, where those may not wait. */
  async populate(offset = 0, length?: number): Promise<void> {
    await this.#channel.call("populate", this.#wire("populate", offset, length));
  }

  /** A copy of bytes. @throws KernelError as Mapping.read */
  async read(offset = 0, length?: number): Promise<Uint8Array> {
    return await this.#channel.call("read", this.#wire("read", offset, length));
  }

  /** Writes bytes. @throws KernelError as Mapping.write */
  async write(offset: number, bytes: ArrayBufferView): Promise<void> {
    assertBytes("write", bytes);
    const copy = new Uint8Array(bytes.buffer, bytes.byteOffset, bytes.byteLength).slice();
    await this.#channel.call("write", { ...this.#wire("write", offset, copy.length), bytes: copy });
  }

  /** See msync of mm. */
  async msync(): Promise<void> {
    await this.#channel.call("msync", this.#wire("msync"));
  }

  /** Unmaps. On userfaultfd arrays over it see zeros from here on, and what is written to them goes nowhere. */
  munmap(): Promise<void> {
    return this.mm.munmap(this.start, this.length);
  }

  /** See mprotect of mm. */
  mprotect(prot: Prot): Promise<void> {
    return this.mm.mprotect(this.start, this.length, prot);
  }

  /** See madvise of mm. Offsets and lengths are page aligned. */
  madvise(
    advice: Advice,
    offset = 0,
    length = Math.ceil((this.length - offset) / PAGE_SIZE) * PAGE_SIZE,
  ): Promise<void> {
    return this.mm.madvise(this.start + offset, length, advice);
  }
}
