/** Knows whether a device is lost, and ends every wait on it when it is. */
import { KernelError, throwIfAborted } from "../../base/index.ts";

const NO_ANSWER = "it no longer answers";

/** What {@link DeviceLost.wait} takes beside the promise. */
export interface GpuWaitOptions {
  readonly signal?: AbortSignal | undefined;
}

/** Is told when somebody begins to wait for the GPU, and when a wait is over, however it ended. */
export interface WaitListener {
  begin(): void;
  end(): void;
}

/** The loss of one GPUDevice: a flag to look at, a reason to report, and waits that cannot hang. */
export class DeviceLost {
  readonly #label: string;
  readonly #waits: WaitListener | undefined;
  readonly #listeners = new Set<() => void>();
  #reason: string | undefined;

  constructor(device: GPUDevice, label: string, waits?: WaitListener) {
    this.#label = label;
    this.#waits = waits;
    device.lost.then(
      (info) => this.mark(info.reason === "destroyed" ? "it was destroyed" : info.message.trim() || info.reason),
      (error: unknown) => this.mark(String(error)),
    );
  }

  get isLost(): boolean {
    return this.#reason !== undefined;
  }

  /** Why the device was lost; undefined while it works. */
  get reason(): string | undefined {
    return this.#reason;
  }

  /** Runs `listener` once when the device is lost, at once when it is. Returns a function that takes it off again. */
  onLost(listener: () => void): () => void {
    if (this.isLost) {
      listener();
      return () => undefined;
    }
    this.#listeners.add(listener);
    return () => void this.#listeners.delete(listener);
  }

  /** Records the loss without waiting for the device to say so. The first reason stays, if it is one. */
  mark(reason: string): void {
    if (this.#reason !== undefined) {
      this.#reason = this.#reason === NO_ANSWER ? reason : this.#reason;
      return;
    }
    this.#reason = reason;
    const listeners = [...this.#listeners];
    this.#listeners.clear();
    for (const listener of listeners) {
      listener();
    }
  }

  error(op: string, cause?: unknown): KernelError {
    const reason = this.#reason ?? NO_ANSWER;
    return new KernelError("ENODEV", op, `the GPU device "${this.#label}" is lost (${reason}): open another one`, {
      cause,
    });
  }

  /**
   * The error of an operation that the GPU cut off, which only a loss does. It may be announced later: until then whoever
   * tries again would try for ever.
   */
  cutOff(op: string, cause: unknown): KernelError {
    this.mark(NO_ANSWER);
    return this.error(op, cause);
  }

  /** Throws ENODEV when the device is lost. */
  check(op: string): void {
    if (this.isLost) {
      throw this.error(op);
    }
  }

  /**
   * Waits for something that the GPU does.
   *
   * Errors: ENODEV when the device is or gets lost, EINTR when the signal fires; the GPU's work goes on in that case. What
   * the promise itself rejects with passes through while the device works.
   */
  wait<T>(promise: Promise<T>, op: string, { signal }: GpuWaitOptions = {}): Promise<T> {
    // Whatever ends the wait, a later rejection of the promise is nobody's.
    promise.catch(() => undefined);
    return new Promise((resolve, reject) => {
      let waiting = true;
      const leave = () => {
        if (waiting) {
          waiting = false;
          this.#waits?.end();
        }
        takeOff();
        signal?.removeEventListener("abort", onAbort);
      };
      const onAbort = () => {
        leave();
        reject(new KernelError("EINTR", op, "the operation's AbortSignal fired", { cause: signal?.reason }));
      };
      this.check(op);
      throwIfAborted(signal, op);
      const takeOff = this.onLost(() => {
        leave();
        reject(this.error(op));
      });
      signal?.addEventListener("abort", onAbort);
      this.#waits?.begin();
      promise.then(
        (value) => {
          leave();
          resolve(value);
        },
        (error: unknown) => {
          leave();
          // Mapping a buffer of ours is aborted only by the loss of its device.
          reject(this.isLost || isAbort(error) ? this.cutOff(op, error) : error);
        },
      );
    });
  }
}

function isAbort(error: unknown): boolean {
  return error instanceof Error && error.name === "AbortError";
}
