/** Text as bytes, a piece at a time: what is written a million times must not make a million strings. */

const ZERO = 48;
const POINT = 46;
const MINUS = 45;
const BILLION = 1_000_000_000;

/** The digits of 0000 to 9999. */
const FOURS = Uint8Array.from({ length: 40_000 }, (_, i) => ZERO + (Math.floor((i >> 2) / 10 ** (3 - (i & 3))) % 10));
const POWERS = Float64Array.from({ length: 10 }, (_, i) => 10 ** i);

const encoder = new TextEncoder();

/** A text that is put again and again: its UTF-8 in words, the last one filled up with zeros. */
export interface Piece {
  readonly length: number;
  readonly words: Int32Array;
}

/** UTF-8 of a text, ready to be put. */
export function piece(text: string): Piece {
  const bytes = encoder.encode(text);
  const words = new Int32Array(Math.ceil(bytes.length / 4));
  const view = new DataView(words.buffer);
  bytes.forEach((byte, i) => {
    view.setUint8(i, byte);
  });
  for (let i = 0; i < words.length; i++) {
    words[i] = view.getInt32(i * 4, true);
  }
  return { length: bytes.length, words };
}

/** A growing line of bytes. */
export class TextBytes {
  #bytes: Uint8Array<ArrayBuffer>;
  #view: DataView;
  #length = 0;
  readonly #scratch = new Float64Array(1);

  constructor(capacity: number) {
    this.#bytes = new Uint8Array(capacity);
    this.#view = new DataView(this.#bytes.buffer);
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

  /** A word at a time: for some dozens of bytes quicker than copying an array. */
  put({ length, words }: Piece): void {
    const from = this.#length;
    this.#room(words.length * 4);
    const view = this.#view;
    for (let i = 0; i < words.length; i++) {
      view.setInt32(from + i * 4, words[i], true);
    }
    this.#length = from + length;
  }

  /** A text that is put once. */
  text(text: string): void {
    const bytes = encoder.encode(text);
    this.#room(bytes.length).set(bytes, this.#length);
    this.#length += bytes.length;
  }

  /**
   * A number of an array: whole ones of up to 53 bits quickly, others as JavaScript prints them. From the array, because a
   * number that is handed on may be an object on its way.
   */
  number(values: Float64Array, i: number): void {
    const value = values[i];
    if (value >= 0 && value < BILLION && value === (value | 0)) {
      this.#digitsOf(value | 0, 1);
    } else if (value >= BILLION && value <= Number.MAX_SAFE_INTEGER && value === Math.floor(value)) {
      this.#large(values, i);
    } else {
      this.text(String(value));
    }
  }

  #large(values: Float64Array, i: number): void {
    const high = Math.floor(values[i] / BILLION);
    this.#digitsOf(high | 0, 1);
    this.#digitsOf((values[i] - high * BILLION) | 0, 9);
  }

  /** Thousandths, as a decimal fraction without trailing zeros. */
  thousandths(values: Float64Array, i: number): void {
    const whole = this.#scratch;
    let rest = Math.round(values[i]);
    if (rest < 0) {
      this.#byte(MINUS);
      rest = -rest;
    }
    whole[0] = Math.floor(rest / 1000);
    this.number(whole, 0);
    const fraction = (rest - whole[0] * 1000) | 0;
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
    let rest = value;
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
      this.#view = new DataView(larger.buffer);
    }
    return this.#bytes;
  }
}
