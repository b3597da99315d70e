import fc from "fast-check";
import { expect, test } from "vitest";
import { piece, TextBytes } from "./text-bytes.ts";

function written(write: (text: TextBytes) => void): string {
  const text = new TextBytes(1);
  write(text);
  return new TextDecoder().decode(text.bytes);
}

test("numbers are printed as JavaScript prints them", () => {
  fc.assert(
    fc.property(fc.oneof(fc.maxSafeInteger(), fc.integer(), fc.double()), (value) => {
      expect(written((t) => t.number(Float64Array.of(value), 0))).toBe(String(value));
    }),
  );
  for (const value of [0, -0.5, 1e300, 999_999_999, 1_000_000_000, 2 ** 47]) {
    expect(written((t) => t.number(Float64Array.of(value), 0))).toBe(String(value));
  }
});

test("thousandths are printed as the number they are", () => {
  fc.assert(
    fc.property(fc.integer({ min: -(10 ** 12), max: 10 ** 12 }), (value) => {
      const text = written((t) => t.thousandths(Float64Array.of(value), 0));
      expect(Number(text)).toBe(value / 1000);
      expect(text).not.toMatch(/\.\d*0$/);
    }),
  );
});

test("pieces and texts follow each other, however long", () => {
  fc.assert(
    fc.property(fc.array(fc.tuple(fc.string({ unit: "binary" }), fc.boolean())), (parts) => {
      const all = written((t) => {
        for (const [part, often] of parts) {
          often ? t.put(piece(part)) : t.text(part);
        }
      });
      expect(all).toBe(parts.map(([part]) => part).join(""));
    }),
  );
});
