/**
 * `npm run check:nightly`: many schedules of every scenario, on all cores. Each scenario's result is a line of a file, so that
 * a run that was ended goes on where it was; another build, seed or number begins anew.
 *
 *     npm run check:nightly -- [--schedules N] [--exhaustive LIMIT] [--seed S] [--jobs N] [--scenario NAME]… [--results FILE]
 */
import { createHash } from "node:crypto";
import { appendFileSync, existsSync, mkdirSync, readFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { isMainThread, parentPort, Worker, workerData } from "node:worker_threads";

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const bundleOf = (exhaustive) =>
  path.join(root, "dist/check", exhaustive === undefined ? "explored.js" : "recorded.js");

async function loadExplorer(exhaustive) {
  const { Explorer } = await import("../dist/check/index.js");
  const { instantiate } = await import(bundleOf(exhaustive));
  return new Explorer(instantiate);
}

/** Explores the scenarios that it is sent, one after the other. */
async function work({ schedules, exhaustive, seed }) {
  const explorer = await loadExplorer(exhaustive);
  parentPort.on("message", (scenario) => {
    const started = performance.now();
    const result =
      exhaustive === undefined ? explorer.random(scenario, schedules, seed) : explorer.exhaust(scenario, exhaustive);
    const { steps, complete, failure } = result;
    const seconds = (performance.now() - started) / 1000;
    const failed = failure && { ...failure.violation, schedule: failure.schedule };
    parentPort.postMessage({ scenario, schedules: result.schedules, steps, complete, seconds, failed });
  });
}

const wholeNumber = (name, text) => {
  if (text !== undefined && !/^\d+$/.test(text)) {
    process.stderr.write(`check:nightly: --${name} takes a whole number, not ${JSON.stringify(text)}\n`);
    process.exit(2);
  }
  return text === undefined ? undefined : Number(text);
};

const duration = (seconds) => {
  const minutes = Math.round(seconds / 60);
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
};

async function main() {
  const { values } = parseArgs({
    options: {
      schedules: { type: "string", default: "100000" },
      exhaustive: { type: "string" },
      seed: { type: "string", default: "1" },
      jobs: { type: "string", default: String(availableParallelism()) },
      scenario: { type: "string", multiple: true },
      results: { type: "string", default: path.join(root, "node_modules/.cache/pagemirror-nightly.jsonl") },
    },
  });
  const schedules = wholeNumber("schedules", values.schedules);
  const exhaustive = wholeNumber("exhaustive", values.exhaustive);
  const seed = wholeNumber("seed", values.seed);
  const jobs = Math.max(1, wholeNumber("jobs", values.jobs));
  const build = createHash("sha256")
    .update(readFileSync(bundleOf(exhaustive)))
    .digest("hex")
    .slice(0, 16);
  const how = exhaustive === undefined ? { build, seed, limit: schedules } : { build, limit: exhaustive };
  const isSame = (line) => Object.entries(how).every(([key, value]) => line[key] === value);

  const known = existsSync(values.results)
    ? readFileSync(values.results, "utf8")
        .trim()
        .split("\n")
        .map((line) => JSON.parse(line))
        .filter(isSame)
    : [];
  const finished = new Map(known.map((line) => [line.scenario, line]));
  const { names } = await loadExplorer(exhaustive);
  const all = values.scenario ?? names;
  const wrong = all.find((name) => !names.includes(name));
  if (wrong !== undefined) {
    process.stderr.write(`check:nightly: there is no scenario ${JSON.stringify(wrong)}: see pagemirror check --list\n`);
    process.exit(2);
  }
  const queue = all.filter((name) => !finished.has(name));
  const before = all.length - queue.length;
  process.stdout.write(
    `${all.length} scenarios, ${before} of them done before, ${exhaustive === undefined ? `${schedules} schedules each, seed ${seed}` : `exhaustive up to ${exhaustive} schedules`}, ${jobs} threads\n`,
  );
  mkdirSync(path.dirname(values.results), { recursive: true });
  const started = performance.now();
  let done = 0;
  const total = queue.length;
  const report = (result) => {
    appendFileSync(values.results, `${JSON.stringify({ ...how, ...result })}\n`);
    finished.set(result.scenario, result);
    done++;
    const left = (((performance.now() - started) / 1000 / done) * (total - done)).toFixed(0);
    const what = result.failed
      ? `${result.failed.invariant}: ${result.failed.message}`
      : result.complete === false
        ? "not to the end"
        : "ok";
    process.stdout.write(
      `[${before + done}/${all.length}] ${result.scenario}: ${result.schedules} schedules in ${result.seconds.toFixed(1)} s, ${what}; about ${duration(Number(left))} left\n`,
    );
  };
  const runWorker = () =>
    new Promise((resolve, reject) => {
      const worker = new Worker(new URL(import.meta.url), { workerData: { schedules, exhaustive, seed } });
      const next = () => {
        const scenario = queue.shift();
        if (scenario === undefined) {
          void worker.terminate().then(resolve);
        } else {
          worker.postMessage(scenario);
        }
      };
      worker.on("message", (result) => {
        report(result);
        next();
      });
      worker.on("error", reject);
      next();
    });
  await Promise.all(Array.from({ length: Math.min(jobs, total) }, runWorker));

  const results = all.map((name) => finished.get(name));
  const failures = results.filter(({ failed }) => failed);
  for (const { scenario, failed } of failures) {
    process.stdout.write(
      `${scenario}: ${failed.invariant}: ${failed.message}\n  pagemirror check --replay ${failed.schedule}\n`,
    );
  }
  const sum = (key) => results.reduce((total, result) => total + result[key], 0);
  const complete =
    exhaustive === undefined ? "" : `, ${results.filter((result) => result.complete).length} of them to the end`;
  process.stdout.write(
    `${all.length} scenarios, ${sum("schedules")} schedules, ${sum("steps")} steps${complete}, ${duration(sum("seconds"))} of processor time: ${failures.length === 0 ? "nothing is wrong" : `${failures.length} scenarios fail`}\n`,
  );
  process.exitCode = failures.length === 0 ? 0 : 1;
}

await (isMainThread ? main() : work(workerData));
