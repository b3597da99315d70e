/** A buffer of the fake device. */
import { aborted, answer } from "./calls.ts";
import type { FakeGpu } from "./gpu.ts";

const MAP_READ = 1;
const MAP_WRITE = 2;

interface Mapped {
  readonly mode: number;
  readonly ranges: { readonly offset: number; readonly bytes: ArrayBuffer }[];
}

/** @see GPUBuffer; mapped ranges are copies that `unmap` takes over and detaches, as the real ones do. */
export class FakeBuffer {
  readonly label: string;
  readonly size: number;
  readonly usage: number;
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** False for one that there was no memory for, or whose description was wrong. */
  readonly isValid: boolean;
  readonly #gpu: FakeGpu;
  #mapped: Mapped | undefined;
  #pending = false;
  #destroyed = false;

  constructor(gpu: FakeGpu, descriptor: GPUBufferDescriptor, isValid: boolean) {
    this.#gpu = gpu;
    this.label = descriptor.label ?? "";
    this.size = descriptor.size;
    this.usage = descriptor.usage;
    this.isValid = isValid;
    this.bytes = new Uint8Array(isValid ? descriptor.size : 0);
    if (isValid) {
      gpu.bytesInUse += descriptor.size;
      gpu.buffers.add(this);
    }
    if (descriptor.mappedAtCreation === true) {
      this.#mapped = { mode: MAP_WRITE, ranges: [] };
    }
  }

  get mapState(): "unmapped" | "pending" | "mapped" {
    return this.#mapped !== undefined ? "mapped" : this.#pending ? "pending" : "unmapped";
  }

  get isDestroyed(): boolean {
    return this.#destroyed;
  }

  async mapAsync(mode: number): Promise<undefined> {
    const trouble = this.#gpu.calls.note("mapAsync");
    const wanted = mode === 2 ? MAP_WRITE : MAP_READ;
    if (this.#gpu.isLost || this.#destroyed) {
      throw aborted("the buffer or its device is gone");
    }
    if (!this.isValid || !(this.usage & wanted) || this.mapState !== "unmapped") {
      this.#gpu.refuse(`mapAsync(${mode}) of buffer "${this.label}", usage ${this.usage}, ${this.mapState}`);
      throw new DOMException("the buffer cannot be mapped", "OperationError");
    }
    this.#pending = true;
    return answer(trouble, () => {
      if (!this.#pending || this.#gpu.isLost) {
        this.#pending = false;
        throw aborted("the buffer was unmapped, destroyed, or its device lost");
      }
      this.#pending = false;
      this.#mapped = { mode, ranges: [] };
      return undefined;
    });
  }

  getMappedRange(offset = 0, size = this.size - offset): ArrayBuffer {
    if (this.#mapped === undefined || offset % 8 !== 0 || size % 4 !== 0 || offset + size > this.size) {
      throw new DOMException(`no mapped range ${offset}, ${size} of buffer "${this.label}"`, "OperationError");
    }
    const bytes = this.bytes.slice(offset, offset + size).buffer;
    this.#mapped.ranges.push({ offset, bytes });
    return bytes;
  }

  unmap(): void {
    const mapped = this.#mapped;
    this.#mapped = undefined;
    this.#pending = false;
    for (const { offset, bytes } of mapped?.ranges ?? []) {
      if (mapped?.mode === MAP_WRITE && !this.#destroyed) {
        this.bytes.set(new Uint8Array(bytes), offset);
      }
      // Detached: a view that somebody kept has no bytes any more.
      structuredClone(bytes, { transfer: [bytes] });
    }
  }

  destroy(): void {
    this.unmap();
    if (!this.#destroyed && this.isValid) {
      this.#gpu.bytesInUse -= this.size;
      this.#gpu.buffers.delete(this);
    }
    this.#destroyed = true;
  }
}
