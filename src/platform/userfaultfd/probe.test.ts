import { afterEach, expect, test, vi } from "vitest";
import { Libc, NoLibc } from "./libc.ts";
import { MMU_VARIABLE, probeUserfaultfd } from "./probe.ts";

afterEach(() => vi.unstubAllEnvs());

test("the environment turns userfaultfd off, and the report says how to turn it on", () => {
  vi.stubEnv(MMU_VARIABLE, "software");
  expect(probeUserfaultfd()).toEqual({
    works: false,
    why: "turned off by PAGEMIRROR_MMU=software: unset it",
    systemCalls: false,
  });
});

test("a value of the variable that means nothing is told, and not passed over", () => {
  vi.stubEnv(MMU_VARIABLE, "sofware");
  const why = "PAGEMIRROR_MMU=sofware is no MMU: set it to software, auto or userfaultfd, or unset it";
  expect(probeUserfaultfd()).toEqual({ works: false, why, systemCalls: false });
  vi.stubEnv(MMU_VARIABLE, "auto");
  const { works } = probeUserfaultfd();
  vi.stubEnv(MMU_VARIABLE, "");
  expect(probeUserfaultfd().works).toBe(works);
});

test("a machine that cannot do it is told what to do", () => {
  const { works, why } = probeUserfaultfd();
  expect(works || /: \w+/.test(why)).toBe(true);
});

test("the absence of Linux has a remedy", () => {
  vi.stubEnv(MMU_VARIABLE, "");
  const platform = Object.getOwnPropertyDescriptor(process, "platform");
  Object.defineProperty(process, "platform", { value: "darwin" });
  try {
    expect(() => Libc.load()).toThrow(NoLibc);
    expect(probeUserfaultfd().why).toBe("this is darwin, and userfaultfd is Linux's: nothing to do");
  } finally {
    Object.defineProperty(process, "platform", platform ?? {});
  }
});

test("threads that Node may not start have a remedy", () => {
  vi.stubEnv(MMU_VARIABLE, "");
  Object.defineProperty(process, "permission", { value: { has: () => false }, configurable: true });
  try {
    expect(probeUserfaultfd()).toMatchObject({
      works: false,
      why: "Node may not start threads: give it --allow-worker",
    });
  } finally {
    Reflect.deleteProperty(process, "permission");
  }
});
