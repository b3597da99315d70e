/** Layouts, against those of another implementation, for random types. */
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { WgslReflect } from "wgsl_reflect/wgsl_reflect.module.js";
import { reflectKernel } from "../reflect.ts";
import { readDeclarations } from "./declarations.ts";
import { Layouts, type WgslType } from "./layout.ts";

const scalars = fc.constantFrom("u32", "i32", "f32", "f16");
const numbers = fc.oneof(
  scalars,
  fc.tuple(fc.constantFrom("2", "3", "4"), scalars).map(([n, scalar]) => `vec${n}<${scalar}>`),
  fc.tuple(fc.constantFrom("2", "3", "4"), fc.constantFrom("u", "i", "f", "h")).map(([n, s]) => `vec${n}${s}`),
  fc
    .tuple(fc.constantFrom("2", "3", "4"), fc.constantFrom("2", "3", "4"), fc.constantFrom("f", "<f32>", "<f16>"))
    .map(([columns, rows, of]) => `mat${columns}x${rows}${of}`),
  fc.constantFrom("atomic<u32>", "atomic<i32>"),
);
const type = fc.oneof(
  { weight: 3, arbitrary: numbers },
  { weight: 1, arbitrary: fc.tuple(numbers, fc.integer({ min: 1, max: 9 })).map(([of, n]) => `array<${of}, ${n}>`) },
);
const member = fc.record({
  type,
  align: fc.option(fc.constantFrom(16, 32, 64), { freq: 4 }),
  size: fc.option(fc.constantFrom(256, 512), { freq: 6 }),
});
const struct = fc.array(member, { minLength: 1, maxLength: 6 });

function textOf(name: string, members: readonly { type: string; align: number | null; size: number | null }[]): string {
  const lines = members.map(({ type: of, align, size }, i) => {
    const attributes = `${align === null ? "" : `@align(${align}) `}${size === null ? "" : `@size(${size}) `}`;
    return `${attributes}m${i}: ${of}`;
  });
  return `struct ${name} { ${lines.join(", ")} }`;
}

/** The layout of struct `Outer` as `wgsl_reflect` has it. */
function theirs(wgsl: string): { size: number; offsets: number[] } {
  const found = new WgslReflect(wgsl).structs.find(({ name }) => name === "Outer");
  return { size: found?.size ?? -1, offsets: (found?.members ?? []).map(({ offset }) => offset) };
}

function ours(wgsl: string): { size: number; offsets: number[] } {
  const module = readDeclarations(wgsl);
  const [variable] = module.variables;
  const found: WgslType | undefined = variable && new Layouts(module).typeOf(variable.type);
  expect(found?.kind).toBe("struct");
  return { size: found?.size ?? -2, offsets: found?.kind === "struct" ? found.members.map((m) => m.offset) : [] };
}

test("sizes and offsets are those that another implementation finds, for any struct in a struct", () => {
  fc.assert(
    fc.property(struct, struct, fc.boolean(), (inner, outer, many) => {
      const wgsl = `${textOf("Inner", inner)}
        ${textOf("Outer", outer).replace(/ }$/, `, last: ${many ? "array<Inner, 3>" : "Inner"} }`)}
        @group(0) @binding(0) var<storage, read_write> data: Outer;`;
      expect(ours(wgsl)).toEqual(theirs(wgsl));
    }),
  );
});

describe("values of expressions", () => {
  const sizeOf = (expression: string, more = "") =>
    reflectKernel(
      `${more}
       @group(0) @binding(0) var<storage, read_write> data: array<u32, ${expression}>;
       @compute @workgroup_size(1) fn main() { data[0] = 1u; }`,
    ).bindings[0]?.minBytes;

  test.each([
    ["7", 7],
    ["0x1Fu", 31],
    ["2 + 3 * 4", 14],
    ["(2 + 3) * 4", 20],
    ["7 / 2 + 7 % 4", 6],
    ["1 << 4", 16],
    ["(256u >> 3)", 32],
    ["0xF0 & 0x3C | 1", 49],
    ["6 ^ 3", 5],
    ["u32(2.5 * 2)", 5],
    ["max(3, min(9, 4))", 4],
    ["select(5, 6, 3 >= 2 && !(1 == 2))", 6],
    ["-(-8)", 8],
    ["~0u - 0xFFFFFFF0u", 15],
    ["clamp(i32(N), 1, M)", 12],
  ])("%s is %i", (expression, value) => {
    expect(sizeOf(expression, "const N = 40u; const M: i32 = 4 * 3;")).toBe(4 * value);
  });

  test("types with aliases and template lists in each other", () => {
    const { bindings } = reflectKernel(`
      alias Cell = vec4<f32>; alias Row = array<Cell, 2>;
      struct S { a: Row, @align(64) b: array<array<atomic<u32>, 3>, 2>, }
      @group(0) @binding(0) var<storage, read_write> data: array<S>;
      @compute @workgroup_size(1) fn main() { if (2 < 3 && arrayLength(&data) > 1) { atomicStore(&data[0].b[0][0], 1u); } }`);
    expect(bindings[0]).toMatchObject({ stride: 128, minBytes: 128, typeName: "array<S>" });
  });

  test("ENOTSUP: a value that only calls of unknown functions give", () => {
    expect(() => sizeOf("u32(sqrt(16.0))")).toThrowError(/ENOTSUP: .*value of "u32 \( sqrt .* is not known.*simpler/);
    expect(() => sizeOf("N", "override N: u32;")).toThrowError(/ENOTSUP: .*"N" has no value/);
  });
});
