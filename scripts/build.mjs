/**
 * `npm run build`: compiles src to a clean dist with declarations, bundles what the schedule explorer runs, and makes the
 * command executable.
 */
import { spawnSync } from "node:child_process";
import { chmodSync, existsSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";
import { buildInspector } from "./build-inspector.mjs";
import { bundleExplored, EXPLORED_ENTRY } from "./explored.mjs";

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const dist = path.join(root, "dist");
// Built aside and moved into place, so that a failed build leaves no half of a dist; as deep as dist, for the source maps.
const fresh = path.join(root, `.dist-${process.pid}`);
const tsc = path.join(path.dirname(createRequire(import.meta.url).resolve("typescript/package.json")), "bin", "tsc");

/** The module of the compiler's helpers, from dist. */
const HELPERS = "tslib.js";

const fail = (message) => {
  rmSync(fresh, { recursive: true, force: true });
  process.stderr.write(`build: ${message}\n`);
  process.exit(1);
};

const { status } = spawnSync(process.execPath, [tsc, "-p", "tsconfig.build.json", "--outDir", fresh], {
  cwd: root,
  stdio: "inherit",
});
if (status !== 0) {
  fail(`tsc ended with ${status}`);
}

await bundleHelpers();

const explored = await bundleExplored(EXPLORED_ENTRY);
writeFileSync(path.join(fresh, "check", "explored.js"), explored.code);
writeFileSync(path.join(fresh, "check", "explored.js.map"), explored.map);
const recorded = await bundleExplored(EXPLORED_ENTRY, { record: true });
writeFileSync(path.join(fresh, "check", "recorded.js"), recorded.code);

await buildInspector(path.join(fresh, "inspector"));

const { bin } = JSON.parse(readFileSync(path.join(root, "package.json"), "utf8"));
for (const target of Object.values(bin)) {
  const file = path.join(fresh, path.relative("dist", target));
  if (!existsSync(file)) {
    fail(`package.json names ${target} as a command, and nothing compiled to it`);
  }
  if (!readFileSync(file, "utf8").startsWith("#!")) {
    fail(`${target} is a command and must start with #!/usr/bin/env node`);
  }
  chmodSync(file, 0o755);
}

rmSync(dist, { recursive: true, force: true });
renameSync(fresh, dist);

/**
 * What the compiler makes of `using` calls functions of tslib. They come along, for a page without a bundler finds no package
 * by its name.
 */
async function bundleHelpers() {
  const importsHelpers = /(?<=^import \{ (\w+(?:, \w+)*) \} from )"tslib";$/m;
  const names = new Set();
  for (const file of readdirSync(fresh, { recursive: true }).filter((name) => name.endsWith(".js"))) {
    const code = readFileSync(path.join(fresh, file), "utf8");
    const [, imported] = importsHelpers.exec(code) ?? [];
    if (imported !== undefined) {
      for (const name of imported.split(", ")) {
        names.add(name);
      }
      const up = "../".repeat(file.split(path.sep).length - 1) || "./";
      writeFileSync(path.join(fresh, file), code.replace(importsHelpers, `"${up}${HELPERS}";`));
    }
  }
  await build({
    stdin: { contents: `export { ${[...names].join(", ")} } from "tslib";`, resolveDir: root },
    bundle: true,
    format: "esm",
    target: "es2022",
    outfile: path.join(fresh, HELPERS),
  });
}
