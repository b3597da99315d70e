/**
 * `npm run bench [-- --json] [-- --only NAME]`: runs the benchmarks of this folder, or one of them, or a part of one that has
 * parts (`svm.gather`). Figures of one run are compared with each other; a single one says something about the machine too.
 */
import { existsSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";

const MODULES = ["mm", "hmm", "migrate", "bind", "svm", "check", "uffd", "trace", "bundle"];

const usage = `usage: npm run bench -- [--json] [--only ${MODULES.join("|")}[.PART]]`;

const fail = (message) => {
  process.stderr.write(`bench: ${message}\n`);
  process.exit(2);
};

const fileOf = (name) => new URL(`./${name}.mjs`, import.meta.url);

function options() {
  try {
    const { values } = parseArgs({
      options: { json: { type: "boolean", default: false }, only: { type: "string" }, help: { type: "boolean" } },
    });
    return values;
  } catch (error) {
    return fail(`${error.message}\n${usage}`);
  }
}

const { json, only, help } = options();
if (help) {
  process.stdout.write(`${usage}\n`);
  process.exit(0);
}
if (!existsSync(new URL("../dist/", import.meta.url))) {
  fail("there is no dist: run npm run build first");
}
const [module, part] = only?.split(".") ?? [];
const names = MODULES.filter(
  (name) => existsSync(fileURLToPath(fileOf(name))) && (module === undefined || module === name),
);
if (names.length === 0) {
  fail(`there is no benchmark ${JSON.stringify(only)}\n${usage}`);
}

const metrics = [];
for (const name of names) {
  const benchmark = await import(fileOf(name).href);
  if (part !== undefined && benchmark.parts?.[part] === undefined) {
    fail(`there is no part ${JSON.stringify(part)} of ${name}: ${Object.keys(benchmark.parts ?? {}).join(", ")}`);
  }
  const found = part === undefined ? await benchmark.metrics() : await benchmark.parts[part]();
  metrics.push(...found);
  if (!json) {
    for (const { name: metric, value, unit } of found) {
      const figure = Math.abs(value) >= 100 ? value.toFixed(0) : value.toPrecision(3);
      process.stdout.write(`${metric.padEnd(34)} ${figure.padStart(10)} ${unit}\n`);
    }
  }
}
// A GPU that a benchmark opened keeps the process alive.
process.stdout.write(json ? `${JSON.stringify({ metrics }, null, 2)}\n` : "", () => process.exit(0));
