/**
 * A WebAssembly program, assembled by hand, with an allocator of its own: it builds a linked list in its heap, growing the
 * heap as it goes, and sums it. Imported by the example and by its test.
 *
 *     node: u32 next (a pointer, 0 at the end), u32 value; nodes lie `stride` bytes apart
 *     build(count, stride) -> pointer to the first node; values are 1, 2, ...
 *     sum(pointer) -> sum of the values
 */
/** What the program exports. */
export interface ListProgram {
  build(count: number, stride: number): number;
  sum(pointer: number): number;
}

const section = (id: number, ...content: readonly number[]): number[] => [id, ...u32(content.length), ...content];

function u32(number: number): number[] {
  const bytes: number[] = [];
  let value = number;
  do {
    bytes.push((value & 0x7f) | (value > 0x7f ? 0x80 : 0));
    value >>>= 7;
  } while (value > 0);
  return bytes;
}

const text = (value: string): number[] => [value.length, ...new TextEncoder().encode(value)];
const I32 = 0x7f;
const get = (local: number): number[] => [0x20, local];
const set = (local: number): number[] => [0x21, local];
const constant = (value: number): number[] => [0x41, ...signed(value)];

function signed(number: number): number[] {
  const bytes: number[] = [];
  let value = number;
  for (;;) {
    const low = value & 0x7f;
    value >>= 7;
    if ((value === 0 && (low & 0x40) === 0) || (value === -1 && (low & 0x40) !== 0)) {
      return [...bytes, low];
    }
    bytes.push(low | 0x80);
  }
}

const ADD = 0x6a;
const store = (offset: number): number[] => [0x36, 2, offset];
const load = (offset: number): number[] => [0x28, 2, offset];

/** Parameters count 0, stride 1; locals first 2, at 3, value 4. The bump allocator's top is global 0. */
const build = [
  ...[0x23, 0, ...set(2), 0x23, 0, ...set(3)],
  // loop: the memory grows until the next node fits
  ...[0x03, 0x40],
  ...[0x03, 0x40, 0x3f, 0x00, ...constant(16), 0x74, ...get(3), ...constant(16), ADD, 0x49],
  ...[0x04, 0x40, ...constant(1), 0x40, 0x00, ...constant(-1), 0x47, 0x0d, 1, 0x0b, 0x0b],
  // value++; at.value = value; at.next = value < count ? at + stride : 0
  ...[...get(4), ...constant(1), ADD, ...set(4)],
  ...[...get(3), ...get(4), ...store(4)],
  ...[...get(3), ...get(3), ...get(1), ADD, ...constant(0), ...get(4), ...get(0), 0x49, 0x1b, ...store(0)],
  ...[...get(3), ...get(1), ADD, ...set(3)],
  ...[...get(4), ...get(0), 0x49, 0x0d, 0, 0x0b],
  ...[...get(3), 0x24, 0, ...get(2), 0x0b],
];

/** Parameter at 0; local sum 1. */
const sum = [
  ...[0x02, 0x40, 0x03, 0x40, ...get(0), 0x45, 0x0d, 1],
  ...[...get(1), ...get(0), ...load(4), ADD, ...set(1)],
  ...[...get(0), ...load(0), ...set(0), 0x0c, 0, 0x0b, 0x0b],
  ...[...get(1), 0x0b],
];

const body = (locals: number, code: readonly number[]): number[] => {
  const all = [1, locals, I32, ...code];
  return [...u32(all.length), ...all];
};

/** The program over a memory of at most `maximum` pages of 64 KiB. */
export function listProgram(memory: WebAssembly.Memory, maximum: number): ListProgram {
  const bytes = Uint8Array.from([
    ...[0x00, 0x61, 0x73, 0x6d, 1, 0, 0, 0],
    ...section(1, 2, 0x60, 2, I32, I32, 1, I32, 0x60, 1, I32, 1, I32),
    ...section(2, 1, ...text("env"), ...text("memory"), 0x02, 0x01, 0, ...u32(maximum)),
    ...section(3, 2, 0, 1),
    ...section(6, 1, I32, 1, ...constant(64), 0x0b),
    ...section(7, 2, ...text("build"), 0, 0, ...text("sum"), 0, 1),
    ...section(10, 2, ...body(3, build), ...body(1, sum)),
  ]);
  return new WebAssembly.Instance(new WebAssembly.Module(bytes), { env: { memory } }).exports as unknown as ListProgram;
}
