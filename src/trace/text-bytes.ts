/** Text as bytes, a piece at a time: what is written a million times must not make a million strings. */

const MINUS = 45;
const BILLION = 1_000_000_000;

/** The digits of 0000 to 9999, each four as the word that they are in memory. */
const FOURS = Int32Array.from(
  { length: 10_000 },
  (_, i) =>
    0x30303030 +
    Math.floor(i / 1000) +
    ((Math.floor(i / 100) % 10) << 8) +
    ((Math.floor(i / 10) % 10) << 16) +
    ((i % 10) << 24),
);
/** Makes a point of the first of four digits that is 0. */
const ZERO_TO_POINT = 2;

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
      this.#digitsOf(value | 0);
    } else if (value >= BILLION && value <= Number.MAX_SAFE_INTEGER && value === Math.floor(value)) {
      this.#large(values, i);
    } else {
      this.text(String(value));
    }
  }

  #large(values: Float64Array, i: number): void {
    const high = Math.floor(values[i] / BILLION);
    const low = (values[i] - high * BILLION) | 0;
    this.#digitsOf(high | 0);
    const eight = (low / 10) | 0;
    const four = (eight / 10_000) | 0;
    this.#digits(FOURS[four], 4);
    this.#digits(FOURS[eight - four * 10_000], 4);
    this.#digits(FOURS[low - eight * 10] >> 24, 1);
  }

  /** Thousandths, as a decimal fraction without trailing zeros. */
  thousandths(values: Float64Array, i: number): void {
    const whole = this.#scratch;
    let rest = Math.round(values[i]);
    if (rest < 0) {
      this.byte(MINUS);
      rest = -rest;
    }
    whole[0] = Math.floor(rest / 1000);
    this.number(whole, 0);
    const fraction = (rest - whole[0] * 1000) | 0;
    if (fraction !== 0) {
      const zeros = fraction % 10 !== 0 ? 0 : fraction % 100 !== 0 ? 1 : 2;
      this.#digits(FOURS[fraction] - ZERO_TO_POINT, 4 - zeros);
    }
  }

  /** A number below 2^31. */
  #digitsOf(value: number): void {
    const high = (value / 10_000) | 0;
    if (high === 0) {
      this.#first(value);
      return;
    }
    const highest = (high / 10_000) | 0;
    if (highest === 0) {
      this.#first(high);
    } else {
      this.#first(highest);
      this.#digits(FOURS[high - highest * 10_000], 4);
    }
    this.#digits(FOURS[value - high * 10_000], 4);
  }

  /** A number below 10,000, without zeros before it. */
  #first(value: number): void {
    const zeros = value >= 1000 ? 0 : value >= 100 ? 1 : value >= 10 ? 2 : 3;
    this.#digits(FOURS[value] >>> (zeros * 8), 4 - zeros);
  }

  /** The first `count` bytes of a word. */
  #digits(word: number, count: number): void {
    this.#room(4);
    this.#view.setInt32(this.#length, word, true);
    this.#length += count;
  }

  /** One character of ASCII. */
  byte(value: number): void {
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
