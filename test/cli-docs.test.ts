/** docs/cli.md and `--help` say the same. */
import { readFileSync } from "node:fs";
import path from "node:path";
import { beforeAll, expect, test } from "vitest";
import { ensureBuilt, pagemirror, ROOT } from "./support/built.ts";

const manual = readFileSync(path.join(ROOT, "docs/cli.md"), "utf8");

/** The text below a heading of the second level, up to the next. */
function sectionOf(command: string): string {
  return new RegExp(`^## ${command}$(.*?)(?=^## )`, "ms").exec(manual)?.[1] ?? "";
}

const unique = (names: Iterable<string>) => [...new Set(names)].sort();

beforeAll(ensureBuilt, 180_000);

test("each command has its section", async () => {
  const { stdout } = await pagemirror(["--help"]);
  const commands = [...stdout.matchAll(/^ {2}([a-z]+) [[<]/gm)].map(([, name]) => name ?? "");
  expect(commands).toContain("run");
  const sections = [...manual.matchAll(/^## ([a-z]+)$/gm)].map(([, name]) => name ?? "");
  expect(sections).toEqual(commands.filter((name) => name !== "help"));
});

test.each(["run", "info", "inspect", "maps", "check"])("the options of %s are those of its table", async (command) => {
  const { stdout } = await pagemirror([command, "--help"]);
  const offered = unique([...stdout.matchAll(/^ {2}(?:-\w, )?(--[a-z-]+)/gm)].map(([, name]) => name ?? ""));
  const described = [...sectionOf(command).matchAll(/^\| (`--[^|]+)\|/gm)].flatMap(([, cell = ""]) => [
    ...cell.matchAll(/`(--[a-z-]+)/g),
  ]);
  expect(unique([...described.map(([, name]) => name ?? ""), "--help"])).toEqual(offered);
});

test("the examples of run --help are those that the document shows and the tests run", async () => {
  const { stdout } = await pagemirror(["run", "--help"]);
  // Numbers differ: the document's files are small.
  const words = (text: string) =>
    text
      .replaceAll("\\\n", " ")
      .replace(/\s+/g, " ")
      .replace(/\d+[KMG]?/g, "0");
  const commands = [...stdout.matchAll(/^ {2}pagemirror run (?:.*\\\n)*.*/gm)].map(([text]) => words(text).trim());
  expect(commands.length).toBeGreaterThan(1);
  for (const command of commands) {
    expect(words(manual)).toContain(command);
  }
});
