/** `pagemirror check`: explores interleavings of the core and of the reference driver. */
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
  readonly schedules?: string;
  readonly seed?: string;
  readonly scenario?: readonly string[];
  readonly replay?: string;
  readonly list?: boolean;
  readonly json?: boolean;
}

const DEFAULT_SCHEDULES = 50;

function countOf(option: string, text: string | undefined, otherwise: number): number {
  if (text === undefined) {
    return otherwise;
  }
  const value = Number(text);
  if (!/^\d+$/.test(text) || !Number.isSafeInteger(value)) {
    throw new UsageError(`--${option} takes a whole number, not ${JSON.stringify(text)}`);
  }
  return value;
}

/** The bundle of the build, and what finds its places in the sources. */
export async function loadExplored(): Promise<{ readonly instantiate: Instantiate; readonly locate: Locate }> {
  const bundle = new URL("../check/explored.js", import.meta.url);
  if (!existsSync(bundle)) {
    throw new KernelError(
      "ENOENT",
      "check",
      "the explored code was not built: run npm run build, then dist/cli/main.js",
    );
  }
  const { instantiate } = (await import(bundle.href)) as { instantiate: Instantiate };
  let map: SourceMap | undefined;
  return {
    instantiate,
    locate(stack) {
      map ??= new SourceMap(JSON.parse(readFileSync(`${fileURLToPath(bundle)}.map`, "utf8")) as SourceMapPayload);
      return locateIn(map, stack);
    },
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
    throw new UsageError(`there is no scenario ${JSON.stringify(given)}: see pagemirror check --list`);
  }
  return found;
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

/** Explores as the arguments say. True when nothing is wrong. @throws UsageError */
export async function checkCommand(options: CheckArguments): Promise<boolean> {
  const schedules = countOf("schedules", options.schedules, DEFAULT_SCHEDULES);
  const seed = countOf("seed", options.seed, 1);
  const { instantiate, locate } = await loadExplored();
  const explorer = new Explorer(instantiate);
  const print = (text: string) => process.stdout.write(text);
  if (options.list === true) {
    print(`${explorer.names.join("\n")}\n`);
    return true;
  }
  const names = options.scenario?.map((name) => nameOf(explorer, name)) ?? explorer.names;
  if (options.replay !== undefined) {
    return replayOne(explorer, options.replay, locate, options.json === true);
  }
  const started = performance.now();
  const failures: Exploration[] = [];
  let run = 0;
  let steps = 0;
  for (const name of names) {
    const result = explorer.random(name, schedules, seed);
    run += result.schedules;
    steps += result.steps;
    if (result.failure !== undefined) {
      failures.push(result);
      if (options.json !== true) {
        print(failureText(result.failure, locate));
      }
    }
  }
  const seconds = (performance.now() - started) / 1000;
  if (options.json === true) {
    const found = failures.map(({ scenario, failure }) => ({
      scenario,
      invariant: failure?.violation.invariant,
      message: failure?.violation.message,
      schedule: failure?.schedule,
    }));
    print(
      `${JSON.stringify({ ok: found.length === 0, scenarios: names.length, schedules: run, steps, seed, seconds, failures: found })}\n`,
    );
  } else {
    const speed = Math.round(run / seconds);
    const verdict = failures.length === 0 ? "nothing is wrong" : `${failures.length} scenarios fail`;
    print(
      `${names.length} scenarios, ${run} schedules, ${steps} steps, seed ${seed}: ${verdict} (${speed} schedules/s)\n`,
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
