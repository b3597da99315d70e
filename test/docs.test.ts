/**
 * The documents do what they say: each ```ts block of README.md, ARCHITECTURE.md, CONTRIBUTING.md and docs/ is type-checked
 * and run, and each ```sh block that calls pagemirror is run.
 *
 * A block's fence may say otherwise: "```ts no-run" is type-checked only, "```ts fragment" and "```sh no-run" are neither.
 * Blocks run in a folder of their own that has examples/, data.bin (64 KiB), and picture.png; each must exit with 0.
 */
import { randomBytes } from "node:crypto";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import path from "node:path";
import { PNG } from "pngjs";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { COMMAND, ensureBuilt, ROOT, runProgram } from "./support/built.ts";

interface Block {
  readonly where: string;
  readonly language: string;
  readonly info: string;
  readonly text: string;
}

function documents(): string[] {
  const named = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"].filter((name) => existsSync(path.join(ROOT, name)));
  const docs = path.join(ROOT, "docs");
  const others = existsSync(docs) ? readdirSync(docs, { recursive: true, encoding: "utf8" }) : [];
  return [...named, ...others.filter((name) => name.endsWith(".md")).map((name) => path.join("docs", name))];
}

/** The fenced blocks of a document. */
function blocksOf(name: string, markdown: string): Block[] {
  return [...markdown.matchAll(/^```(\w+)([^\n]*)\n(.*?)^```$/gms)].map((match) => ({
    where: `${name}:${markdown.slice(0, match.index).split("\n").length}`,
    language: match[1] ?? "",
    info: (match[2] ?? "").trim(),
    text: match[3] ?? "",
  }));
}

const blocks = documents().flatMap((name) => blocksOf(name, readFileSync(path.join(ROOT, name), "utf8")));
const typed = blocks.filter(({ language, info }) => language === "ts" && !info.includes("fragment"));
const runnable = typed.filter(({ info }) => !info.includes("no-run"));
const shell = blocks.filter(
  ({ language, info, text }) => language === "sh" && !info.includes("no-run") && /^(?:npx )?pagemirror /m.test(text),
);

// Inside the package, so that "pagemirror" is the built package itself, and where git and the linter do not look.
const sources = path.join(ROOT, "coverage", `docs-${process.pid}`);
const fileOf = (block: Block) => path.join(sources, `${block.where.replace(/\W/g, "_")}.ts`);
let folder: string;

beforeAll(async () => {
  await ensureBuilt();
  mkdirSync(sources, { recursive: true });
  for (const block of typed) {
    // An empty export makes a module of a block that has no import.
    writeFileSync(fileOf(block), `${block.text}\nexport {};\n`);
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
}, 180_000);

afterAll(() => {
  rmSync(sources, { recursive: true, force: true });
  rmSync(folder, { recursive: true, force: true });
});

test("the blocks of a document are found with their line and what their fence says", () => {
  const found = blocksOf("A.md", "x\n\n```ts no-run\nlet a = 1;\n```\n\n```sh\npagemirror info\n```\n");
  expect(found).toEqual([
    { where: "A.md:3", language: "ts", info: "no-run", text: "let a = 1;\n" },
    { where: "A.md:7", language: "sh", info: "", text: "pagemirror info\n" },
  ]);
});

test("every ts block passes the type check", async () => {
  const config = path.join(sources, "tsconfig.json");
  writeFileSync(config, JSON.stringify({ extends: path.join(ROOT, "tsconfig.json"), include: ["*.ts"] }));
  writeFileSync(path.join(sources, "nothing.ts"), "export {};\n");
  const tsc = createRequire(import.meta.url)
    .resolve("typescript/package.json")
    .replace(/package\.json$/, "bin/tsc");
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

describe.runIf(runnable.length > 0)("ts block", () => {
  test.each(runnable.map((block) => [block.where, block] as const))("%s runs", async (_, block) => {
    const tsx = createRequire(import.meta.url).resolve("tsx/cli");
    const { status, stderr } = await runProgram(process.execPath, [tsx, fileOf(block)], { cwd: folder });
    expect(stderr).toBe("");
    expect(status).toBe(0);
  });
});

describe.runIf(shell.length > 0)("sh block", () => {
  test.each(shell.map((block) => [block.where, block] as const))("%s runs", async (_, block) => {
    const env = { PATH: `${path.join(folder, "bin")}:${process.env.PATH}` };
    const { status, stderr } = await runProgram("bash", ["-euo", "pipefail", "-c", block.text], { cwd: folder, env });
    expect(stderr).toBe("");
    expect(status).toBe(0);
  });
});
