/** The control buffers of one dispatch: each slice under way has its own. */
import { KernelError } from "../../../base/index.ts";
import type { ControlBuffers, ControlShape } from "./control.ts";
import { MOST_SPILL_WORDS } from "./control-layout.ts";
import type { SvmDevice } from "./svm-device.ts";

/** Control buffers by lane; given back when the dispatch is over. */
export class DispatchControls implements Disposable {
  readonly #svm: SvmDevice;
  readonly #all: [ControlBuffers, ...ControlBuffers[]];
  #shape: ControlShape | undefined;

  constructor(svm: SvmDevice) {
    this.#svm = svm;
    this.#all = [svm.takeControl()];
  }

  of(lane = 0): ControlBuffers {
    return this.#all[lane];
  }

  /** @throws KernelError ENOMEM the GPU has no memory for what the first slice needs */
  async prepare(shape: ControlShape): Promise<void> {
    this.#shape = shape;
    await this.of().prepare(shape);
  }

  /** Makes those of a second slice beside the first. False when there is no memory for them. */
  async second(): Promise<boolean> {
    if (this.#all.length > 1 || this.#shape === undefined) {
      return this.#all.length > 1;
    }
    const control = this.#svm.takeControl();
    try {
      await control.prepare(this.#shape);
      this.#all.push(control);
      return true;
    } catch (error) {
      this.#svm.putControl(control);
      if (error instanceof KernelError && error.code === "ENOMEM") {
        return false;
      }
      throw error;
    }
  }

  /**
   * Makes room for what invocations keep between rounds, `words` each: for all of a window, or as many as can be.
   * @throws KernelError ENOMEM the GPU has no memory for it
   */
  async spill(words: number): Promise<void> {
    const shape = this.#shape;
    if (shape === undefined) {
      return;
    }
    const most = Math.max(1, Math.floor(MOST_SPILL_WORDS / words));
    const spillWords = words * Math.min(most, shape.window * shape.invocationsPerWorkgroup);
    this.#shape = { ...shape, spillWords };
    for (const control of this.#all) {
      await control.grow({ spillWords });
    }
  }

  [Symbol.dispose](): void {
    for (const control of this.#all) {
      this.#svm.putControl(control);
    }
  }
}
