import { describe, expect, test } from "vitest";
import { UsageError } from "./errors.ts";
import { parseMaps, parseOuts, parseWorkgroups } from "./map-spec.ts";

function errorOf(body: () => unknown): unknown {
  try {
    body();
  } catch (error) {
    return error;
  }
  return undefined;
}

describe("--map", () => {
  test.each([
    ["a=x.bin", { kind: "file", path: "x.bin", mode: "r" }],
    ["a=x.bin:r", { kind: "file", path: "x.bin", mode: "r" }],
    ["a=x.bin:cow", { kind: "file", path: "x.bin", mode: "cow" }],
    ["a=x.bin:rw", { kind: "file", path: "x.bin", mode: "rw" }],
    ["a=x:rw:r", { kind: "file", path: "x:rw", mode: "r" }],
    ["a=C:\\x=y", { kind: "file", path: "C:\\x=y", mode: "r" }],
    ["a=:rw", { kind: "file", path: ":rw", mode: "r" }],
    ["a=new:4K", { kind: "new", size: 4096 }],
    ["a=https://example.org/x?a=b:rw", { kind: "url", url: "https://example.org/x?a=b:rw" }],
    ["a=HTTP://localhost:8080/", { kind: "url", url: "HTTP://localhost:8080/" }],
    ["a=./http://x", { kind: "file", path: "./http://x", mode: "r" }],
    ["a=./new:4K", { kind: "file", path: "./new:4K", mode: "r" }],
  ])("reads %s", (text, source) => {
    expect(parseMaps([text])).toEqual([{ name: "a", source }]);
  });

  test.each(["a", "a=", "=x", "1a=x", "a b=x", "_=x", "__a=x", "a=new:", "a=new:0", "a=new:x"])(
    "refuses %j",
    (text) => {
      const error = errorOf(() => parseMaps([text]));
      expect(error).toBeInstanceOf(UsageError);
      expect(String(error)).toContain("--map");
    },
  );

  test("takes every name that WGSL takes", () => {
    expect(parseMaps(["Δέλτα=x", "_a1=y"]).map(({ name }) => name)).toEqual(["Δέλτα", "_a1"]);
  });

  test("refuses one name twice", () => {
    expect(() => parseMaps(["a=x", "b=y", "a=z"])).toThrow(new UsageError("--map names a twice: give each name once"));
  });
});

test("--out reads NAME=PATH and refuses one name twice", () => {
  expect(parseOuts(["a=x=y", "b=z"])).toEqual([
    { name: "a", path: "x=y" },
    { name: "b", path: "z" },
  ]);
  expect(() => parseOuts(["a=x", "a=y"])).toThrow(/^--out names a twice/);
  expect(() => parseOuts(["a"])).toThrow(/^--out "a": write it as NAME=PATH$/);
});

describe("--workgroups", () => {
  test("reads one to three counts", () => {
    expect([parseWorkgroups("7"), parseWorkgroups("7,8"), parseWorkgroups("7,8,9")]).toEqual([
      [7, 1, 1],
      [7, 8, 1],
      [7, 8, 9],
    ]);
  });

  test.each(["", "0", "1,0", "1,2,3,4", "-1", "1.5", "x", "1,", "0x1", " 1"])("refuses %j", (text) => {
    expect(errorOf(() => parseWorkgroups(text))).toBeInstanceOf(UsageError);
  });
});
