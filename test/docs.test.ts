/**
 * The documents do what they say: the code blocks of README.md, ARCHITECTURE.md, CONTRIBUTING.md and docs/ are run.
 *
 *     ```ts            is type-checked and run          ```ts no-run      is type-checked only
 *     ```ts continued  goes on with the block before    ```ts fragment    is neither
 *     ```ts browser    is type-checked, and bundled for a browser
 *     ```js            is run
 *     ```wgsl          is compiled for the GPU          ```wgsl file=NAME is also there as a file for the blocks below
 *     ```sh            is run when it calls pagemirror  ```sh no-run      is not
 *     ```text prints   is what the block above prints; numbers may differ, and … stands for anything
 *
 * Blocks run in a folder of their own that has examples/, data.bin (64 KiB), and picture.png; each must exit with 0, and
 * say nothing on stderr. Those of one document run in one process, one after the other, but for those that use node:test.
 */
import { randomBytes } from "node:crypto";
import { chmodSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import path from "node:path";
import { build } from "esbuild";
import { PNG } from "pngjs";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { COMMAND, ensureBuilt, ROOT, runProgram } from "./support/built.ts";
import { allBlocks, blocksOf, type Program, printed, programsOf } from "./support/doc-blocks.ts";

const blocks = allBlocks();
const programs = programsOf(blocks, ["ts", "js", "sh"]);
const has =
  (...words: string[]) =>
  ({ info }: Pick<Program, "info">) =>
    words.some((word) => info.includes(word));
const typed = programs.filter((program) => program.language === "ts" && !has("fragment")(program));
const browser = typed.filter(has("browser"));
const runnable = programs.filter(
  (program) => ["ts", "js"].includes(program.language) && !has("no-run", "fragment", "browser")(program),
);
const alone = runnable.filter(({ text }) => text.includes('from "node:test"'));
const together = new Map<string, Program[]>();
for (const program of runnable.filter((one) => !alone.includes(one))) {
  together.set(program.document, [...(together.get(program.document) ?? []), program]);
}
const shell = programs.filter(
  (program) => program.language === "sh" && !has("no-run")(program) && /^(?:npx )?pagemirror /m.test(program.text),
);
const kernels = blocks.filter(({ language, info }) => language === "wgsl" && !info.includes("fragment"));

const require = createRequire(import.meta.url);
// Inside the package, so that "pagemirror" is the built package itself, and where git and the linter do not look.
const sources = path.join(ROOT, "coverage", `docs-${process.pid}`);
const fileOf = ({ where, language }: Program) => path.join(sources, `${where.replace(/\W/g, "_")}.${language}`);
let folder: string;

beforeAll(async () => {
  await ensureBuilt();
  mkdirSync(sources, { recursive: true });
  for (const program of new Set([...typed, ...runnable])) {
    // An empty export makes a module of a block that has no import.
    writeFileSync(fileOf(program), `${program.text}\nexport {};\n`);
  }
  folder = mkdtempSync(path.join(tmpdir(), "pagemirror-docs-"));
  mkdirSync(path.join(folder, "bin"));
  for (const [name, command] of [
    ["pagemirror", `exec "${process.execPath}" "${COMMAND}" "$@"`],
    ["npx", 'shift; exec pagemirror "$@"'],
  ] as const) {
    writeFileSync(path.join(folder, "bin", name), `#!/bin/sh\n${command}\n`);
    chmodSync(path.join(folder, "bin", name), 0o755);
  }
  symlinkSync(path.join(ROOT, "examples"), path.join(folder, "examples"));
  writeFileSync(path.join(folder, "data.bin"), randomBytes(64 * 1024));
  writeFileSync(path.join(folder, "picture.png"), PNG.sync.write(new PNG({ width: 32, height: 32 })));
  for (const { info, text } of kernels) {
    const name = info.find((word) => word.startsWith("file="))?.slice("file=".length);
    if (name !== undefined) {
      writeFileSync(path.join(folder, name), text);
    }
  }
}, 180_000);

afterAll(() => {
  rmSync(sources, { recursive: true, force: true });
  rmSync(folder, { recursive: true, force: true });
});

/** Runs programs in one process; each must have printed what its document shows. */
async function run(group: readonly Program[]): Promise<void> {
  const runner = path.join(import.meta.dirname, "support/run-blocks.mjs");
  const { status, stdout, stderr } = await runProgram(
    process.execPath,
    [require.resolve("tsx/cli"), runner, ...group.map(fileOf)],
    { cwd: folder },
  );
  const parts = stdout.split("\0").slice(1);
  const last = group[parts.length - 1]?.where;
  // Where userfaultfd does not work, "auto" says so once.
  const complaints = stderr.replace(/^.*\[PAGEMIRROR_MMU\] Warning: .*\n\(Use `node --trace-warnings .*\n/m, "");
  expect(complaints, `the last block that began is ${last}`).toBe("");
  expect(status, `the last block that began is ${last}`).toBe(0);
  for (const [i, { where, prints }] of group.entries()) {
    if (prints !== undefined) {
      expect(printed(parts[i] ?? "", prints), `${where} prints\n${parts[i]}\nand not\n${prints}`).toBe(true);
    }
  }
}

test("the blocks of a document are found with their line and what their fence says", () => {
  const found = blocksOf("A.md", "x\n\n```ts no-run\nlet a = 1;\n```\n\n```sh\npagemirror info\n```\n");
  expect(found).toEqual([
    { document: "A.md", where: "A.md:3", language: "ts", info: ["no-run"], text: "let a = 1;\n" },
    { document: "A.md", where: "A.md:7", language: "sh", info: [], text: "pagemirror info\n" },
  ]);
});

test("continued blocks and shown output belong to the program above", () => {
  const text = "```ts\na\n```\n```wgsl\nw\n```\n```ts continued\nb\n```\n```text prints\n7\n```\n";
  expect(programsOf(blocksOf("A.md", text), ["ts"])).toEqual([
    { document: "A.md", where: "A.md:1", language: "ts", info: [], text: "a\n\nb\n", prints: "7\n" },
  ]);
});

test("shown output may have other numbers, and lines in between", () => {
  const shown = "4 pages\n  done in 1.5 ms\n";
  expect(printed("7 pages\nmore\ndone in 20,000 ms\n", shown)).toBe(true);
  expect(printed("7 pages\ndone in vain\n", shown)).toBe(false);
});

test("every ts block passes the type check", async () => {
  const config = path.join(sources, "tsconfig.json");
  writeFileSync(config, JSON.stringify({ extends: path.join(ROOT, "tsconfig.json"), include: ["*.ts"] }));
  writeFileSync(path.join(sources, "nothing.ts"), "export {};\n");
  const tsc = require.resolve("typescript/package.json").replace(/package\.json$/, "bin/tsc");
  const { status, stdout } = await runProgram(process.execPath, [
    tsc,
    "-p",
    config,
    "--noEmit",
    "--noUnusedLocals",
    "false",
  ]);
  expect(stdout).toBe("");
  expect(status).toBe(0);
}, 60_000);

describe.runIf(together.size > 0)("the ts and js blocks of", () => {
  test.each([...together])("%s run", (_, group) => run(group), 120_000);
});

describe.runIf(alone.length > 0)("a block that declares tests", () => {
  test.each(alone.map((program) => [program.where, program] as const))("%s runs", (_, program) => run([program]));
});

describe.runIf(shell.length > 0)("sh block", () => {
  test.each(shell.map((program) => [program.where, program] as const))("%s runs", async (_, { text, prints }) => {
    const env = { PATH: `${path.join(folder, "bin")}:${process.env.PATH}` };
    const { status, stdout, stderr } = await runProgram("bash", ["-euo", "pipefail", "-c", text], { cwd: folder, env });
    expect(stderr).toBe("");
    expect(status).toBe(0);
    expect(prints === undefined || printed(stdout, prints), `it prints\n${stdout}`).toBe(true);
  });
});

test.runIf(kernels.length > 0)(
  "every wgsl block compiles",
  async () => {
    const program = path.join(sources, "kernels.ts");
    const texts = kernels.map(({ where, text }) => ({ where, text }));
    writeFileSync(
      program,
      `import { open } from "pagemirror/node";
    await using pm = await open();
    for (const { where, text } of ${JSON.stringify(texts)}) {
      await pm.device.kernel(text).catch((error: unknown) => console.log(where, error));
    }`,
    );
    const { stdout, stderr } = await runProgram(process.execPath, [require.resolve("tsx/cli"), program]);
    expect(stderr).toBe("");
    expect(stdout).toBe("");
  },
  60_000,
);

test.runIf(browser.length > 0)("every block for browsers is bundled without Node", async () => {
  for (const program of browser) {
    const { errors, warnings } = await build({
      entryPoints: [fileOf(program)],
      bundle: true,
      format: "esm",
      platform: "browser",
      target: "es2022",
      write: false,
      logLevel: "silent",
    });
    expect([...errors, ...warnings], program.where).toEqual([]);
  }
});
