/** Typed arrays over memory that a service owns. */
import { KernelError } from "../base/index.ts";

/** Typed arrays of explicit length over one range of bytes; made once, when first used. */
export class PlainArrays {
  /** Shared memory that can be posted to workers; the range begins at `byteOffset`. */
  readonly buffer: SharedArrayBuffer;
  readonly byteOffset: number;
  readonly byteLength: number;
  readonly #made = new Map<unknown, ArrayBufferView>();

  /** @internal */
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

  /** @throws KernelError EINVAL when the range does not begin at a multiple of 4. A rest below 4 bytes is left out. */
  get u32(): Uint32Array {
    return this.#array(Uint32Array);
  }

  /** As {@link PlainArrays.u32}. */
  get i32(): Int32Array {
    return this.#array(Int32Array);
  }

  /** As {@link PlainArrays.u32}. */
  get f32(): Float32Array {
    return this.#array(Float32Array);
  }

  /** As {@link PlainArrays.u32}, with 8 bytes. */
  get f64(): Float64Array {
    return this.#array(Float64Array);
  }
}

/** The right to use a range until disposed, as a lease of mm: needed on the software MMU, cheap on userfaultfd. */
export class SharedLease extends PlainArrays implements Disposable {
  readonly mode: "r" | "rw";
  readonly range: { readonly start: number; readonly end: number };
  readonly #release: () => void;
  #released = false;

  /** @internal Use SharedMapping.lease. */
  constructor(
    mode: "r" | "rw",
    range: { readonly start: number; readonly end: number },
    { buffer, byteOffset, byteLength }: Pick<PlainArrays, "buffer" | "byteOffset" | "byteLength">,
    release: () => void,
  ) {
    super(buffer, byteOffset, byteLength);
    this.mode = mode;
    this.range = range;
    this.#release = release;
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
