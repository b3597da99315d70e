/**
 * Some browsers look whether the GPU has finished only when something is submitted, and otherwise ten times a second. While
 * somebody waits, empty submissions make them look.
 */

/** In milliseconds: between two submissions, and how long a wait is short, so that each millisecond counts. */
const BETWEEN_MS = 0.5;
const SHORT_MS = 20;
const PATIENT_MS = 4;

/** Submits nothing, again and again, as long as there are waits. */
export class QueueNudge {
  readonly #queue: GPUQueue;
  #waits = 0;
  #since = 0;
  #latest = 0;
  #channel: MessageChannel | undefined;

  constructor(queue: GPUQueue) {
    this.#queue = queue;
  }

  /** A wait begins. */
  begin(): void {
    if (this.#waits++ === 0) {
      this.#since = performance.now();
      if (this.#channel === undefined) {
        // Timers are held back to 4 ms by browsers; messages are not.
        this.#channel = new MessageChannel();
        this.#channel.port1.onmessage = () => this.#tick();
        this.#channel.port2.postMessage(0);
      }
    }
  }

  /** A wait ends. */
  end(): void {
    this.#waits--;
  }

  #tick(): void {
    if (this.#waits === 0) {
      this.#channel?.port1.close();
      this.#channel = undefined;
      return;
    }
    const now = performance.now();
    if (now - this.#latest >= BETWEEN_MS) {
      this.#latest = now;
      this.#queue.submit([]);
    }
    if (now - this.#since < SHORT_MS) {
      this.#channel?.port2.postMessage(0);
    } else {
      setTimeout(() => this.#tick(), PATIENT_MS);
    }
  }
}
