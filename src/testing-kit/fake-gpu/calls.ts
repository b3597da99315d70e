/** The calls that a fake device counts, and the trouble that a test orders for some of them. */

/** What may befall a call: its answer takes its time; there is no memory for it; the device is lost just before it. */
export type GpuTrouble = "slow" | "out-of-memory" | "lost";

/** Promise turns that a slow call's answer takes. */
const SLOW_TURNS = 100;

/** Every call of a device, in order, and what befalls it. */
export class CallLog {
  /** Names of the calls so far. */
  readonly names: string[] = [];
  readonly #orders = new Map<number, GpuTrouble>();
  readonly #lose: () => void;

  constructor(lose: () => void) {
    this.#lose = lose;
  }

  /** Orders trouble for a call, counted from 0 and from the device's making. */
  order(call: number, trouble: GpuTrouble): void {
    this.#orders.set(call, trouble);
  }

  /** Notes a call; says what befalls it. */
  note(name: string): GpuTrouble | undefined {
    const trouble = this.#orders.get(this.names.length);
    this.names.push(name);
    if (trouble === "lost") {
      this.#lose();
    }
    return trouble;
  }
}

/** The answer of a call that is waited for. */
export async function answer<T>(trouble: GpuTrouble | undefined, give: () => T): Promise<T> {
  for (let turns = trouble === "slow" ? SLOW_TURNS : 1; turns > 0; turns--) {
    await undefined;
  }
  return give();
}

/** The error of an operation that the device's end, or the buffer's, cut off. */
export function aborted(why: string): Error {
  return new DOMException(why, "AbortError");
}
