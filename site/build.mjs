/**
 * `npm run docs` builds the documentation site into site/dist: typedoc writes the reference from the docstrings, VitePress
 * makes the pages, and then every link of every page is followed. `npm run docs:dev` serves it and follows changes.
 */
import { spawnSync } from "node:child_process";
import { readFileSync, rmSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import { createServer } from "vitepress";
import { checkSite } from "./check.mjs";
import { writeReference } from "./reference.mjs";

const site = import.meta.dirname;
const root = path.dirname(site);
const reference = path.join(site, "api");

const fail = (message) => {
  process.stderr.write(`docs: ${message}\n`);
  process.exit(1);
};

const { name, exports } = JSON.parse(readFileSync(path.join(root, "package.json"), "utf8"));
rmSync(reference, { recursive: true, force: true });
if (!(await writeReference({ root, name, exports, out: reference }))) {
  fail("typedoc found errors");
}

if (process.argv.includes("--dev")) {
  const server = await createServer(site);
  await server.listen();
  server.printUrls();
} else {
  // In a process of its own: a failed build leaves workers behind.
  const vitepress = path.join(path.dirname(createRequire(import.meta.url).resolve("vitepress/package.json")), "bin");
  const { status } = spawnSync(process.execPath, [path.join(vitepress, "vitepress.js"), "build", site], {
    cwd: root,
    stdio: "inherit",
  });
  if (status !== 0) {
    fail(`vitepress ended with ${status}`);
  }
  const { pages, links, problems } = checkSite(path.join(site, "dist"));
  if (problems.length > 0) {
    fail(`${problems.length} problems\n${problems.join("\n")}`);
  }
  process.stdout.write(`docs: ${pages} pages, ${links} links, all of them lead somewhere\n`);
}
