/**
 * `npm test`: every check and every test, each step even when an earlier one failed, so that one run shows all there is.
 * Its last line is `N passed, N failed`: vitest's tests, and one for each other step.
 */
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const folder = mkdtempSync(path.join(tmpdir(), "pagemirror-test-"));
const results = path.join(folder, "vitest.json");
// The build stands before what reads dist.
const steps = ["types", "lint", "layers", "invariants", "build", "package", "bundle", "docs"];

const npmRun = (script, ...args) => {
  const started = performance.now();
  process.stdout.write(`\n--- ${script}\n`);
  const { status } = spawnSync("npm", ["run", "--silent", script, "--", ...args], {
    cwd: root,
    stdio: "inherit",
    env: { ...process.env, PAGEMIRROR_DIST_IS_FRESH: "1" },
  });
  return { script, ok: status === 0, seconds: (performance.now() - started) / 1000 };
};

/** vitest's own counts; a run that wrote none (a crash) is one failure. */
const readResults = (ok) => {
  try {
    const { numPassedTests, numFailedTests, numFailedTestSuites } = JSON.parse(readFileSync(results, "utf8"));
    // A file that fails to load has no failed test of its own, and an error outside every test has none either.
    const failed = Math.max(numFailedTests, numFailedTestSuites > 0 || !ok ? 1 : 0);
    return { passed: numPassedTests, failed };
  } catch {
    return { passed: 0, failed: 1 };
  }
};

const done = steps.map((script) => npmRun(script));
const tests = npmRun("test:run", "--reporter=default", "--reporter=json", `--outputFile.json=${results}`);
const counts = readResults(tests.ok);
rmSync(folder, { recursive: true, force: true });

process.stdout.write("\n");
for (const { script, ok, seconds } of [...done, tests]) {
  process.stdout.write(`${ok ? "ok    " : "FAILED"} ${script} (${seconds.toFixed(1)} s)\n`);
}
const passed = counts.passed + done.filter(({ ok }) => ok).length;
const failed = counts.failed + done.filter(({ ok }) => !ok).length;
process.stdout.write(`${passed} passed, ${failed} failed\n`);
process.exitCode = failed === 0 ? 0 : 1;
