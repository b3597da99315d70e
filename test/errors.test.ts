/** docs/errors.md has a section for each code that the sources throw, and for no other. */
import { readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { expect, test } from "vitest";
import { ROOT } from "./support/built.ts";

/** Where a code stands that is thrown: in an error's place, or in a table or helper that makes one. */
const THROWN = [
  /new KernelError\(\s*"(E[A-Z]+)"/g,
  /\b(?:fail|stopAt)\([^"()]*"(E[A-Z]+)"/g,
  /\[\s*"(E[A-Z]+)",\s*["`]/g,
  /\bcode: "(E[A-Z]+)"/g,
  /\? "(E[A-Z]+)" : "(E[A-Z]+)"/g,
];

const sources = readdirSync(path.join(ROOT, "src"), { recursive: true, encoding: "utf8" })
  .filter((file) => file.endsWith(".ts") && !file.endsWith(".test.ts") && !/^(?:testing|check)\b/.test(file))
  .map((file) => readFileSync(path.join(ROOT, "src", file), "utf8"));
const known: readonly string[] =
  readFileSync(path.join(ROOT, "src/base/errno.ts"), "utf8").match(/(?<=\| ")E[A-Z]+/g) ?? [];
const thrown = new Set(
  sources
    .flatMap((text) => THROWN.flatMap((pattern) => [...text.matchAll(pattern)].flatMap(([, ...codes]) => codes)))
    .filter((code) => known.includes(code)),
);

const manual = readFileSync(path.join(ROOT, "docs/errors.md"), "utf8");

test("codes are found where they are thrown", () => {
  expect(thrown.size).toBeGreaterThan(10);
  expect(thrown).toContain("EISDIR");
  // A value that means "start over" is never thrown.
  expect(thrown).not.toContain("EAGAIN");
});

test("each code that is thrown has its section in docs/errors.md, and each section its code", () => {
  expect(manual.match(/(?<=^## )E[A-Z]+$/gm)).toEqual([...thrown].sort());
});

test("the table at the top of docs/errors.md leads to each section", () => {
  const rows = [...manual.matchAll(/^\| \[(E[A-Z]+)\]\(#(e[a-z]+)\)/gm)];
  expect(rows.map(([, code]) => code)).toEqual([...thrown].sort());
  expect(rows.map(([, , anchor]) => anchor)).toEqual([...thrown].sort().map((code) => code.toLowerCase()));
});
