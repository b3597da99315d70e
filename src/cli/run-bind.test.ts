import { describe, expect, test } from "vitest";
import type { KernelBinding, KernelReflection } from "../drivers/webgpu/index.ts";
import { checkWorkgroups, defaultWorkgroups, planBindings, visibleLength } from "./run-bind.ts";
import type { MapPlan } from "./run-plan.ts";

const runtime = (name: string, kind: KernelBinding["kind"] = "storage-read"): KernelBinding => ({
  name,
  group: 0,
  binding: 0,
  kind,
  minBytes: 4,
  stride: 4,
  typeName: "array<u32>",
});
const fixed = (name: string, minBytes: number): KernelBinding => ({
  ...runtime(name),
  minBytes,
  stride: undefined,
  typeName: `array<u32, ${minBytes / 4}>`,
});
const kernel = (...bindings: KernelBinding[]): KernelReflection => ({
  entryPoint: "main",
  entryPoints: ["main"],
  workgroupSize: [64, 1, 1],
  bindings,
  params: undefined,
});
const file = (name: string, length: number, mode: "r" | "cow" | "rw" = "r"): MapPlan => ({
  name,
  length,
  file: { path: `${name}.bin`, mode },
});
const fresh = (name: string, length: number): MapPlan => ({ name, length, file: undefined });

describe("planBindings", () => {
  test("binds a runtime-sized array to all of a mapping, up to the next 16 bytes", () => {
    expect(planBindings(kernel(runtime("a")), [file("a", 17)])).toMatchObject([{ length: 32, written: false }]);
  });

  test("binds an array of fixed size to as much as it has", () => {
    expect(planBindings(kernel(fixed("a", 64)), [file("a", 2 ** 30)])).toMatchObject([{ length: 64 }]);
  });

  test("leaves params out", () => {
    expect(
      planBindings(kernel(runtime("a"), { ...fixed("params", 16), kind: "uniform" }), [file("a", 4)]),
    ).toHaveLength(1);
  });

  test.each([
    ["a name that the kernel has not", [file("a", 4), file("b", 4)], "EINVAL", 'no variable "b": its variables are: a'],
    ["a variable without a mapping", [], "EINVAL", "--map a=PATH"],
    ["a mapping for params", [file("a", 4), file("params", 4)], "EINVAL", "--set"],
  ])("refuses %s", (_, maps, code, text) => {
    const params: KernelBinding = { ...fixed("params", 16), kind: "uniform" };
    expect(() => planBindings(kernel(runtime("a"), params), maps)).toThrow(
      expect.objectContaining({ code, why: expect.stringContaining(text) }),
    );
  });

  test("refuses a mapping that is too short, with the size to use", () => {
    expect(() => planBindings(kernel(fixed("a", 64)), [fresh("a", 48)])).toThrow(
      expect.objectContaining({ code: "EINVAL", why: expect.stringContaining("use new:64") }),
    );
    expect(planBindings(kernel(fixed("a", 64)), [fresh("a", 49)])).toHaveLength(1);
  });

  test("refuses a write to a file mapped :r and takes :cow, :rw and new", () => {
    const writes = kernel(runtime("a", "storage-read-write"));
    expect(() => planBindings(writes, [file("a", 4)])).toThrow(
      expect.objectContaining({ code: "EACCES", why: expect.stringMatching(/:cow .*:rw/) }),
    );
    for (const map of [file("a", 4, "cow"), file("a", 4, "rw"), fresh("a", 4)]) {
      expect(planBindings(writes, [map])).toMatchObject([{ written: true }]);
    }
  });
});

describe("workgroups", () => {
  test("are one invocation an element of the longest runtime-sized array when none are named", () => {
    const reflection = kernel(runtime("a"), runtime("b"), fixed("c", 4096));
    const binds = planBindings(reflection, [file("a", 4 * 65), file("b", 4), file("c", 4096)]);
    expect(defaultWorkgroups(reflection, binds, 65_535)).toEqual([2, 1, 1]);
  });

  test("are one when no array is runtime-sized", () => {
    const reflection = kernel(fixed("c", 4096));
    expect(defaultWorkgroups(reflection, planBindings(reflection, [file("c", 4096)]), 65_535)).toEqual([1, 1, 1]);
  });

  test("are refused over the device's limit, named or not", () => {
    const reflection = kernel(runtime("a"));
    const binds = planBindings(reflection, [file("a", 4 * 64 * 11)]);
    expect(() => defaultWorkgroups(reflection, binds, 10)).toThrow(/takes 11 workgroups and the device allows 10/);
    expect(() => checkWorkgroups([10, 11, 1], 10)).toThrow(/--workgroups 10,11,1: the device allows 10 a dimension/);
    expect(() => checkWorkgroups([10, 10, 10], 10)).not.toThrow();
  });
});

test("a mapping is visible up to the next 16 bytes", () => {
  expect([1, 16, 17].map(visibleLength)).toEqual([16, 16, 32]);
});
