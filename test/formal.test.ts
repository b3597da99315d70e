/** The model of the notifiers' lifetimes, checked with spin over its whole state space; its mutants must be refuted. */
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { describe, expect, test } from "vitest";
import { ROOT, runProgram } from "./support/built.ts";

const works = (command: string, ...args: string[]) => spawnSync(command, args, { stdio: "ignore" }).status === 0;
const missing = [
  ...(works("spin", "-V") ? [] : ["spin (Debian: apt-get install spin)"]),
  ...(works("cc", "--version") ? [] : ["a C compiler"]),
];

/** Spin's verdict on the model, under a definition that breaks it. */
async function verify(define?: string): Promise<string> {
  const folder = mkdtempSync(path.join(tmpdir(), "pagemirror-spin-"));
  const run = async (command: string, ...args: string[]) => {
    const { stdout, stderr, status } = await runProgram(command, args, { cwd: folder });
    expect(status, `${command} ${args.join(" ")}\n${stdout}${stderr}`).toBe(0);
    return stdout;
  };
  try {
    const defines = define === undefined ? [] : [`-D${define}`];
    await run("spin", ...defines, "-a", path.join(ROOT, "formal/notifier.pml"));
    await run("cc", "-w", "-O2", "-DSAFETY", "-o", "pan", "pan.c");
    return await run(path.join(folder, "pan"), "-m100000");
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

const title =
  missing.length === 0 ? "formal/notifier.pml" : `formal/notifier.pml (skipped: no ${missing.join(", no ")})`;

describe.skipIf(missing.length > 0)(title, () => {
  test("I-MN-3, I-MN-4: holds in every state, and none is a deadlock", async () => {
    const verdict = await verify();
    expect(verdict).toContain("errors: 0");
    expect(verdict).not.toContain("max search depth too small");
    // A model that stops early proves nothing.
    expect(Number(/(\d+) states, stored/.exec(verdict)?.[1])).toBeGreaterThan(100_000);
  }, 120_000);

  test.each([
    ["PUT_AT_ONCE", "the last put frees without a grace period"],
    ["FREE_FIRST", "exit frees what it unlists"],
    ["PUT_TWICE", "a put without a get passes"],
    ["NO_BARRIER", "synchronize does not wait for queued frees"],
    ["NO_FLIP_WAIT", "a grace period does not wait for readers"],
  ])(
    "%s is refuted: %s",
    async (define) => {
      const verdict = await verify(define);
      expect(verdict).toMatch(/errors: [1-9]/);
      expect(verdict).toMatch(/assertion violated/);
    },
    120_000,
  );
});
