/**
 * All schedules of a scenario but for those that must end alike: dynamic partial-order reduction.
 *
 * Two steps that touch nothing in common, of which at least one writes, do the same in either order. After each run the
 * races in it are found: two steps that conflict, and that nothing else orders. Somewhere the second one has to come first,
 * so what leads to it is tried at the state before the first. When nothing is left to try, every schedule was run, or one
 * that differs from it only in the order of steps that do not conflict.
 *
 * (Source sets without sleep sets: Abdulla and others, Optimal Dynamic Partial Order Reduction, 2014. Some schedules that
 * are alike are therefore run more than once; none that matters is left out, as far as accesses are seen: those to objects
 * are, those to variables that closures of two tasks share are not.)
 */
import { type Accesses, conflict } from "./recorder.ts";
import type { Scenario } from "./scenario.ts";
import type { Outcome, Scheduler, StepObserver } from "./scheduler.ts";
import type { Job } from "./task-promise.ts";

/** What came of it. */
export interface Exhaustion {
  readonly schedules: number;
  /** Steps of all of them. */
  readonly steps: number;
  /** Whether nothing was left to try. */
  readonly complete: boolean;
  /** The run that failed, if one did: the last one. */
  readonly failed: Outcome | undefined;
}

/** A state on the way to the present one, and what was and will be tried there. */
interface Node {
  chosen: number;
  readonly tried: Set<number>;
  readonly wanted: Set<number>;
}

interface Step {
  readonly job: number;
  readonly ready: ReadonlySet<number>;
  /** Steps of this run that made the job and made it ready; below 0 for what came before the tasks. */
  readonly causes: readonly number[];
  readonly accesses: Accesses;
}

/** Steps before each step that have to be, as bits. */
class Before {
  readonly #words: Uint32Array;

  constructor(steps: number) {
    this.#words = new Uint32Array((steps + 31) >> 5);
  }

  has(step: number): boolean {
    return ((this.#words[step >> 5] ?? 0) & (1 << (step & 31))) !== 0;
  }

  add(step: number, before: Before): void {
    for (let i = 0; i < this.#words.length; i++) {
      this.#words[i] = (this.#words[i] ?? 0) | (before.#words[i] ?? 0);
    }
    this.#words[step >> 5] = (this.#words[step >> 5] ?? 0) | (1 << (step & 31));
  }
}

/** Runs all schedules that may end differently, at most `limit`. The scenario must be of a bundle that records accesses. */
export function exhaust(scheduler: Scheduler, scenario: Scenario, limit: number): Exhaustion {
  const nodes: Node[] = [];
  let allSteps = 0;
  for (let schedules = 1; ; schedules++) {
    const { outcome, steps } = runOnce(scheduler, scenario, nodes);
    allSteps += outcome.steps;
    if (outcome.violation !== undefined) {
      return { schedules, steps: allSteps, complete: false, failed: outcome };
    }
    addRaces(nodes, steps);
    while (nodes.length > 0 && next(nodes[nodes.length - 1]) === undefined) {
      nodes.pop();
    }
    const last = nodes.at(-1);
    if (last === undefined) {
      return { schedules, steps: allSteps, complete: true, failed: undefined };
    }
    if (schedules >= limit) {
      return { schedules, steps: allSteps, complete: false, failed: undefined };
    }
    last.chosen = next(last) ?? last.chosen;
    last.tried.add(last.chosen);
  }
}

/** What is still to be tried at a state. */
function next(node: Node | undefined): number | undefined {
  for (const job of node?.wanted ?? []) {
    if (node?.tried.has(job) === false) {
      return job;
    }
  }
  return undefined;
}

function runOnce(
  scheduler: Scheduler,
  scenario: Scenario,
  nodes: Node[],
): { readonly outcome: Outcome; readonly steps: readonly Step[] } {
  const steps: Step[] = [];
  let first = 0;
  let ready: ReadonlySet<number> = new Set();
  const observer: StepObserver = {
    before(job, jobs, step) {
      first = steps.length === 0 ? step : first;
      ready = new Set(jobs.map(({ id }) => id));
      if (nodes[steps.length] === undefined) {
        nodes.push({ chosen: job.id, tried: new Set([job.id]), wanted: new Set([job.id]) });
      }
      scheduler.recorder.start();
    },
    after(job) {
      const causes = [job.createdBy - first, job.enabledBy - first].filter((step) => step >= 0);
      steps.push({ job: job.id, ready, causes, accesses: scheduler.recorder.stop() });
    },
  };
  const choose = (_count: number, jobs: readonly Job[]): number => {
    const chosen = nodes[steps.length]?.chosen;
    const index = chosen === undefined ? 0 : jobs.findIndex(({ id }) => id === chosen);
    if (index < 0) {
      throw new Error(`${scenario.name}: the same choices gave another run; something in it is not under control`);
    }
    return index;
  };
  return { outcome: scheduler.run(scenario, { choose, observer }), steps };
}

/** Notes, for each race of a run, what has to be tried where. */
function addRaces(nodes: readonly Node[], steps: readonly Step[]): void {
  const before: Before[] = [];
  for (const [j, step] of steps.entries()) {
    const own = new Before(steps.length);
    for (const cause of step.causes) {
      own.add(cause, before[cause] ?? own);
    }
    // The latest first: what an earlier conflict orders through a later one is no race of its own.
    for (let i = j - 1; i >= 0; i--) {
      if (!own.has(i) && conflict(steps[i]?.accesses ?? step.accesses, step.accesses)) {
        reverse(nodes, steps, before, i, j);
        own.add(i, before[i] ?? own);
      }
    }
    before.push(own);
  }
}

/** At the state before step i: begin what leads to step j without it. */
function reverse(
  nodes: readonly Node[],
  steps: readonly Step[],
  before: readonly Before[],
  i: number,
  j: number,
): void {
  const node = nodes[i];
  const ready = steps[i]?.ready;
  if (node === undefined || ready === undefined) {
    return;
  }
  const between: number[] = [];
  const firsts: number[] = [];
  for (let k = i + 1; k <= j; k++) {
    if (k < j && before[k]?.has(i) === true) {
      continue;
    }
    const order = k === j ? undefined : before[k];
    const isFirst =
      k === j ? !between.some((e) => reaches(steps, before, e, j)) : !between.some((e) => order?.has(e) === true);
    if (isFirst) {
      firsts.push(steps[k]?.job ?? -1);
    }
    between.push(k);
  }
  const possible = firsts.filter((job) => ready.has(job));
  if (possible.some((job) => node.wanted.has(job))) {
    return;
  }
  const [job] = possible;
  if (job !== undefined) {
    node.wanted.add(job);
    return;
  }
  // Nothing of it can begin here: try everything.
  for (const other of ready) {
    node.wanted.add(other);
  }
}

/** Whether step e has to come before step j, of which the order is not known as a whole yet. */
function reaches(steps: readonly Step[], before: readonly Before[], e: number, j: number): boolean {
  const step = steps[j];
  if (step === undefined) {
    return false;
  }
  for (let k = e; k < j; k++) {
    const leads = k === e || before[k]?.has(e) === true;
    if (leads && (step.causes.includes(k) || conflict(steps[k]?.accesses ?? step.accesses, step.accesses))) {
      return true;
    }
  }
  return false;
}
