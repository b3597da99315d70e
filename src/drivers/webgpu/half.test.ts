import fc from "fast-check";
import { expect, test } from "vitest";
import { floatToHalf } from "./half.ts";

function halfToFloat(half: number): number {
  const sign = half & 0x8000 ? -1 : 1;
  const exponent = (half >>> 10) & 31;
  const fraction = half & 1023;
  if (exponent === 31) {
    return fraction === 0 ? sign * Number.POSITIVE_INFINITY : Number.NaN;
  }
  return exponent === 0 ? sign * fraction * 2 ** -24 : sign * (1 + fraction / 1024) * 2 ** (exponent - 15);
}

test("every 16-bit float survives the way through a number", () => {
  for (let half = 0; half < 0x10000; half++) {
    const value = halfToFloat(half);
    if (Number.isNaN(value)) {
      expect(floatToHalf(value) & 0x7fff).toBe(0x7e00);
    } else if (floatToHalf(value) !== half) {
      expect.fail(`0x${half.toString(16)} became 0x${floatToHalf(value).toString(16)}`);
    }
  }
});

test("no other 16-bit float is nearer, and a tie goes to the even one", () => {
  fc.assert(
    fc.property(fc.float({ min: -65519, max: 65519, noNaN: true }), (value) => {
      const half = floatToHalf(value);
      const error = Math.abs(halfToFloat(half) - value);
      for (const other of [half - 1, half + 1].filter(
        (h) => (h & 0x7fff) < 0x7c00 && (h & 0x8000) === (half & 0x8000),
      )) {
        const otherError = Math.abs(halfToFloat(other) - value);
        expect(error < otherError || (error === otherError && half % 2 === 0)).toBe(true);
      }
    }),
  );
  expect(floatToHalf(65520)).toBe(0x7c00);
  expect(floatToHalf(1e30)).toBe(0x7c00);
});
