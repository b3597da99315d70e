/**
 * The example site, examples/browser: `npm run demo:browser` serves it on this machine, `npm run demo:browser -- build FOLDER` makes files
 * for a web server. Served pages are cross-origin isolated.
 */
import path from "node:path";
import { fileURLToPath } from "node:url";
import { build, createServer } from "vite";

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));

/** What a server should send with the site, so that its pages may share memory. */
const ISOLATION = {
  "Cross-Origin-Opener-Policy": "same-origin",
  "Cross-Origin-Embedder-Policy": "require-corp",
};

/** @returns {import("vite").InlineConfig} */
const configuration = () => ({
  configFile: false,
  root: path.join(root, "examples", "browser"),
  base: "./",
  cacheDir: path.join(root, "node_modules", ".cache", "pagemirror-site"),
  resolve: { alias: { "pagemirror/browser": path.join(root, "src", "browser.ts") } },
  oxc: { jsx: { runtime: "automatic", importSource: "preact" } },
  worker: { format: "es" },
  build: { target: "es2022", emptyOutDir: true },
  server: { headers: ISOLATION, fs: { allow: [root] } },
});

/** @param {string} outDir */
export async function buildSite(outDir) {
  await build({
    ...configuration(),
    logLevel: "error",
    build: { ...configuration().build, outDir: path.resolve(outDir) },
  });
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [command, folder] = process.argv.slice(2);
  if (command === "build" && folder !== undefined) {
    await buildSite(folder);
  } else if (command === undefined) {
    const server = await createServer(configuration());
    await server.listen();
    server.printUrls();
  } else {
    process.stderr.write("usage: npm run demo:browser [-- build FOLDER]\n");
    process.exit(2);
  }
}
