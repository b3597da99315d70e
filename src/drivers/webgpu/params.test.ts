import fc from "fast-check";
import { expect, test } from "vitest";
import { packParams } from "./params.ts";
import { type KernelReflection, reflectKernel } from "./reflect.ts";

function paramsOf(struct: string, more = ""): KernelReflection["params"] {
  return reflectKernel(
    `${more}
     struct Params { ${struct} }
     @group(0) @binding(0) var<uniform> params: Params;
     @group(0) @binding(1) var<storage, read_write> out: array<u32>;
     @compute @workgroup_size(1) fn main() { let p = params; out[0] = 1u; }`,
  ).params;
}

test("members lie where WGSL puts them", () => {
  const layout = paramsOf(
    "n: u32, scale: vec3f, k: i32, m: mat3x3f, list: array<vec4<u32>, 2>, short: vec2<i32>, m2: mat2x2f",
  );
  expect(
    layout?.members.map(({ name, offset, scalar, rows, columns, elements }) => [
      name,
      offset,
      scalar,
      rows,
      columns,
      elements,
    ]),
  ).toEqual([
    ["n", 0, "u32", 1, 1, 1],
    ["scale", 16, "f32", 3, 1, 1],
    ["k", 28, "i32", 1, 1, 1],
    ["m", 32, "f32", 3, 3, 1],
    ["list", 80, "u32", 4, 1, 2],
    ["short", 112, "i32", 2, 1, 1],
    ["m2", 120, "f32", 2, 2, 1],
  ]);
  expect(layout?.bytes).toBe(144);
});

test("a struct inside a struct gives dotted names, an array of structs numbered ones", () => {
  const layout = paramsOf("one: Pair, many: array<Pair, 2>", "struct Pair { @size(16) a: f32, @size(16) b: vec2u }");
  expect(layout?.members.map((member) => `${member.name}@${member.offset}`)).toEqual([
    "one.a@0",
    "one.b@16",
    "many[0].a@32",
    "many[0].b@48",
    "many[1].a@64",
    "many[1].b@80",
  ]);
});

test("numbers are written little-endian, columns and elements at their strides", () => {
  const bytes = packParams(paramsOf("a: u32, b: i32, c: f32, m: mat2x3f, e: array<vec4u, 2>"), {
    a: 0x01020304,
    b: -2n,
    c: 1.5,
    m: [1, 2, 3, 4, 5, 6],
    e: [1, 2, 3, 4, 5, 6, 7, 0xffffffff],
  });
  const view = new DataView(bytes.buffer);
  expect([...bytes.subarray(0, 4)]).toEqual([4, 3, 2, 1]);
  expect(view.getInt32(4, true)).toBe(-2);
  expect(view.getFloat32(8, true)).toBe(1.5);
  expect([16, 20, 24, 28, 32, 36, 40].map((at) => view.getFloat32(at, true))).toEqual([1, 2, 3, 0, 4, 5, 6]);
  expect(Array.from({ length: 8 }, (_, i) => view.getUint32(48 + 4 * i, true))).toEqual([
    1, 2, 3, 4, 5, 6, 7, 0xffffffff,
  ]);
});

test("typed arrays give their numbers", () => {
  const values = { m: Float32Array.of(1, 2, 3, 4), v: Uint32Array.of(5, 6), big: BigInt64Array.of(7n, -8n) };
  const bytes = packParams(paramsOf("m: mat2x2f, v: vec2u, big: vec2i"), values);
  expect([...new Float32Array(bytes.buffer, 0, 4)]).toEqual([1, 2, 3, 4]);
  expect([...new Int32Array(bytes.buffer, 16, 4)]).toEqual([5, 6, 7, -8]);
});

test("16-bit floats are written where the kernel enables them", () => {
  const bytes = packParams(paramsOf("a: f16, v: vec3h, n: u32", "enable f16;"), { a: 1, v: [0.5, -2, 65504], n: 7 });
  const view = new DataView(bytes.buffer);
  expect([0, 8, 10, 12].map((at) => view.getUint16(at, true))).toEqual([0x3c00, 0x3800, 0xc000, 0x7bff]);
  expect(view.getUint32(16, true)).toBe(7);
});

test("a params that is no struct has one value of that name", () => {
  const { params } = reflectKernel(
    `@group(0) @binding(0) var<uniform> params: vec2<u32>;
     @compute @workgroup_size(1) fn main() { let x = params.x; }`,
  );
  expect([...new Uint32Array(packParams(params, { params: [3, 4] }).buffer)]).toEqual([3, 4]);
});

test("every u32 and i32 comes out as it went in", () => {
  const layout = paramsOf("a: u32, b: i32");
  fc.assert(
    fc.property(fc.nat(0xffffffff), fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 }), (a, b) => {
      const view = new DataView(packParams(layout, { a, b }).buffer);
      expect([view.getUint32(0, true), view.getInt32(4, true)]).toEqual([a, b]);
    }),
  );
});

test("EINVAL: each mistake is named with what would be right", () => {
  const layout = paramsOf("n: u32, k: i32, v: vec3f, _pad: u32");
  const good = { n: 1, k: 1, v: [1, 2, 3] };
  const cases: [Record<string, never> | Record<string, unknown>, RegExp][] = [
    [{ ...good, m: 1 }, /no member "m": there is n: u32, k: i32, v: vec3f/],
    [{ n: 1, k: 1 }, /needs a value for "v": its members are n: u32/],
    [{ ...good, v: [1, 2] }, /params\.v is vec3f and takes 3 numbers, not 2/],
    [{ ...good, v: 1 }, /params\.v is vec3f and takes 3 numbers, not 1/],
    [{ ...good, n: [1, 2] }, /params\.n is u32 and takes 1 number, not 2/],
    [{ ...good, n: -1 }, /params\.n is u32: -1 is no integer from 0 to 4294967295/],
    [{ ...good, n: 2 ** 32 }, /4294967296 is no integer/],
    [{ ...good, n: 2n ** 64n }, /18446744073709551616 is no integer/],
    [{ ...good, n: 1.5 }, /1\.5 is no integer/],
    [{ ...good, k: -(2 ** 31) - 1 }, /params\.k is i32: -2147483649 is no integer from -2147483648/],
    [{ ...good, k: Number.NaN }, /NaN is no integer/],
    [{ ...good, k: Number.POSITIVE_INFINITY }, /Infinity is no integer/],
    [{ ...good, k: "1" }, /params\.k is i32: 1 is no number/],
    [{ ...good, toString: 1 }, /no member "toString"/],
  ];
  for (const [values, why] of cases) {
    expect(() => packParams(layout, values as never)).toThrowError(
      expect.objectContaining({ code: "EINVAL", why: expect.stringMatching(why) }),
    );
  }
  expect(packParams(layout, good)).toHaveLength(32);
  expect(() => packParams(undefined, { n: 1 })).toThrowError(/uses no uniform variable params/);
  expect(packParams(undefined, {})).toHaveLength(0);
});
