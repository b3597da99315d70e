import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { UsageError } from "./errors.ts";
import { formatBytes, parseSize } from "./size.ts";

describe("parseSize", () => {
  test.each([
    ["1", 1],
    ["4096", 4096],
    ["4K", 4096],
    ["4k", 4096],
    ["1.5G", 1.5 * 2 ** 30],
    ["64MiB", 2 ** 26],
    ["64MB", 2 ** 26],
    ["2T", 2 ** 41],
  ])("reads %s", (text, bytes) => {
    expect(parseSize(text, "--x")).toBe(bytes);
  });

  test.each(["", "K", "-1", "1e3", "4 K", "1.5", "0.1K", "9999999T", "4X", "0x10", "new:4"])("refuses %j", (text) => {
    expect(() => parseSize(text, "--device-memory")).toThrow(UsageError);
    expect(() => parseSize(text, "--device-memory")).toThrow(/^--device-memory: .* such as 64M$/);
  });

  test.each(["0", "0K", "0.0G"])("refuses %s, which is nothing", (text) => {
    expect(() => parseSize(text, "--map a=new:0")).toThrow("--map a=new:0: the size is 0: use at least 1 byte");
  });

  test("reads every whole number of every unit", () => {
    const units = fc.constantFrom(["", 1], ["K", 2 ** 10], ["M", 2 ** 20], ["G", 2 ** 30]) as fc.Arbitrary<
      [string, number]
    >;
    fc.assert(
      fc.property(fc.integer({ min: 1, max: 4096 }), units, (n, [unit, bytes]) => {
        expect(parseSize(`${n}${unit}`, "x")).toBe(n * bytes);
      }),
    );
  });
});

test("formatBytes picks the unit that reads well", () => {
  expect([0, 999, 10_239, 10_240, 1_048_576, 98_932_688, 2 ** 30, 2 ** 41].map(formatBytes)).toEqual([
    "0 B",
    "999 B",
    "10239 B",
    "10.0 KiB",
    "1.0 MiB",
    "94.3 MiB",
    "1.0 GiB",
    "2.0 TiB",
  ]);
});
