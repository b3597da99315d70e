/** `pagemirror check`: explores interleavings of the core and of a driver. */
import { existsSync, readFileSync } from "node:fs";
import { SourceMap, type SourceMapPayload } from "node:module";
import { fileURLToPath } from "node:url";
import { KernelError } from "../base/index.ts";
import {
  type Exploration,
  Explorer,
  type Failure,
  type Instantiate,
  type Locate,
  renderSchedule,
} from "../check/index.ts";
import { UsageError } from "./errors.ts";

/** The options as commander gives them. */
export interface CheckArguments {
  readonly driver?: string;
  readonly schedules?: string;
  readonly seed?: string;
  readonly exhaustive?: string;
  readonly scenario?: readonly string[];
  readonly replay?: string;
  readonly list?: boolean;
  readonly json?: boolean;
}

const DEFAULT_SCHEDULES = 50;
const DEFAULT_SEED = 1;

function countOf(option: string, text: string | undefined, otherwise: number, least = 1): number {
  if (text === undefined) {
    return otherwise;
  }
  const value = Number(text);
  if (!/^\d+$/.test(text) || !Number.isSafeInteger(value) || value < least) {
    throw new UsageError(`--${option} takes a whole number from ${least} up, not ${JSON.stringify(text)}`);
  }
  return value;
}

/** A bundle of the build. @throws KernelError ENOENT */
async function loadBundle(
  name: "explored" | "recorded",
): Promise<{ readonly file: URL; readonly instantiate: Instantiate }> {
  const file = new URL(`../check/${name}.js`, import.meta.url);
  if (!existsSync(file)) {
    throw new KernelError(
      "ENOENT",
      "check",
      "the explored code was not built: run npm run build, then dist/cli/main.js",
    );
  }
  const { instantiate } = (await import(file.href)) as { instantiate: Instantiate };
  return { file, instantiate };
}

/** Finds places of a bundle in the sources. */
function locatorOf(bundle: URL): Locate {
  let map: SourceMap | undefined;
  return (stack) => {
    map ??= new SourceMap(JSON.parse(readFileSync(`${fileURLToPath(bundle)}.map`, "utf8")) as SourceMapPayload);
    return locateIn(map, stack);
  };
}

/** The first frame of a stack that is in the bundle and not in its locks, as `folder/file.ts:line`. */
export function locateIn(map: SourceMap, stack: string): string | undefined {
  let inLocks: string | undefined;
  for (const [, line, column] of stack.matchAll(/explored[^/\n]*:(\d+):(\d+)/g)) {
    const entry = map.findEntry(Number(line) - 1, Number(column) - 1);
    if ("originalSource" in entry && entry.originalSource !== undefined) {
      const source = entry.originalSource.replace(/^.*?(?:\/|^)(src|test)\//, (_, root: string) => {
        return root === "src" ? "" : `${root}/`;
      });
      const place = `${source}:${entry.originalLine + 1}`;
      if (!/^(?:base|sync)\//.test(source)) {
        return place;
      }
      inLocks ??= source.startsWith("sync/") ? place : undefined;
    }
  }
  return inLocks;
}

/** The scenario of these actions, in whichever order they are named. @throws UsageError */
function nameOf(explorer: Explorer, given: string): string {
  const parts = (name: string) => name.split("+").sort().join("+");
  const found = explorer.names.find((name) => parts(name) === parts(given));
  if (found === undefined) {
    throw new UsageError(
      `there is no scenario ${JSON.stringify(given)}: see pagemirror check --list, and with --driver webgpu`,
    );
  }
  return found;
}

/** The scenarios of one driver. @throws UsageError */
function namesOf(explorer: Explorer, driver = "dmirror"): readonly string[] {
  if (driver !== "dmirror" && driver !== "webgpu") {
    throw new UsageError(`there is no driver ${JSON.stringify(driver)} to explore: use dmirror or webgpu`);
  }
  return explorer.namesOf(driver);
}

function failureText(failure: Failure, locate: Locate): string {
  const { violation, schedule, found, outcome } = failure;
  return [
    `${violation.invariant}: ${violation.message}`,
    `found by schedule ${found}; the shortest has ${outcome.switches} switches and ${outcome.steps} steps:`,
    "",
    renderSchedule(outcome, locate),
    "",
    `again: pagemirror check --replay ${schedule}`,
    "",
  ].join("\n");
}

/** How each scenario is explored: at random, or as good as exhaustively. */
async function methodOf(
  options: CheckArguments,
  explorer: Explorer,
): Promise<(name: string) => Exploration & { readonly complete?: boolean }> {
  const schedules = countOf("schedules", options.schedules, DEFAULT_SCHEDULES);
  const seed = countOf("seed", options.seed, DEFAULT_SEED, 0);
  if (options.exhaustive === undefined) {
    return (name) => explorer.random(name, schedules, seed);
  }
  const limit = countOf("exhaustive", options.exhaustive, 0);
  const recorded = new Explorer((await loadBundle("recorded")).instantiate);
  return (name) => {
    const result = recorded.exhaust(name, limit);
    // The same choices lead the same way in the other bundle, which knows its places in the sources.
    const { failure } = result;
    return failure === undefined
      ? result
      : { ...result, failure: { ...failure, outcome: explorer.replay(failure.schedule) } };
  };
}

/** Explores as the arguments say. True when nothing is wrong. @throws UsageError; KernelError ENOENT without a build */
export async function checkCommand(options: CheckArguments): Promise<boolean> {
  const { file, instantiate } = await loadBundle("explored");
  const locate = locatorOf(file);
  const explorer = new Explorer(instantiate);
  const json = options.json === true;
  const ofDriver = namesOf(explorer, options.driver);
  if (options.list === true) {
    process.stdout.write(`${ofDriver.join("\n")}\n`);
    return true;
  }
  const names = options.scenario?.map((name) => nameOf(explorer, name)) ?? ofDriver;
  const explore = await methodOf(options, explorer);
  if (options.replay !== undefined) {
    return replayOne(explorer, options.replay, locate, json);
  }
  const started = performance.now();
  const sum = { schedules: 0, steps: 0, complete: 0 };
  const failures: { readonly scenario: string; readonly failure: Failure }[] = [];
  for (const name of names) {
    const { schedules, steps, complete, failure } = explore(name);
    sum.schedules += schedules;
    sum.steps += steps;
    sum.complete += complete === true ? 1 : 0;
    if (failure !== undefined) {
      failures.push({ scenario: name, failure });
      process.stdout.write(json ? "" : failureText(failure, locate));
    }
  }
  const seconds = (performance.now() - started) / 1000;
  const how =
    options.exhaustive === undefined
      ? { seed: countOf("seed", options.seed, DEFAULT_SEED, 0) }
      : { complete: sum.complete, limit: countOf("exhaustive", options.exhaustive, 0) };
  if (json) {
    const found = failures.map(({ scenario, failure }) => {
      return { scenario, schedule: failure.schedule, ...failure.violation };
    });
    const { schedules, steps } = sum;
    const report = {
      ok: found.length === 0,
      scenarios: names.length,
      schedules,
      steps,
      ...how,
      seconds,
      failures: found,
    };
    process.stdout.write(`${JSON.stringify(report)}\n`);
  } else {
    const depends = "seed" in how ? `seed ${how.seed}` : `${how.complete} of them to the end`;
    const verdict = failures.length === 0 ? "nothing is wrong" : `${failures.length} scenarios fail`;
    const speed = Math.round(sum.schedules / seconds);
    process.stdout.write(
      `${names.length} scenarios, ${sum.schedules} schedules, ${sum.steps} steps, ${depends}: ${verdict} (${speed} schedules/s)\n`,
    );
  }
  return failures.length === 0;
}

function replayOne(explorer: Explorer, schedule: string, locate: Locate, json: boolean): boolean {
  try {
    const outcome = explorer.replay(schedule);
    const { violation } = outcome;
    process.stdout.write(
      json
        ? `${JSON.stringify({ ok: violation === undefined, steps: outcome.steps, ...violation })}\n`
        : `${renderSchedule(outcome, locate)}\n`,
    );
    return violation === undefined;
  } catch (error) {
    throw error instanceof RangeError ? new UsageError(error.message) : error;
  }
}
