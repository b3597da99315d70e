/** Many schedules of a scenario, and the shortest of those that fail. */
import { exhaust } from "./exhaustive.ts";
import type { Outcome, Violation } from "./outcome.ts";
import type { Explored, Instantiate, Scenario } from "./scenario.ts";
import { type Choose, Scheduler } from "./scheduler.ts";
import { randomStrategy, replay } from "./strategy.ts";

/** A schedule that fails, as short as it could be made. */
export interface Failure {
  readonly violation: Violation;
  /** What {@link Explorer.replay} takes: `SCENARIO:CHOICES`. */
  readonly schedule: string;
  /** The how manieth schedule failed first. */
  readonly found: number;
  /** The shortest one again, with everything that is printed. */
  readonly outcome: Outcome;
}

/** What came of many schedules of one scenario. */
export interface Exploration {
  readonly scenario: string;
  readonly schedules: number;
  readonly steps: number;
  readonly failure: Failure | undefined;
}

/** Runs that shrinking may take. */
const SHRINK_RUNS = 800;

/** Explores the scenarios of one bundle. */
export class Explorer {
  readonly #instantiate: Instantiate;
  readonly #scheduler = new Scheduler();
  #explored: Explored;

  constructor(instantiate: Instantiate) {
    this.#instantiate = instantiate;
    this.#explored = this.#load();
  }

  get names(): readonly string[] {
    return this.#explored.scenarios.map(({ name }) => name);
  }

  /** The scenarios in which a driver takes part. */
  namesOf(driver: "dmirror" | "webgpu"): readonly string[] {
    return this.#explored.scenarios.filter((scenario) => scenario.driver === driver).map(({ name }) => name);
  }

  /** Runs `schedules` random schedules of a scenario, or fewer, up to the first that fails. The seed decides them all. */
  random(name: string, schedules: number, seed: number): Exploration {
    let steps = 0;
    for (let i = 0; i < schedules; i++) {
      const outcome = this.#run(name, randomStrategy(Math.imul(seed + 1, 0x9e3779b1) + i, 3));
      steps += outcome.steps;
      if (outcome.violation !== undefined) {
        return { scenario: name, schedules: i + 1, steps, failure: this.#failure(name, outcome, i + 1) };
      }
    }
    return { scenario: name, schedules, steps, failure: undefined };
  }

  /**
   * Runs all schedules of a scenario but for those that must end alike, at most `limit`; or up to the first that fails. The
   * bundle has to be one that records accesses.
   */
  exhaust(name: string, limit: number): Exploration & { readonly complete: boolean } {
    const { schedules, complete, failed, steps } = exhaust(this.#scheduler, this.#scenario(name), limit);
    let failure: Failure | undefined;
    if (failed !== undefined) {
      this.#explored = this.#load();
      failure = this.#failure(name, failed, schedules);
    }
    return { scenario: name, schedules, steps, failure, complete };
  }

  /** Runs a printed schedule again. @throws RangeError when there is no such scenario or it is no schedule */
  replay(schedule: string): Outcome {
    const at = schedule.lastIndexOf(":");
    const digits = schedule.slice(at + 1);
    if (at < 0 || !/^[0-9a-z]*$/.test(digits)) {
      throw new RangeError(`${schedule} is no schedule: give what pagemirror check printed, SCENARIO:CHOICES`);
    }
    return this.#run(schedule.slice(0, at), replay(decodeChoices(digits)), true);
  }

  /** One run under a strategy of the caller's. */
  run(name: string, choose: Choose): Outcome {
    return this.#run(name, choose);
  }

  /** The shortest failing schedule that can be reached from one that fails, printed. */
  #failure(name: string, outcome: Outcome, found: number): Failure {
    const choices = this.#shrink(name, outcome);
    const shortest = this.#run(name, replay(choices), true);
    const { violation } = shortest;
    if (violation === undefined) {
      // Never without a fault in the explorer: the same choices give the same run.
      throw new Error(`the schedule ${name}:${encodeChoices(outcome.choices)} fails once and then no more`);
    }
    return { violation, schedule: `${name}:${encodeChoices(choices)}`, found, outcome: shortest };
  }

  /** Fewer switches first, then fewer steps; always the same invariant. */
  #shrink(name: string, first: Outcome): readonly number[] {
    let best = trimmed(first.choices);
    let cost = costOf(first);
    let runs = 0;
    const improves = (candidate: readonly number[]): boolean => {
      if (runs++ >= SHRINK_RUNS) {
        return false;
      }
      const outcome = this.#run(name, replay(candidate));
      const better =
        outcome.violation !== undefined &&
        outcome.violation.invariant === first.violation?.invariant &&
        costOf(outcome) < cost;
      if (better) {
        best = trimmed(outcome.choices);
        cost = costOf(outcome);
      }
      return better;
    };
    for (let improved = true; improved && runs < SHRINK_RUNS; ) {
      improved = false;
      for (const candidate of simpler(() => best)) {
        improved = improves(candidate) || improved;
      }
    }
    return best;
  }

  #run(name: string, choose: Choose, trace = false): Outcome {
    const outcome = this.#scheduler.run(this.#scenario(name), { choose, trace });
    if (outcome.violation !== undefined) {
      this.#explored = this.#load();
    }
    return outcome;
  }

  #scenario(name: string): Scenario {
    const found = this.#explored.scenarios.find((scenario) => scenario.name === name);
    if (found === undefined) {
      throw new RangeError(`there is no scenario ${JSON.stringify(name)}`);
    }
    return found;
  }

  #load(): Explored {
    const explored = this.#scheduler.recorder.load(() => this.#instantiate(this.#scheduler.globals));
    explored.connect(this.#scheduler.lockdep, this.#scheduler.onBug);
    return explored;
  }
}

/** Schedules that are simpler than the best one so far, which may change on the way. */
function* simpler(best: () => readonly number[]): Generator<readonly number[]> {
  for (let length = best().length >> 1; length > 0; length >>= 1) {
    for (let keep = best().length - length; keep >= 0; keep -= length) {
      yield best().slice(0, keep);
    }
  }
  for (let i = best().length - 1; i >= 0; i--) {
    if ((best()[i] ?? 0) !== 0) {
      yield best().with(i, 0);
    }
  }
  for (let i = best().length - 1; i >= 0; i--) {
    yield best().filter((_, at) => at !== i);
  }
  for (let i = best().length - 1; i >= 0; i--) {
    const choice = best()[i] ?? 0;
    if (choice > 1) {
      yield best().with(i, choice - 1);
    }
  }
}

function costOf(outcome: Outcome): number {
  return outcome.switches * 1e6 + outcome.steps * 100 + trimmed(outcome.choices).length;
}

function trimmed(choices: readonly number[]): readonly number[] {
  return choices.slice(0, choices.findLastIndex((choice) => choice !== 0) + 1);
}

/** A digit a choice, from 0 to z; the zeros at the end are left out. */
function encodeChoices(choices: readonly number[]): string {
  return trimmed(choices)
    .map((choice) => Math.min(choice, 35).toString(36))
    .join("");
}

/** The choices of {@link encodeChoices}. */
function decodeChoices(digits: string): readonly number[] {
  return [...digits].map((digit) => Number.parseInt(digit, 36));
}
