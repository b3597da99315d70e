/**
 * Compiles code for the schedule explorer: one script of all modules under an entry, in which async functions are
 * generators over promises that the explorer gives. Used by the build, and by tests for entries of their own.
 */
import path from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));

/** The names that explored code finds bound to the explorer's; see ExploredGlobals of src/check/scenario.ts. */
const GLOBALS = ["Promise", "__async", "queueMicrotask", "setTimeout", "clearTimeout", "Date"];

/**
 * The body of a module that exports `instantiate(globals)`, and its source map.
 * @param {string} entry
 * @returns {Promise<{ code: string, map: string }>}
 */
export async function bundleExplored(entry) {
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
    // In front of everything: one line, so that the source map needs one line's shift only.
    banner: { js: `export const instantiate = ({ ${GLOBALS.join(", ")} }) => { ` },
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
