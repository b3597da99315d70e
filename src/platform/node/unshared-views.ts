/**
 * Shared memory as what Dawn's Node binding takes: `queue.writeBuffer` of webgpu 0.6 ends the process when it is given a view of
 * a SharedArrayBuffer. Of the array types an ArrayBuffer is the quickest to hand over.
 */
import type koffiModule from "koffi";

type Koffi = Pick<typeof koffiModule, "address" | "view">;

/** Views of memory that never moves: WebAssembly memories and the like. */
export class UnsharedViews {
  readonly #koffi: Koffi;
  /** Where a view is used its memory is, too: whoever asks for the view has it. */
  readonly #views = new WeakMap<ArrayBufferLike, ArrayBuffer>();

  constructor(koffi: Koffi) {
    this.#koffi = koffi;
  }

  /** The buffer itself, or a view of the same bytes: good only as long as the buffer is. */
  unshared(buffer: ArrayBufferLike): ArrayBuffer {
    if (buffer instanceof ArrayBuffer) {
      return buffer;
    }
    let view = this.#views.get(buffer);
    if (view === undefined) {
      const address = this.#koffi.address(new Uint8Array(buffer));
      view = this.#koffi.view(address, buffer.byteLength) as ArrayBuffer;
      this.#views.set(buffer, view);
    }
    return view;
  }
}
