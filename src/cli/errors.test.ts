import { describe, expect, test } from "vitest";
import { BugError, KernelError } from "../base/index.ts";
import { describeFailure, failureJson, failureLine, fileError, UsageError } from "./errors.ts";

describe("the error line", () => {
  test("names operation, code and reason", () => {
    const failure = describeFailure(new KernelError("EFAULT", "dispatch", "nothing is mapped: map it"));
    expect(failureLine(failure)).toBe("pagemirror: dispatch: EFAULT: nothing is mapped: map it");
    expect(failure.exitStatus).toBe(1);
    expect(JSON.parse(failureJson(failure))).toEqual({
      ok: false,
      error: { op: "dispatch", code: "EFAULT", why: "nothing is mapped: map it" },
    });
  });

  test("is one line whatever the message", () => {
    const failure = describeFailure(new KernelError("EINVAL", "kernel", "1:2 wrong\n\n  2:3 wrong too\n"));
    expect(failureLine(failure)).toBe("pagemirror: kernel: EINVAL: 1:2 wrong; 2:3 wrong too");
  });

  test("is for usage with exit status 2", () => {
    const failure = describeFailure(new UsageError("--map: what?"));
    expect(failureLine(failure)).toBe("pagemirror: usage: EINVAL: --map: what?");
    expect(failure.exitStatus).toBe(2);
  });

  test("names the invariant of a bug and asks for a report", () => {
    const line = failureLine(describeFailure(new BugError("I-MM-1", "overlap")));
    expect(line).toMatch(/^pagemirror: internal: I-MM-1: overlap; .*report/);
  });

  test("speaks of anything thrown", () => {
    expect(failureLine(describeFailure("oops"))).toMatch(/^pagemirror: internal: EIO: oops; /);
  });
});

describe("fileError", () => {
  test.each([
    ["ENOENT", "ENOENT"],
    ["ENOTDIR", "ENOENT"],
    ["EROFS", "EACCES"],
    ["ENOSPC", "ENOSPC"],
    ["EWEIRD", "EIO"],
  ])("puts %s as %s with the path", (code, ours) => {
    const error = fileError("map a", "x.bin", Object.assign(new Error("m"), { code }));
    expect(error).toMatchObject({ code: ours, op: "map a", why: expect.stringMatching(/^x\.bin: /) });
  });

  test("leaves an error of ours alone", () => {
    const error = new KernelError("EISDIR", "map a", "x");
    expect(fileError("other", "y", error)).toBe(error);
  });
});
