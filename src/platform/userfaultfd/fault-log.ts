/**
 * Errors of plain accesses, in shared memory: an error is there before the access that met it goes on, so that a thread
 * that looks right after an access sees it, whatever the event loops do.
 */
import type { Errno } from "../../base/index.ts";

/** What a plain access met. */
export interface FaultError {
  /** Counts from 0, over all errors of the space. */
  readonly index: number;
  readonly code: Errno;
  /** Byte of the address in the process, page aligned: `address - base of the view` finds the element. */
  readonly address: number;
}

/** What an application reads where bytes were lost: not a number, as f32 and as f64. */
export const POISON_WORD = 0xfff7_dead;

/** Every code, so that none is told as another. */
const NUMBERS: Readonly<Record<Errno, number>> = {
  EFAULT: 0,
  EHWPOISON: 1,
  EIO: 2,
  ENOMEM: 3,
  ESRCH: 4,
  EACCES: 5,
  EBUSY: 6,
  EINTR: 7,
  EINVAL: 8,
  EISDIR: 9,
  ENODEV: 10,
  ENOENT: 11,
  ENOSPC: 12,
  ENOTSUP: 13,
  EOVERFLOW: 14,
  EPERM: 15,
};
const CODES = Object.keys(NUMBERS) as readonly Errno[];
const ENTRIES = 256;
/** Words: code, address low, address high. */
const ENTRY_WORDS = 3;

/** A ring of the latest 256 errors. Either side makes one over the same buffer. */
export class FaultLog {
  readonly buffer: SharedArrayBuffer;
  readonly #words: Int32Array;

  constructor(buffer = new SharedArrayBuffer(4 * (1 + ENTRIES * ENTRY_WORDS))) {
    this.buffer = buffer;
    this.#words = new Int32Array(buffer);
  }

  /** Errors so far. One atomic load: cheap enough to look at after every batch of work. */
  get count(): number {
    return Atomics.load(this.#words, 0);
  }

  /** Only the thread that serves faults writes. */
  report(code: Errno, address: number): void {
    const at = 1 + (this.count % ENTRIES) * ENTRY_WORDS;
    Atomics.store(this.#words, at, NUMBERS[code]);
    Atomics.store(this.#words, at + 1, (address % 2 ** 32) | 0);
    Atomics.store(this.#words, at + 2, Math.floor(address / 2 ** 32));
    Atomics.add(this.#words, 0, 1);
  }

  /** The errors from the `from`-th on that are still there. */
  since(from: number): FaultError[] {
    const errors: FaultError[] = [];
    for (let index = Math.max(from, this.count - ENTRIES); index < this.count; index++) {
      const at = 1 + (index % ENTRIES) * ENTRY_WORDS;
      errors.push({
        index,
        code: CODES[Atomics.load(this.#words, at)],
        address: (Atomics.load(this.#words, at + 1) >>> 0) + Atomics.load(this.#words, at + 2) * 2 ** 32,
      });
    }
    return errors;
  }
}
