/** 16-bit floats, which DataView does not write everywhere yet. */

const single = new Float32Array(1);
const bits = new Uint32Array(single.buffer);

/** The bits of the 16-bit float nearest to a number, ties to even. */
export function floatToHalf(value: number): number {
  single[0] = value;
  const word = bits[0] ?? 0;
  const sign = (word >>> 16) & 0x8000;
  const magnitude = word & 0x7fffffff;
  if (magnitude > 0x7f800000) {
    return sign | 0x7e00;
  }
  // 65520 is half way between the largest finite value and the next, which is infinity.
  if (magnitude >= 0x477ff000) {
    return sign | 0x7c00;
  }
  if (magnitude < 0x38800000) {
    // Subnormal: units of 2^-24. Multiplying by a power of two is exact, rounding happens once.
    return sign | roundToEven(Math.abs(single[0] ?? 0) * 2 ** 24);
  }
  const rounded = magnitude + 0x0fff + ((magnitude >>> 13) & 1);
  return sign | ((rounded - 0x38000000) >>> 13);
}

function roundToEven(value: number): number {
  const floor = Math.floor(value);
  const rest = value - floor;
  return rest > 0.5 || (rest === 0.5 && floor % 2 === 1) ? floor + 1 : floor;
}
