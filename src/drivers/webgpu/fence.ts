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

  /** Records a submission whose end `done` tells; returns its number. */
  record(done: Promise<void>): number {
    const serial = ++this.#submitted;
    const complete = () => {
      this.#completed = Math.max(this.#completed, serial);
    };
    // The signal of the one who submitted ends his wait, not the device's work: fences look at the queue itself.
    const finished = this.#gpu.lost.isLost ? done : this.#gpu.queue.onSubmittedWorkDone().then(() => undefined);
    this.#last = this.#gpu.lost.wait(finished, "fence").then(complete, complete);
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
