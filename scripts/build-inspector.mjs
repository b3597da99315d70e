/** Builds the inspector's page into a folder: `npm run build` calls it, `npm run build:inspector` runs it alone. */
import path from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "vite";

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));

/** @param {string} outDir */
export async function buildInspector(outDir) {
  await build({
    configFile: false,
    root: path.join(root, "inspector"),
    logLevel: "warn",
    cacheDir: path.join(root, "node_modules", ".cache", "pagemirror-vite"),
    oxc: { jsx: { runtime: "automatic", importSource: "preact" } },
    build: { outDir, emptyOutDir: true, assetsInlineLimit: 0, modulePreload: false, target: "es2022" },
  });
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  await buildInspector(path.join(root, "dist", "inspector"));
}
