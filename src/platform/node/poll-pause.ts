/**
 * Dawn looks whether the GPU has finished in each turn of Node's event loop, and as long as it has not, one turn follows the
 * other. A GPU that is a program on the CPU has that core less for its own work. While somebody waits for long and the loop
 * has nothing else to do, it sleeps a little in each turn.
 */

/** In milliseconds: of a wait that is short, so that its end is to be noticed at once. */
const SHORT_WAIT_MS = 0.4;
/**
 * After a wait of so long the next one is not expected to be short, and sleeping begins at once: otherwise the GPU's threads
 * begin a kernel with a core less, and one of 2 to 6 ms takes up to twice as long.
 */
const LONG_WAIT_MS = 1.5;
/** A turn of a loop that does nothing but look. */
const IDLE_TURN_MS = 0.2;
/** Of one turn. */
export const SLEEP_MS = 0.2;

const NEVER_WOKEN = new Int32Array(new SharedArrayBuffer(4));

/** Lets the event loop's thread sleep while there are waits for the GPU and nothing else to do. */
export class PollPause {
  readonly #sleep: () => void;
  #waits = 0;
  #isTurning = false;
  /** When the latest wait began, and the latest turn. */
  #begun = 0;
  #turned = 0;
  #wasLong = false;

  /** `sleep` lets the thread sleep for {@link SLEEP_MS}, less when there is something to do. */
  constructor(sleep: () => void = () => void Atomics.wait(NEVER_WOKEN, 0, 0, SLEEP_MS)) {
    this.#sleep = sleep;
  }

  /** A wait begins. */
  begin(): void {
    this.#waits++;
    this.#begun = performance.now();
    if (!this.#isTurning) {
      this.#isTurning = true;
      setImmediate(this.#turn);
    }
  }

  /** A wait ends. */
  end(): void {
    this.#waits--;
    if (this.#waits === 0) {
      this.#wasLong = performance.now() - this.#begun > LONG_WAIT_MS;
    }
  }

  readonly #turn = (): void => {
    if (this.#waits === 0) {
      this.#isTurning = false;
      return;
    }
    const now = performance.now();
    // A turn that took longer has done something, and the next one is likely to.
    if ((this.#wasLong || now - this.#begun > SHORT_WAIT_MS) && now - this.#turned < IDLE_TURN_MS) {
      this.#sleep();
    }
    this.#turned = performance.now();
    setImmediate(this.#turn);
  };
}
