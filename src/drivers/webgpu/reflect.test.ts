import { expect, test } from "vitest";
import { reflectKernel } from "./reflect.ts";

const WGSL = `
  const N = 8u;
  override WIDE: u32 = 64;
  struct Pair { a: f32, b: vec2u }
  struct Big { count: atomic<u32>, items: array<Pair> }
  struct Wide { first: vec4u, rest: array<u32> }
  @group(0) @binding(0) var<uniform> params: Pair;
  @group(0) @binding(2) var<storage, read_write> fixed: array<atomic<u32>, 16>;
  @group(0) @binding(1) var<storage, read> words: array<u32>;
  @group(0) @binding(3) var<storage> triples: array<vec3f>;
  @group(1) @binding(N) var<storage, read_write> big: Big;
  @group(1) @binding(5) var<storage, read_write> unused: array<f32>;
  @group(1) @binding(6) var image: texture_2d<f32>;
  @group(1) @binding(7) var nearest: sampler;
  @group(1) @binding(9) var<storage, read_write> wide: Wide;
  @group(1) @binding(10) var<storage, read_write> rows: array<array<vec3f, N * 2>>;
  fn deep(i: u32) -> u32 { return words[i]; }
  fn helper(i: u32) -> u32 { let q = &big; (*q).items[0].a = triples[0].x; return deep(i); }
  @compute @workgroup_size(WIDE, 2) fn main() { atomicStore(&fixed[0], helper(params.b.x)); wide.rest[0] = 1; rows[0][0] = vec3f(); }
  @compute @workgroup_size(N) fn draws() { let x = textureLoad(image, vec2i(0), 0); }
  @compute @workgroup_size(4, 4, 2) fn idle() { let a = 1u; }
  @fragment fn paint() -> @location(0) vec4f { return vec4f(); }
`;

test("finds the buffers that the entry point uses, also through functions, and no others", () => {
  const { bindings } = reflectKernel(WGSL, "main");
  expect(
    bindings.map(({ name, group, binding, kind, minBytes, stride }) => [name, group, binding, kind, minBytes, stride]),
  ).toEqual([
    ["params", 0, 0, "uniform", 16, undefined],
    ["words", 0, 1, "storage-read", 4, 4],
    ["fixed", 0, 2, "storage-read-write", 64, undefined],
    ["triples", 0, 3, "storage-read", 16, 16],
    ["big", 1, 8, "storage-read-write", 24, 16],
    ["wide", 1, 9, "storage-read-write", 32, 4],
    ["rows", 1, 10, "storage-read-write", 256, 256],
  ]);
  expect(bindings[1]?.typeName).toBe("array<u32>");
});

test("reads the workgroup size, with constants and overrides", () => {
  expect(reflectKernel(WGSL, "main").workgroupSize).toEqual([64, 2, 1]);
  expect(reflectKernel(WGSL, "idle")).toMatchObject({ workgroupSize: [4, 4, 2], bindings: [], params: undefined });
});

test("EINVAL: an override without a value, where it is used", () => {
  const wgsl = `
    @id(7) override SCALE: f32;
    override WIDE: u32;
    override UNUSED: u32;
    @group(0) @binding(0) var<storage, read_write> data: array<f32>;
    fn scaled() -> f32 { return SCALE; }
    @compute @workgroup_size(8, WIDE) fn wide() {}
    @compute @workgroup_size(8) fn main() { data[0] = scaled(); }
    @compute @workgroup_size(8) fn plain() { data[0] = 1; }`;
  expect(() => reflectKernel(wgsl, "main")).toThrowError("kernel: EINVAL: the override SCALE has no value: write one,");
  expect(() => reflectKernel(wgsl, "wide")).toThrowError("kernel: EINVAL: the override WIDE has no value: write one,");
  expect(reflectKernel(wgsl, "plain").bindings).toHaveLength(1);
});

test("EINVAL: several entry points and none named lists them", () => {
  expect(() => reflectKernel(WGSL)).toThrowError(/EINVAL: .*several @compute entry points \(main, draws, idle\)/);
  expect(() => reflectKernel(WGSL, "paint")).toThrowError(
    /EINVAL: .*no @compute entry point "paint": there is main, draws, idle/,
  );
});

test("EINVAL: no compute entry point at all", () => {
  expect(() => reflectKernel("fn main() {}")).toThrowError(/EINVAL: .*no @compute entry point: add @compute/);
});

test("ENOTSUP: a texture names its variable, and only where it is used", () => {
  expect(() => reflectKernel(WGSL, "draws")).toThrowError(/ENOTSUP: variable image is a texture_2d<f32>/);
});

test("EINVAL: two variables at one place, where the entry point uses both", () => {
  const wgsl = `
    @group(1) @binding(2) var<storage, read> first: array<u32>;
    @group(1) @binding(2) var<storage, read_write> second: array<u32>;
    @compute @workgroup_size(1) fn one() { _ = first[0]; }
    @compute @workgroup_size(1) fn both() { second[0] = first[0]; }`;
  expect(() => reflectKernel(wgsl, "both")).toThrowError(
    "kernel: EINVAL: first and second are both at @group(1) @binding(2): give each a binding of its own",
  );
  expect(reflectKernel(wgsl, "one").bindings).toHaveLength(1);
});

test.each(["@group(0)", "@binding(0)", ""])("EINVAL: a variable with no place but '%s'", (place) => {
  const wgsl = `${place} var<storage, read_write> data: array<u32>; @compute @workgroup_size(1) fn main() { data[0] = 1u; }`;
  expect(() => reflectKernel(wgsl)).toThrowError(/EINVAL: data has no @(group|binding): write @group\(0\)/);
});

test("ENOTSUP: source that the reader cannot read", () => {
  expect(() => reflectKernel("@compute fn ) {")).toThrowError(/ENOTSUP: .*cannot be read/);
});

test.each([
  "switch (data[0]) { case 0u: {} default: {} }",
  "switch (1u) { case 0u: { data[0] = 1u; } default: {} }",
  "loop { continuing { break if data[0] == 1u; } }",
  "while (data[0] == 0u) {}",
  "for (var i = 0u; i < data[0]; i++) {}",
  "let n = arrayLength(&data);",
  "if (true) {} else if (data[0] == 1u) {}",
  "_ = &data;",
])("sees the use of a variable in %s", (body) => {
  const { bindings } = reflectKernel(
    `@group(0) @binding(0) var<storage, read_write> data: array<u32>;
     @compute @workgroup_size(1) fn main() { ${body} }`,
  );
  expect(bindings.map((binding) => binding.name)).toEqual(["data"]);
});

test("a comment and a member of the same name are no uses", () => {
  const { bindings } = reflectKernel(
    `struct S { data: u32 } // data
     @group(0) @binding(0) var<storage, read_write> data: array<u32>;
     @group(0) @binding(1) var<storage, read_write> s: S; /* fn other() { /* nested */ } */
     @compute @workgroup_size(1) fn main() { s.data = 1u; /* data[0] = 1u; */ }`,
  );
  expect(bindings.map((binding) => binding.name)).toEqual(["s"]);
});

test("sizes may be expressions, and assertions may stand anywhere", () => {
  const { bindings, workgroupSize } = reflectKernel(
    `const N = 8;
     const_assert N == 8;
     var<workgroup> shared_words: array<u32, N * N>;
     @group(0) @binding(0) var<storage, read_write> data: array<vec4<u32>, (N + 1) * 2>;
     @compute @workgroup_size(N * 2, max(2, 1), 1)
     fn main() { const_assert N < 9; shared_words[0] = 1u; data[0].x = array<u32, 2>(1u, 2u)[1]; }`,
  );
  expect(workgroupSize).toEqual([16, 2, 1]);
  expect(bindings[0]).toMatchObject({ minBytes: 288, stride: undefined });
});

test("parameters and comparisons are no sizes, and arrays of arrays have two", () => {
  const reflection = reflectKernel(`
    const n = 3;
    fn f(a: u32, b: u32) -> u32 { return a; }
    var<workgroup> tile: array<array<u32, n * 2>, n + 1>;
    @group(0) @binding(0) var<storage, read> data: array<vec2<u32>>;
    @compute @workgroup_size(1) fn main() {
      let d = 1u;
      if (max(f(1, 2), 4u - d) > d && data[0].x < 3u) { tile[0][0] = 1; }
    }`);
  expect(reflection.bindings.map((binding) => binding.name)).toEqual(["data"]);
});
