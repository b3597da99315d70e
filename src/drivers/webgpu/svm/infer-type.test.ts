import { expect, test } from "vitest";
import { namedType, typeText } from "./infer-type.ts";
import { parseKernel } from "./parse-kernel.ts";

/** The type of the variable `x`, as WGSL. */
function typeOfX(wgsl: string): string | undefined {
  const kernel = parseKernel(wgsl, "kernel");
  const type = kernel.variables.get("x")?.name.typeRef;
  const found = type === undefined ? undefined : namedType(kernel, type);
  return found === undefined ? undefined : typeText(found);
}

test.each([
  ["N", 6],
  ["(N << 1u) | 1u", 13],
  ["max(N, 9u) / 2u", 4],
  ["select(3, N, N > 5u)", 6],
  ["M % 4", 3],
])("an array of %s elements has %d", (count, length) => {
  expect(typeOfX(`const N = 6u; const M = 1 + 2 * 5; var<private> x: array<f32, ${count}>;`)).toBe(
    `array<f32, ${length}>`,
  );
});

test("a name that a function gives to something of its own tells no length", () => {
  const wgsl = "const N = 6; var<private> x: array<f32, N>; fn f() { const N = 2; }";
  expect(typeOfX(wgsl)).toBeUndefined();
  expect(typeOfX(wgsl.replace("const N = 2", "let n = 2"))).toBe("array<f32, 6>");
});

test("what is an override's, or nobody's, tells no length", () => {
  expect(typeOfX("override N = 6; var<private> x: array<f32, N>;")).toBeUndefined();
  expect(typeOfX("var<private> x: array<f32, K + 1>;")).toBeUndefined();
});
