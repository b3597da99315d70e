/** Invocations that cannot go on from the heads of their loops, and dispatches that need not. */
import { expect, test, vi } from "vitest";
import { wordsOf } from "../../../testing/machine.ts";
import { SVM_INCREMENT, SVM_PAGE, svmMachine } from "../../../testing/svm-kernels.ts";
import { checkResume, FRAMES, ONE } from "../../../testing/svm-resume.ts";
import { SvmKernel } from "./svm-kernel.ts";

test.each([
  ["barriers", "resume points do not apply: it has barriers", "var total = 0u; workgroupBarrier();", 6],
  ["no loop", "resume points do not apply: main has no loop that uses memory", "UNROLLED", 6],
  [
    "too many variables",
    /an invocation's variables are \d+ words, and 768 can be kept: big alone is 800/,
    "var big: array<u32, 800>; big[params.out % 800u] = 1u; var total = big[3];",
    6,
  ],
  [
    "an unknown type",
    /the type of odd \(\d+:\d+\) cannot be found: declare it, let odd: TYPE/,
    "let odd = modf(1.5); var total = u32(odd.whole);",
    6,
  ],
  [
    "too much in one turn",
    /needs at least \d+ device pages of 16 KiB between two turns of its loops, the pool holds 6: raise/,
    "GREEDY",
    6,
  ],
] as const)("refused, at once and with the reason: %s", async (_what, why, code, frames) => {
  const load = (page: number) => `pm_load_u32(params.data + ${page * 4096}u)`;
  const eight = Array.from({ length: 8 }, (_, i) => load(i)).join(" + ");
  const body =
    code === "UNROLLED"
      ? `let total = ${eight};`
      : code === "GREEDY"
        ? `var total = 0u; for (var i = 0u; i < 3u; i++) { total += ${eight}; }`
        : `${code} for (var i = 0u; i < params.words; i += 4096u) { total += pm_load_u32(params.data + i); }`;
  await expect(
    checkResume({ frames, wgsl: `${ONE} { ${body} pm_store_u32(params.out, total); }`, model: () => {} }),
  ).rejects.toThrow(new RegExp(`ENOMEM: one (invocation|workgroup) .*${typeof why === "string" ? why : why.source}`));
});

test("a dispatch that fits does not ask for resume points", async () => {
  await using m = await svmMachine(FRAMES);
  const data = await m.mm.mmap({ length: 4 * FRAMES * SVM_PAGE });
  const kernel = await m.device.kernel(SVM_INCREMENT);
  expect(kernel).toBeInstanceOf(SvmKernel);
  const resuming = vi.spyOn((kernel as SvmKernel).compiled, "resuming");
  const words = data.length / 4;
  await kernel.dispatch({ mm: m.mm, params: { data: data.svmAddress, words }, workgroups: words / 64 });
  expect(resuming).not.toHaveBeenCalled();
  expect(new Set(await wordsOf(data))).toEqual(new Set([1]));
});
