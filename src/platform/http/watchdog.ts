/** Ends a request when its server falls silent, or when its user loses interest. */
export class Watchdog implements Disposable {
  readonly timeoutMs: number;
  /** True when the silence was too long. */
  bit = false;
  readonly #controller = new AbortController();
  readonly #outer: AbortSignal;
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(outer: AbortSignal, timeoutMs: number) {
    this.timeoutMs = timeoutMs;
    this.#outer = outer;
    if (outer.aborted) {
      this.#pass();
    } else {
      outer.addEventListener("abort", this.#pass);
      this.feed();
    }
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  /** Something came: the clock starts anew. */
  feed(): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.bit = true;
      this.#controller.abort();
    }, this.timeoutMs);
  }

  [Symbol.dispose](): void {
    clearTimeout(this.#timer);
    this.#outer.removeEventListener("abort", this.#pass);
  }

  readonly #pass = () => this.#controller.abort(this.#outer.reason);
}
