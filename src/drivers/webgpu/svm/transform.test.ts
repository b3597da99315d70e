/** What is refused, with which words; imports; and what the rewriter leaves as it was. */
import { readFileSync } from "node:fs";
import { expect, test } from "vitest";
import { useTestGpu } from "../../../testing/gpu.ts";
import { compileSvmKernel } from "./compile-svm.ts";
import { SVM_FUNCTIONS } from "./functions.ts";
import { transformKernel } from "./transform.ts";
import { usesSvm } from "./uses-svm.ts";

const gpu = useTestGpu("svm transform");

const entry = (body: string, params = "@builtin(global_invocation_id) id: vec3u") =>
  `@compute @workgroup_size(64)\nfn main(${params}) {\n  ${body}\n}`;

const REFUSED: readonly (readonly [string, string, "EINVAL" | "ENOTSUP", RegExp])[] = [
  [
    "a name of the library's",
    entry("let pm_x = pm_load_u32(4u);"),
    "EINVAL",
    /^3:7 pm_x: names that begin with pm_ or Pm are/,
  ],
  ["a function of that name", `fn pm_mine() { }\n${entry("pm_mine();")}`, "EINVAL", /^1:4 pm_mine: names/],
  [
    "an unknown function",
    entry("_ = pm_load_u16(4u);"),
    "EINVAL",
    /^3:7 pagemirror::svm has no pm_load_u16: there is pm_load_u32/,
  ],
  [
    "too few arguments",
    entry("pm_store_u32(4u);"),
    "EINVAL",
    /^3:3 pm_store_u32 takes 2 arguments, not 1: pm_store_u32\(addr: u32, value: u32\)/,
  ],
  ["no entry point", "fn f() { pm_store_u32(1u, 2u); }", "EINVAL", /no @compute entry point/],
  [
    "several entry points",
    `${entry("")}\n${entry("pm_store_u32(1u, 2u);").replace("main", "other")}`,
    "EINVAL",
    /several .*main, other/,
  ],
  ["WGSL that does not parse", entry("let a = ;"), "EINVAL", /^3:11 Expected expression/],
  [
    "a name that WGSL keeps for itself",
    `struct Params { from: u32 }\n${entry("")}`,
    "EINVAL",
    /^1:\d+ Expected .* but there is "from": .* reserve/,
  ],
  ["WGSL of the wrong types", entry("let a: f32 = pm_load_u32(4u);"), "EINVAL", /^3:7 cannot .*, in: let a: f32/],
  [
    "an error after an edit on the same line",
    `import pagemirror::svm::{pm_load_u32 as load};\n${entry("let a = load(4u) + load(4u) + 1.5;")}`,
    "EINVAL",
    /^4:\d+ .*in: let a = load/,
  ],
  [
    "the address of a written binding",
    `@group(0) @binding(0) var<storage, read_write> out: array<u32>;\n${entry("let p = &out[pm_load_u32(4u)];")}`,
    "ENOTSUP",
    /^\d+:\d+ the address of out.*pm_store/,
  ],
  [
    "an override as size",
    `override n = 4u;\n${entry("pm_store_u32(4u, 1u);").replace("64", "n")}`,
    "ENOTSUP",
    /workgroup_size\(n\).*use const/,
  ],
  [
    "another builtin",
    entry("pm_store_u32(4u, 1u);", "@builtin(global_invocation_index) i: u32"),
    "ENOTSUP",
    /^2:9 @builtin\(global_invocation_index\) is not known in svm mode: there is workgroup_id/,
  ],
  [
    "an import from elsewhere",
    `import other::thing::f;\n${entry("pm_store_u32(4u, f());")}`,
    "ENOTSUP",
    /^1:1 import of other::thing::f/,
  ],
  [
    "an unknown import",
    `import pagemirror::svm::{pm_load_u32, pm_laod};\n${entry("")}`,
    "EINVAL",
    /^1:1 pagemirror::svm has no pm_laod/,
  ],
  [
    "a function that hides WGSL's",
    `fn select(a: u32) -> u32 { return a; }\n${entry("pm_store_u32(4u, select(1u));")}`,
    "EINVAL",
    /^1:4 select hides/,
  ],
  [
    "a texture",
    `@group(0) @binding(0) var t: texture_2d<f32>;\n${entry("pm_store_u32(4u, textureDimensions(t).x);")}`,
    "ENOTSUP",
    /texture/,
  ],
];

test.each(REFUSED)("%s is refused with its place and what to do", async (_, wgsl, code, why) => {
  await expect(compileSvmKernel(gpu(), wgsl, { name: "k.wgsl" })).rejects.toMatchObject({
    code,
    op: "k.wgsl",
    why: expect.stringMatching(why),
  });
});

test("functions can be imported, renamed, or named by their path", async () => {
  const { features, reflection } = transformKernel(`
    import pagemirror::svm::{pm_load_u32 as load, pm_span};
    import pagemirror::svm::pm_store_u32;
    @group(0) @binding(0) var<uniform> params: vec4u;
    @group(1) @binding(2) var<storage, read> list: array<u32>;
    fn twice(a: u32) -> u32 { return load(a) * 2u; }
    @compute @workgroup_size(4) fn main() {
      pm_store_u32(params.x, twice(list[0]) + pagemirror::svm::pm_load_i32(9u) + pm_span(1u, 2u).words);
    }`);
  expect([...features.functions].sort()).toEqual(["pm_load_i32", "pm_load_u32", "pm_span", "pm_store_u32"]);
  expect(reflection.bindings.map(({ name, group, binding }) => [name, group, binding])).toEqual([
    ["params", 0, 0],
    ["list", 1, 2],
  ]);
  const kernel = await compileSvmKernel(
    gpu(),
    `import pagemirror::svm::{pm_load_u32 as load};\n${entry("pm_store_u32(4096u, load(id.x) + pagemirror::svm::pm_load_u32(5u));")}`,
  );
  expect(kernel.runtimeGroup).toBe(0);
});

test("the module can be imported as a whole, under its name or another", async () => {
  for (const [line, name] of [
    ["import pagemirror::svm;", "svm"],
    ["import pagemirror::svm as memory;", "memory"],
    ["import pagemirror::{svm as memory};", "memory"],
  ]) {
    const wgsl = `${line}\n${entry(`${name}::pm_store_u32(4096u, ${name}::pm_load_u32(id.x) + ${name}::pm_span(1u, 2u).words);`)}`;
    const { features } = transformKernel(wgsl);
    expect([...features.functions].sort()).toEqual(["pm_load_u32", "pm_span", "pm_store_u32"]);
    await compileSvmKernel(gpu(), wgsl);
  }
});

test("the group of the runtime comes after the user's last", async () => {
  const kernel = await compileSvmKernel(
    gpu(),
    `@group(1) @binding(0) var<storage, read> list: array<u32>;\n${entry("pm_store_u32(list[id.x], 1u);")}`,
  );
  expect(kernel.runtimeGroup).toBe(2);
  expect(kernel.groupLayouts).toHaveLength(3);
});

test.each([...SVM_FUNCTIONS.values()].map((fn) => [fn.name, fn] as const))(
  "%s compiles in each pipeline, alone and in a workgroup with barriers",
  async (name, fn) => {
    const zero = (param: string) => {
      const type = param.split(": ")[1] ?? "";
      return type === "PmSpan" ? "pm_span(4096u, 8u)" : `${type}()`;
    };
    const call = `${name}(${fn.params.map(zero).join(", ")})`;
    const use = fn.result === undefined ? `${call};` : `{ let r = ${call}; _ = r; }`;
    for (const barrier of ["", "workgroupBarrier();", "for (var i = 0u; i < 3u; i++) { storageBarrier(); }"]) {
      const kernel = await compileSvmKernel(gpu(), entry(`${use} ${barrier} ${use}`));
      expect(kernel.doneBits).toBe(barrier === "");
      expect(kernel.writes).toBe(fn.stores > 0);
    }
  },
);

test("what a kernel does decides its scheme", () => {
  const of = (body: string) => transformKernel(entry(body)).features;
  expect(of("pm_store_u32(1u, pm_load_u32(2u));")).toMatchObject({
    logEntries: 1,
    logCanOverflow: false,
    atomics: "none",
  });
  expect(of("pm_store_vec4u(4u, vec4u()); pm_store_u32(1u, 2u);").logEntries).toBe(5);
  expect(of("for (;;) { pm_store_u32(1u, 2u); }")).toMatchObject({ logCanOverflow: true, storesInLoops: true });
  expect(of("pm_atomic_add_u32(4u, 1u); _ = pm_atomic_add_u32(4u, 1u);").atomics).toBe("logged");
  expect(of("let old = pm_atomic_add_u32(4u, 1u);")).toMatchObject({ atomics: "immediate", replayRecords: 1 });
  expect(of("pm_atomic_add_u32(4u, 1u); storageBarrier();")).toMatchObject({
    atomics: "immediate",
    replayOrder: false,
    loadsUniform: false,
  });
  expect(of("pm_atomic_add_u32(4u, pm_load_u32(5u)); workgroupBarrier();").atomics).toBe("logged");
  expect(of("let v = pm_atomic_load_u32(4u); pm_atomic_or_u32(4u, v);").atomics).toBe("logged");
  expect(of("pm_store_u32(1u, subgroupAdd(1u));").collective).toBe(true);
});

test("a kernel ends with its store when nothing can fail after it", () => {
  const endsWith = (body: string, more = "") => transformKernel(`${entry(body)}\n${more}`).features.endsWithStore;
  const load = "fn load() -> u32 { return pm_load_u32(2u); }";
  const plain = "fn plain(x: u32) -> u32 { return x + 1u; }";
  const store = "pm_store_u32(1u, pm_load_u32(2u));";
  expect(endsWith(store)).toBe(true);
  expect(endsWith("pm_store_vec4u(1u, pm_load_vec4u(2u));")).toBe(true);
  expect(endsWith(`if (pm_load_u32(3u) == 1u) { ${store} }`)).toBe(true);
  expect(
    endsWith(`for (var i = 0u; i < 3u; i++) { _ = pm_load_u32(i); } ${store} var x = 1u; while (x < 9u) { x++; }`),
  ).toBe(true);
  expect(endsWith("pm_store_u32(1u, load());", load)).toBe(true);
  expect(endsWith(`let x = plain(1u); ${store}`, plain)).toBe(true);
  expect(endsWith("_ = pm_load_u32(2u);")).toBe(false);
  expect(endsWith(`${store} _ = pm_load_u32(3u);`)).toBe(false);
  expect(endsWith(`${store} let s = pm_span(3u, 1u);`)).toBe(false);
  expect(endsWith(`${store} let x = load();`, load)).toBe(false);
  expect(endsWith(`${store} ${store}`)).toBe(false);
  expect(endsWith(`if (true) { ${store} } else { ${store} }`)).toBe(false);
  expect(endsWith(`for (var i = 0u; i < 2u; i++) { ${store} }`)).toBe(false);
  expect(endsWith("put();", `fn put() { ${store} }`)).toBe(false);
  expect(endsWith(`${store} pm_atomic_add_u32(4u, 1u);`)).toBe(false);
  expect(endsWith("let s = pm_span(3u, 1u); pm_span_store_u32(s, 0u, 1u);")).toBe(false);
});

test("usesSvm looks at code, not at comments", () => {
  expect(usesSvm(entry("_ = pm_load_u32(1u);"))).toBe(true);
  expect(usesSvm("import pagemirror::svm::{};")).toBe(true);
  expect(usesSvm(`// pm_load_u32\n/* pm_store_u32 */ ${entry("let bpm_x = 1u;")}`)).toBe(false);
});

test("each WGSL example of docs/svm.md compiles", async () => {
  const text = readFileSync(new URL("../../../../docs/svm.md", import.meta.url), "utf8");
  const blocks = [...text.matchAll(/```wgsl\n([\s\S]*?)```/g)].map((match) => match[1] ?? "");
  expect(blocks.length).toBeGreaterThan(3);
  for (const block of blocks) {
    await compileSvmKernel(gpu(), block, { name: "docs/svm.md" });
  }
  for (const name of SVM_FUNCTIONS.keys()) {
    const family = name.replace(/_(u32|i32|f32|vec4u|vec4i|vec4f)$/, "");
    expect(text, `${family} is described`).toContain(family);
  }
});
