/** The project's own checks find what they are for. */
import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { checkInvariants } from "../scripts/check-invariants.ts";
import { checkLayers, layerOf } from "../scripts/check-layers.ts";
import { LAYERS } from "../scripts/layers.ts";
import { importsOf, stripSource } from "../scripts/source.ts";

let src: string;

beforeEach(() => {
  src = mkdtempSync(path.join(tmpdir(), "pagemirror-layers-"));
});

afterEach(() => {
  rmSync(src, { recursive: true, force: true });
});

/** Writes files under src and returns what the layer check says. */
function problemsOf(files: Record<string, string>): string[] {
  for (const [name, text] of Object.entries(files)) {
    mkdirSync(path.join(src, path.dirname(name)), { recursive: true });
    writeFileSync(path.join(src, name), text);
  }
  return checkLayers(src);
}

describe("check-layers", () => {
  test("says nothing about imports that go down", () => {
    const files = {
      "base/errno.ts": "export const a = 1;\n",
      "mm/vma.ts": 'import { a } from "../base/errno.ts";\nexport const b = a;\n',
      "platform/node/file.ts": 'import { readSync } from "node:fs";\nexport { b } from "../../mm/vma.ts";\nreadSync;\n',
    };
    expect(problemsOf(files)).toEqual([]);
  });

  test.each([
    ["an import that goes up", 'import { b } from "../hmm/hmm.ts";', "mm may not import hmm"],
    ["a type import that goes up", 'import type { B } from "../hmm/hmm.ts";', "mm may not import hmm"],
    ["an import over several lines", 'import {\n  a,\n  b,\n} from "../hmm/hmm.ts";', "mm may not import hmm"],
    ["a dynamic import that goes up", 'const h = await import("../hmm/hmm.ts");', "mm may not import hmm"],
    [
      "a platform outside a composition root",
      'export * from "../platform/node/x.ts";',
      "mm may not import platform/node",
    ],
    ["a Node module below platform", 'import fs from "node:fs";', "may not import node:fs"],
    ["a Node module without its prefix", 'import fs from "fs";', "may not import fs"],
    ["a Node global below platform", 'const a = process.env["HOME"];', "may not use Node's process"],
    ["a Node type below platform", "let a: Buffer | undefined;", "may not use Node's Buffer"],
    ["a package of another layer", 'import { create } from "webgpu";', "may not import the package webgpu"],
    ["a subpath of a package", 'import x from "@sparticuz/chromium/bin";', "the package @sparticuz/chromium"],
    ["a relative import without .ts", 'import { a } from "./vma";', "relative imports end in .ts"],
    ["a missing file", 'import { a } from "./gone.ts";', "does not exist"],
    ["an import of a test", 'import { a } from "./a.test.ts";', "is a test"],
    ["help for tests in code that ships", 'import { bugs } from "../testing/bugs.ts";', "mm may not import testing"],
  ])("catches %s", (_, line, message) => {
    const problems = problemsOf({
      "mm/bad.ts": `// a first line\n${line}\n`,
      "mm/a.test.ts": "",
      "hmm/hmm.ts": "",
      "platform/node/x.ts": "",
      "testing/bugs.ts": "",
    });
    expect(problems).toHaveLength(1);
    expect(problems[0]).toContain(message);
    expect(problems[0]).toMatch(/^src\/mm\/bad\.ts:[2-5]: /);
  });

  test("catches a circle of value imports and allows one of types", () => {
    const circle = problemsOf({
      "mm/a.ts": 'import { b } from "./b.ts";\n',
      "mm/b.ts": 'import { a } from "./a.ts";\n',
      "mm/c.ts": 'import type { D } from "./d.ts";\n',
      "mm/d.ts": 'import type { C } from "./c.ts";\n',
    });
    expect(circle).toEqual(["import circle: mm/a.ts -> mm/b.ts -> mm/a.ts"]);
  });

  test("catches a file of no layer", () => {
    expect(problemsOf({ "new/a.ts": "" })).toEqual(["src/new/a.ts: belongs to no layer of scripts/layers.ts"]);
  });

  test("lets a test import anything", () => {
    expect(problemsOf({ "mm/a.test.ts": 'import "node:fs";\nimport "../node.ts";\n', "node.ts": "" })).toEqual([]);
  });

  test("has layers that name only layers", () => {
    const names = new Set(LAYERS.map(({ name }) => name));
    expect(LAYERS.flatMap(({ imports }) => imports).filter((name) => !names.has(name))).toEqual([]);
    expect(layerOf("drivers/webgpu/device.ts")?.name).toBe("drivers/webgpu");
    expect(layerOf("node.ts")?.name).toBe("node");
  });
});

describe("reading source", () => {
  test("sees no import in comments, strings and templates", () => {
    const text = [
      "// import a from 'one';",
      "/* export * from 'two'; */",
      "const a = `\nimport x from 'three';\n\\``;",
      "const b = /[/'\"]import/;",
      'import type { C } from "four";',
    ].join("\n");
    expect(importsOf(text)).toEqual([{ specifier: "four", line: 7, typeOnly: true }]);
  });

  test("blanks strings and keeps the line numbers", () => {
    const { code } = stripSource('a("process.env");\n/* process */\nb / process / c;\n');
    expect(code.split("\n").map((line) => line.includes("process"))).toEqual([false, false, true, false]);
  });
});

describe("check-invariants", () => {
  const table = "| id | statement |\n|---|---|\n| I-X-1 | one |\n| I-X-2 | two |\n";

  test("says nothing when the table and the code cite the same ids", () => {
    expect(checkInvariants(table, new Map([["src/a.ts", "// I-X-1\nbugOn(x, 'I-X-2')"]]))).toEqual([]);
  });

  test("catches an id that is in one place only", () => {
    const sources = new Map([
      ["src/a.ts", "// I-X-1, I-X-3"],
      ["src/a.test.ts", "I-X-2"],
    ]);
    expect(checkInvariants(table, sources)).toEqual([
      "src/a.ts: cites I-X-3, which has no row in INVARIANTS.md",
      "INVARIANTS.md: no code of src cites I-X-2",
    ]);
  });

  test("catches an id with two rows", () => {
    expect(checkInvariants(`${table}| I-X-1 | again |\n`, new Map([["src/a.ts", "I-X-1 I-X-2"]]))).toEqual([
      "INVARIANTS.md: I-X-1 has two rows",
    ]);
  });
});

describe(".ci/run", () => {
  const script = path.join(import.meta.dirname, "../.ci/run");

  test("ends with the counts and fails when the install fails for good", () => {
    const bin = path.join(src, "bin");
    mkdirSync(bin);
    writeFileSync(path.join(bin, "npm"), "#!/bin/sh\nexit 1\n", { mode: 0o755 });
    writeFileSync(path.join(bin, "sleep"), "#!/bin/sh\n", { mode: 0o755 });
    const env = { ...process.env, PATH: `${bin}:${process.env.PATH}` };
    const { status, stdout } = spawnSync("bash", [script], { encoding: "utf8", env });
    expect(stdout.trimEnd().split("\n").at(-1)).toBe("0 passed, 1 failed");
    expect(status).toBe(1);
  });

  test("runs the install and the tests that the README names", () => {
    const text = readFileSync(script, "utf8");
    expect(text).toMatch(/npm ci/);
    expect(text).toMatch(/npm --silent test/);
  });
});
