/**
 * `npm run package`: packs the package as npm would publish it, lints the tarball (publint, Are The Types Wrong), and
 * imports each of its exports from an installed copy, in Node and in TypeScript at its strictest. Needs a fresh
 * `npm run build`.
 */
import { spawnSync } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { publint } from "publint";
import { formatMessage } from "publint/utils";
import { reportAndExit } from "./files.ts";

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));

interface Manifest {
  readonly name: string;
  readonly bin: Record<string, string>;
  readonly exports: Record<string, unknown>;
}

/** Runs a program; returns its output, or a problem when it fails. */
function runProgram(
  what: string,
  command: string,
  args: readonly string[],
  cwd: string,
): { out: string; problem?: string } {
  const { status, stdout, stderr, error } = spawnSync(command, args, { cwd, encoding: "utf8" });
  const out = `${stdout ?? ""}${stderr ?? ""}`;
  return status === 0 ? { out: stdout } : { out, problem: `${what}: ended with ${error?.message ?? status}\n${out}` };
}

function pack(folder: string): { tarball: string; problem?: string } {
  const { out, problem } = runProgram(
    "npm pack",
    "npm",
    ["pack", "--json", "--ignore-scripts", "--pack-destination", folder],
    root,
  );
  const tarball = readdirSync(folder).find((name) => name.endsWith(".tgz"));
  if (problem !== undefined || tarball === undefined) {
    return { tarball: "", problem: problem ?? `npm pack made no tarball:\n${out}` };
  }
  return { tarball: path.join(folder, tarball) };
}

async function lintPackage(tarball: string): Promise<string[]> {
  const bytes = readFileSync(tarball);
  const archive = bytes.buffer.slice(bytes.byteOffset, bytes.byteOffset + bytes.byteLength);
  const { messages, pkg } = await publint({ pkgDir: "package", pack: { tarball: archive }, strict: true });
  return messages
    .filter(({ type }) => type !== "suggestion")
    .map((message) => `publint: ${formatMessage(message, pkg)}`);
}

function lintTypes(tarball: string): string[] {
  const require = createRequire(import.meta.url);
  const manifest = require.resolve("@arethetypeswrong/cli/package.json");
  const attw = path.join(path.dirname(manifest), "dist", "index.js");
  const args = [attw, tarball, "--profile", "esm-only", "--no-definitely-typed", "--format", "ascii", "--no-color"];
  // `pagemirror/package.json` is data, not a module.
  const { problem } = runProgram("attw", process.execPath, [...args, "--exclude-entrypoints", "./package.json"], root);
  return problem === undefined ? [] : [problem];
}

/** Unpacks the tarball as node_modules/<name> beside this checkout's dependencies. */
function install(tarball: string, folder: string, name: string): string | undefined {
  const { problem } = runProgram("tar", "tar", ["-xzf", tarball, "-C", folder], root);
  if (problem !== undefined) {
    return problem;
  }
  const modules = path.join(folder, "node_modules");
  mkdirSync(modules);
  for (const dependency of readdirSync(path.join(root, "node_modules"))) {
    if (!dependency.startsWith(".")) {
      symlinkSync(path.join(root, "node_modules", dependency), path.join(modules, dependency));
    }
  }
  renameSync(path.join(folder, "package"), path.join(modules, name));
  return undefined;
}

function smokeTest(folder: string, manifest: Manifest): string[] {
  const problems: string[] = [];
  for (const entry of Object.keys(manifest.exports).filter((name) => !name.endsWith(".json"))) {
    const specifier = path.posix.join(manifest.name, entry);
    const script = `const m = await import(${JSON.stringify(specifier)}); if (Object.keys(m).length === 0) throw new Error("no exports");`;
    const args = ["--input-type=module", "--eval", script];
    const { problem } = runProgram(`import "${specifier}"`, process.execPath, args, folder);
    problems.push(...(problem === undefined ? [] : [problem]));
  }
  for (const [name, target] of Object.entries(manifest.bin)) {
    const file = path.join(folder, "node_modules", manifest.name, target);
    const { problem } = existsSync(file)
      ? runProgram(`${name} --help`, file, ["--help"], folder)
      : { problem: `the tarball has no ${target}, which is the command ${name}` };
    problems.push(...(problem === undefined ? [] : [problem]));
  }
  return problems;
}

/** The declaration files as a user's compiler sees them, with skipLibCheck off. */
function checkDeclarations(folder: string, manifest: Manifest): string[] {
  const entries = Object.keys(manifest.exports).filter((name) => !name.endsWith(".json"));
  const imports = entries.map((entry, i) => `export * as m${i} from "${path.posix.join(manifest.name, entry)}";`);
  writeFileSync(path.join(folder, "package.json"), '{ "type": "module" }');
  writeFileSync(path.join(folder, "all.ts"), `${imports.join("\n")}\n`);
  const compilerOptions = {
    strict: true,
    exactOptionalPropertyTypes: true,
    module: "nodenext",
    target: "es2022",
    lib: ["ES2023", "ESNext.Disposable", "DOM"],
    types: [],
    noEmit: true,
  };
  writeFileSync(path.join(folder, "tsconfig.json"), JSON.stringify({ compilerOptions, files: ["all.ts"] }));
  const tsc = path.join(root, "node_modules", "typescript", "bin", "tsc");
  const { problem } = runProgram("tsc in a user's project", process.execPath, [tsc, "-p", folder], folder);
  return problem === undefined ? [] : [problem];
}

async function checkPackage(): Promise<string[]> {
  const manifest = JSON.parse(readFileSync(path.join(root, "package.json"), "utf8")) as Manifest;
  const folder = mkdtempSync(path.join(tmpdir(), "pagemirror-package-"));
  try {
    const { tarball, problem } = pack(folder);
    if (problem !== undefined) {
      return [problem];
    }
    const lints = [...(await lintPackage(tarball)), ...lintTypes(tarball)];
    const unpacked = install(tarball, folder, manifest.name);
    return [
      ...lints,
      ...(unpacked === undefined
        ? [...smokeTest(folder, manifest), ...checkDeclarations(folder, manifest)]
        : [unpacked]),
    ];
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

reportAndExit("package", await checkPackage(), "the packed tarball lints clean and each export imports");
