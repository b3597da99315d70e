/** Views of CPU windows for uploads. */

/** The view of a whole window, which does for all of its pages. */
export class WindowView {
  /** Beside the view: asking that for it is a call into the engine, a tenth of what uploading a page costs. */
  #buffer: ArrayBufferLike | undefined;
  #view: Uint8Array = new Uint8Array(0);

  of(buffer: ArrayBufferLike): Uint8Array {
    if (this.#buffer !== buffer) {
      this.#buffer = buffer;
      this.#view = new Uint8Array(buffer);
    }
    return this.#view;
  }
}
