/**
 * Compiles code for the schedule explorer: one script of all modules under an entry, in which async functions are
 * generators over promises that the explorer gives. Used by the build, and by tests for entries of their own.
 */
import { readFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { build, transform } from "esbuild";
import { recordAccesses } from "./record-accesses.mjs";

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));

/** The names that explored code finds bound to the explorer's; see ExploredGlobals of src/check/scenario.ts. */
const GLOBALS = ["Promise", "__async", "queueMicrotask", "setTimeout", "clearTimeout", "Date"];
const RECORDERS = ["__access", "__count", "__call", "__keyed", "__key", "__iterate", "__walk", "__make", "__aside"];

/** Watchers of everything, and counters whose order does not matter: they would make all steps depend on each other. */
const NOT_RECORDED = /src\/(?:base\/(?:ledger|bug|trace)|sync\/lockdep)\.ts$/;

/** Loads modules with their accesses recorded. */
const recording = {
  name: "record-accesses",
  setup(builder) {
    builder.onLoad({ filter: /\.ts$/ }, async ({ path: file }) => {
      const { code } = await transform(readFileSync(file, "utf8"), { loader: "ts", target: "esnext" });
      return {
        contents: recordAccesses(code, { aside: NOT_RECORDED.test(file.replaceAll("\\", "/")) }),
        loader: "js",
      };
    });
  },
};

/**
 * The body of a module that exports `instantiate(globals)`, and its source map.
 * With `record`, the code also tells what it reads and writes.
 * @param {string} entry
 * @param {{ record?: boolean }} [options]
 * @returns {Promise<{ code: string, map: string }>}
 */
export async function bundleExplored(entry, { record = false } = {}) {
  const result = await build({
    absWorkingDir: root,
    entryPoints: [entry],
    bundle: true,
    format: "iife",
    globalName: "explored",
    target: "es2022",
    supported: { "async-await": false, "async-generator": false, "for-await": false, using: false },
    sourcemap: "external",
    outfile: path.join(root, "dist/check/explored.js"),
    write: false,
    legalComments: "none",
    plugins: record ? [recording] : [],
    // In front of everything: one line, so that the source map needs one line's shift only.
    banner: { js: `export const instantiate = ({ ${[...GLOBALS, ...(record ? RECORDERS : [])].join(", ")} }) => { ` },
    footer: { js: "return explored; };" },
  });
  const text = (suffix) => result.outputFiles.find((file) => file.path.endsWith(suffix))?.text ?? "";
  // The compiler's own helper would use the engine's promises less directly than the explorer's does.
  const code = text(".js")
    .replace("var __async = ", "var __unusedAsync = ")
    // Modules are strict anyway, and a function that takes its parameters apart may not say so.
    .replace(/^"use strict";$/m, "");
  return { code, map: text(".map") };
}

/** The entry that the package ships. */
export const EXPLORED_ENTRY = path.join(root, "src/check/explored/index.ts");
