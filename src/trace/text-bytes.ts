/** Text as bytes, a piece at a time: what is written a million times must not make a million strings. */

const ZERO = 48;
const POINT = 46;
const MINUS = 45;
const BILLION = 1_000_000_000;

/** The digits of 0000 to 9999. */
const FOURS = Uint8Array.from({ length: 40_000 }, (_, i) => ZERO + (Math.floor((i >> 2) / 10 ** (3 - (i & 3))) % 10));
const POWERS = Float64Array.from({ length: 10 }, (_, i) => 10 ** i);

const encoder = new TextEncoder();

/** UTF-8 of a text. */
export function utf8(text: string): Uint8Array {
  return encoder.encode(text);
}

/** A growing line of bytes. */
export class TextBytes {
  #bytes: Uint8Array<ArrayBuffer>;
  #length = 0;

  constructor(capacity: number) {
    this.#bytes = new Uint8Array(capacity);
  }

  get length(): number {
    return this.#length;
  }

  /** The bytes so far, until the next are put. */
  get bytes(): Uint8Array {
    return this.#bytes.subarray(0, this.#length);
  }

  clear(): void {
    this.#length = 0;
  }

  put(piece: Uint8Array): void {
    const bytes = this.#room(piece.length);
    const at = this.#length;
    bytes.set(piece, at);
    this.#length = at + piece.length;
  }

  /** A number: whole ones of up to 53 bits quickly, others as JavaScript prints them. */
  number(value: number): void {
    if (!Number.isSafeInteger(value)) {
      this.put(utf8(String(value)));
      return;
    }
    let rest = value;
    if (rest < 0) {
      this.#byte(MINUS);
      rest = -rest;
    }
    if (rest < BILLION) {
      this.#digitsOf(rest, 1);
      return;
    }
    const high = Math.floor(rest / BILLION);
    this.#digitsOf(high, 1);
    this.#digitsOf(rest - high * BILLION, 9);
  }

  /** Thousandths, as a decimal fraction without trailing zeros. */
  thousandths(value: number): void {
    let rest = Math.round(value);
    if (rest < 0) {
      this.#byte(MINUS);
      rest = -rest;
    }
    const whole = Math.floor(rest / 1000);
    this.number(whole);
    const fraction = rest - whole * 1000;
    if (fraction !== 0) {
      this.#byte(POINT);
      this.#digitsOf(fraction, 3);
      while (this.#bytes[this.#length - 1] === ZERO) {
        this.#length--;
      }
    }
  }

  /** At least `least` digits of a number below 2^31. */
  #digitsOf(value: number, least: number): void {
    let rest = value | 0;
    let count = 1;
    while (count < 10 && rest >= POWERS[count]) {
      count++;
    }
    count = Math.max(count, least);
    const bytes = this.#room(count);
    const from = this.#length;
    let at = from + count;
    this.#length = at;
    while (at - from >= 4) {
      const next = (rest / 10_000) | 0;
      const four = (rest - next * 10_000) * 4;
      at -= 4;
      bytes[at] = FOURS[four];
      bytes[at + 1] = FOURS[four + 1];
      bytes[at + 2] = FOURS[four + 2];
      bytes[at + 3] = FOURS[four + 3];
      rest = next;
    }
    while (at > from) {
      const next = (rest / 10) | 0;
      bytes[--at] = ZERO + (rest - next * 10);
      rest = next;
    }
  }

  #byte(value: number): void {
    this.#room(1)[this.#length++] = value;
  }

  #room(more: number): Uint8Array {
    if (this.#length + more > this.#bytes.length) {
      const larger = new Uint8Array(Math.max(this.#bytes.length * 2, this.#length + more));
      larger.set(this.bytes);
      this.#bytes = larger;
    }
    return this.#bytes;
  }
}
