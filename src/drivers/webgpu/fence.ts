/** Submissions in order, and waiting for them. */
import { trace, traceNow, traceOn } from "../../base/index.ts";
import type { GpuHandle } from "./gpu-handle.ts";

/** Numbers submissions. A queue finishes them in order, so one number says how far the device is. */
export class FenceTimeline {
  readonly #gpu: GpuHandle;
  #submitted = 0;
  #completed = 0;
  #last: Promise<void> = Promise.resolve();

  constructor(gpu: GpuHandle) {
    this.#gpu = gpu;
  }

  /** Records a submission whose end the queue tells by `done`; returns its number. */
  record(done: Promise<void>): number {
    const serial = ++this.#submitted;
    const complete = () => {
      this.#completed = Math.max(this.#completed, serial);
    };
    this.#last = this.#gpu.lost.wait(done, "fence").then(complete, complete);
    return serial;
  }

  isDone(serial: number): boolean {
    return serial <= this.#completed;
  }

  /** Resolves when the device has finished everything submitted so far, or is lost. */
  async idle(): Promise<void> {
    const since = traceNow();
    await this.#last;
    if (traceOn) {
      trace("gpu.fence", { device: this.#gpu.label, why: "idle" }, since);
    }
  }
}
