/**
 * `npm run check:nightly`: explores every scenario, on all cores. All schedules of a scenario that may end differently, when
 * `--schedules` are enough for them, and some random ones, which see states between steps that may change places too; else
 * that many, and as many random ones. Scenarios of the WebGPU driver, which look at the bytes of pages, are explored at random
 * only: the reduction does not see bytes.
 *
 * Each scenario's result is a line of a file, so that a run that was ended goes on where it was; another build begins anew,
 * and so do, for scenarios that were not exhausted, another seed and more schedules.
 *
 *     npm run check:nightly -- [--schedules N] [--seed S] [--jobs N] [--scenario NAME]… [--results FILE] [--json]
 */
import { createHash } from "node:crypto";
import { appendFileSync, existsSync, mkdirSync, readdirSync, readFileSync } from "node:fs";
import { availableParallelism } from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { isMainThread, parentPort, Worker, workerData } from "node:worker_threads";

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const built = path.join(root, "dist/check");

/** Random schedules of a scenario that is exhausted. */
const BESIDE = 1000;

const NONE = { schedules: 0, steps: 0, complete: false, failure: undefined };

/** Short-lived objects have room: a sixth less time. */
const resourceLimits = { maxYoungGenerationSizeMb: 128 };

async function loadExplorer(bundle) {
  const { Explorer } = await import("../dist/check/index.js");
  const { instantiate } = await import(path.join(built, bundle));
  return new Explorer(instantiate);
}

/** Explores the scenarios that it is sent, one after the other. */
async function work({ schedules, seed }) {
  const [explored, recorded] = await Promise.all(["explored.js", "recorded.js"].map(loadExplorer));
  const looksAtBytes = new Set(explored.namesOf("webgpu"));
  parentPort.on("message", (scenario) => {
    const started = performance.now();
    const all = looksAtBytes.has(scenario) ? NONE : recorded.exhaust(scenario, schedules);
    const some = all.failure ? undefined : explored.random(scenario, all.complete ? BESIDE : schedules, seed);
    const failure = all.failure ?? some?.failure;
    parentPort.postMessage({
      scenario,
      complete: all.complete,
      exhaustive: all.schedules,
      random: some?.schedules ?? 0,
      steps: all.steps + (some?.steps ?? 0),
      seconds: (performance.now() - started) / 1000,
      failed: failure && { ...failure.violation, schedule: failure.schedule },
    });
  });
}

const misuse = (message) => {
  process.stderr.write(`check:nightly: ${message}\n`);
  process.exit(2);
};

const wholeNumber = (name, text) =>
  /^\d+$/.test(text) ? Number(text) : misuse(`--${name} takes a whole number, not ${JSON.stringify(text)}`);

const duration = (seconds) => {
  const minutes = Math.round(seconds / 60);
  return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
};

function optionsOf() {
  try {
    return parseArgs({
      options: {
        schedules: { type: "string", default: "100000" },
        seed: { type: "string", default: "1" },
        jobs: { type: "string", default: String(availableParallelism()) },
        scenario: { type: "string", multiple: true },
        results: { type: "string", default: path.join(root, "node_modules/.cache/pagemirror-nightly.jsonl") },
        json: { type: "boolean", default: false },
      },
    }).values;
  } catch (error) {
    return misuse(error.message);
  }
}

/** The explorer and what it explores. */
function buildOf() {
  const hash = createHash("sha256");
  for (const file of readdirSync(built).filter((name) => name.endsWith(".js"))) {
    hash.update(readFileSync(path.join(built, file)));
  }
  return hash.digest("hex").slice(0, 16);
}

/** Whole lines of the file; the last one may have been cut off. */
function readResults(file) {
  return (existsSync(file) ? readFileSync(file, "utf8").split("\n") : []).flatMap((line) => {
    try {
      return [JSON.parse(line)];
    } catch {
      return [];
    }
  });
}

/** Scenarios of few tasks first. */
const tasksOf = (name) => name.split("+").length;

async function main() {
  const values = optionsOf();
  const schedules = wholeNumber("schedules", values.schedules);
  const seed = wholeNumber("seed", values.seed);
  const jobs = Math.max(1, wholeNumber("jobs", values.jobs));
  if (!existsSync(built)) {
    misuse("nothing is built: npm run build");
  }
  const say = (text) => void (values.json ? process.stderr : process.stdout).write(text);
  const how = { build: buildOf(), seed, limit: schedules };
  const counts = (line) =>
    line.build === how.build && (line.complete || line.failed || (line.seed === seed && line.limit >= schedules));
  const finished = new Map(
    readResults(values.results)
      .filter(counts)
      .map((line) => [line.scenario, line]),
  );
  const { names } = await loadExplorer("explored.js");
  const all = [...(values.scenario ?? names)].sort((a, b) => tasksOf(a) - tasksOf(b));
  const wrong = all.find((name) => !names.includes(name));
  if (wrong !== undefined) {
    misuse(`there is no scenario ${JSON.stringify(wrong)}: see pagemirror check --list`);
  }
  const queue = all.filter((name) => !finished.has(name));
  const before = all.length - queue.length;
  const total = queue.length;
  say(
    `${all.length} scenarios, ${before} of them done before, up to ${schedules} schedules each, seed ${seed}, ${jobs} threads\n`,
  );
  mkdirSync(path.dirname(values.results), { recursive: true });
  const started = performance.now();
  let done = 0;
  const report = (result) => {
    // A line of its own, also after one that was cut off.
    appendFileSync(values.results, `\n${JSON.stringify({ ...how, ...result })}\n`);
    finished.set(result.scenario, result);
    done++;
    const left = ((performance.now() - started) / 1000 / done) * (total - done);
    const { scenario, complete, exhaustive, random, seconds, failed } = result;
    const inOrder = exhaustive === 0 ? "" : `${exhaustive} schedules, ${complete ? "all of them" : "not all"}, and `;
    const wrong = failed ? `; ${failed.invariant}: ${failed.message}` : "";
    say(
      `[${before + done}/${all.length}] ${scenario}: ${inOrder}${random} random ones in ${seconds.toFixed(1)} s${wrong}; about ${duration(left)} left\n`,
    );
  };
  const runWorker = () =>
    new Promise((resolve, reject) => {
      const worker = new Worker(new URL(import.meta.url), { workerData: { schedules, seed }, resourceLimits });
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
  const sum = (key) => results.reduce((sofar, result) => sofar + result[key], 0);
  const complete = results.filter((result) => result.complete).length;
  const [exhaustive, random, steps, seconds] = ["exhaustive", "random", "steps", "seconds"].map(sum);
  process.exitCode = failures.length === 0 ? 0 : 1;
  if (values.json) {
    const found = failures.map(({ scenario, failed }) => ({ scenario, ...failed }));
    const report = { ok: found.length === 0, scenarios: all.length, complete, exhaustive, random, steps };
    process.stdout.write(`${JSON.stringify({ ...report, ...how, seconds, failures: found })}\n`);
    return;
  }
  for (const { scenario, failed } of failures) {
    say(`${scenario}: ${failed.invariant}: ${failed.message}\n  pagemirror check --replay ${failed.schedule}\n`);
  }
  say(
    `${all.length} scenarios, ${complete} of them exhausted: ${exhaustive} schedules in order, ${random} random ones, ${steps} steps, ${duration(seconds)} of processor time: ${failures.length === 0 ? "nothing is wrong" : `${failures.length} scenarios fail`}\n`,
  );
}

await (isMainThread ? main() : work(workerData));
