import { expect, test } from "vitest";
import { gpuMessage } from "./gpu-message.ts";

test("what Dawn says before its call stack", () => {
  expect(gpuMessage("unresolved call target 'foo'")).toBe("unresolved call target 'foo'");
  expect(gpuMessage("Buffer size (3) is invalid.\n - While calling [Device].CreateBuffer()")).toBe(
    "Buffer size (3) is invalid.",
  );
});

test("what Firefox says around its picture of the source", () => {
  expect(
    gpuMessage("\nShader 'k' parsing error: expected expression, found \";\"\n  ┌─ wgsl:1:49\n  │\n1 │ let a = ;\n\n"),
  ).toBe('expected expression, found ";"');
  expect(
    gpuMessage(
      "\nShader validation error: Function [0] 'f' is invalid\n  ┌─ :2:1\n  │\n  = The `return` expression is missing\n\n",
    ),
  ).toBe("Shader validation error: Function [0] 'f' is invalid: The `return` expression is missing");
});

test("nothing", () => {
  expect(gpuMessage("")).toBe("");
});
