import { describe, expect, test } from "vitest";
import { UsageError } from "./errors.ts";
import { mappingValues, parseParams, resolveParams } from "./param-spec.ts";

const noMappings = {
  addressOf: (): number => {
    throw new Error("no address was asked for");
  },
  lengthOf: (): number => {
    throw new Error("no length was asked for");
  },
};

describe("--set", () => {
  test("reads numbers, hexadecimal ones and vectors", () => {
    const specs = parseParams(["a=1", "b=-2.5e3", "c=0xff", "d=1,2,.5", "e=-0x10", "f=+3"]);
    expect(resolveParams(specs, noMappings)).toEqual({ a: 1, b: -2500, c: 255, d: [1, 2, 0.5], e: -16, f: 3 });
    expect(mappingValues(specs)).toEqual([]);
  });

  test.each([
    "a",
    "a=",
    "a=x",
    "a=1,",
    "a=1,,2",
    "a=NaN",
    "a=Infinity",
    "a=1 ",
    "a=true",
    "a=0x",
    "a=@",
    "a=1,#",
    "a=x@y",
  ])("refuses %j", (text) => {
    expect(() => parseParams([text])).toThrow(UsageError);
  });

  test("names members of structs in the struct, and of one of several", () => {
    const specs = parseParams(["camera.eye=1,2,3", "lights[2].at=4", "lights[10].on.off=5", "list=6,7"]);
    expect(specs.map(({ name }) => name)).toEqual(["camera.eye", "lights[2].at", "lights[10].on.off", "list"]);
    for (const name of ["a.", ".a", "a..b", "a[]", "a[x]", "[0]", "a[0]b", "1.a"]) {
      expect(() => parseParams([`${name}=1`])).toThrow(UsageError);
    }
  });

  test("refuses one name twice", () => {
    expect(() => parseParams(["a=1", "a=2"])).toThrow(/^--set names a twice/);
  });

  test("puts addresses and lengths of mappings in, also into vectors", () => {
    const specs = parseParams(["a=@data", "b=#data", "c=@data,#other,7"]);
    expect(mappingValues(specs).map(({ name, value }) => [name, value.kind, value.mapping])).toEqual([
      ["a", "address", "data"],
      ["b", "length", "data"],
      ["c", "address", "data"],
      ["c", "length", "other"],
    ]);
    const mappings = {
      addressOf: (name: string) => (name === "data" ? 16_384 : 0),
      lengthOf: (name: string) => (name === "data" ? 101 : 102),
    };
    expect(resolveParams(specs, mappings)).toEqual({ a: 16_384, b: 101, c: [16_384, 102, 7] });
  });

  test("refuses a length that no u32 holds, and takes the longest one", () => {
    const specs = parseParams(["bytes=#data"]);
    const lengthOf = (length: number) => ({ ...noMappings, lengthOf: () => length });
    expect(resolveParams(specs, lengthOf(2 ** 32 - 1))).toEqual({ bytes: 2 ** 32 - 1 });
    expect(() => resolveParams(specs, lengthOf(2 ** 32))).toThrow(
      expect.objectContaining({
        code: "EINVAL",
        op: "set bytes",
        why: expect.stringMatching(/data has 4294967296 bytes, .*4294967295/),
      }),
    );
  });
});
