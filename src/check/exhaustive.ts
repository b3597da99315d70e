/**
 * All schedules of a scenario but for those that must end alike: dynamic partial-order reduction.
 *
 * Two steps that touch nothing in common, of which at least one changes it, do the same in either order. After each run the
 * races in it are found: two steps that conflict, and that nothing else orders. Somewhere the second one has to come first,
 * so what leads to it is tried at the state before the first. What was tried at a state sleeps in the states after it until
 * a step comes that conflicts with it: before, it would only lead where it led already. When nothing is left to try, every
 * schedule was run, or one that differs from it only in the order of steps that do not conflict.
 *
 * (Source sets and sleep sets: Abdulla and others, Optimal Dynamic Partial Order Reduction, 2014. None that matters is left
 * out, as far as accesses are seen: all but those to the bytes of pages. What a state between two such steps looks like in
 * their other order is not seen either; what breaks an invariant there and leaves no trace is for random schedules.)
 */
import { type Accesses, conflict } from "./access.ts";
import type { Outcome } from "./outcome.ts";
import { RaceFinder, type Step } from "./races.ts";
import type { Scenario } from "./scenario.ts";
import type { Scheduler, StepObserver } from "./scheduler.ts";
import type { Job } from "./task-promise.ts";

/** What came of it. */
export interface Exhaustion {
  readonly schedules: number;
  /** Those of them that turned out to end like another one. */
  readonly alike: number;
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
  /** What does nothing new here, and what it does. Gets what was tried. */
  readonly asleep: Map<number, Accesses>;
  /** What is to be tried, and the jobs that it is tried for. */
  readonly wanted: Map<number, readonly number[]>;
}

/** Runs all schedules that may end differently, at most `limit`. The scenario must be of a bundle that records accesses. */
export function exhaust(scheduler: Scheduler, scenario: Scenario, limit: number): Exhaustion {
  return new Search(scheduler, scenario).run(limit);
}

class Search {
  readonly #scheduler: Scheduler;
  readonly #scenario: Scenario;
  readonly #nodes: Node[] = [];
  #races = new RaceFinder();
  /** Steps of the present run, until it turned out to be like another one. */
  #steps: Step[] = [];
  #firstStep = 0;
  /** Objects made before the first step. */
  #before: number | undefined;
  #alike = false;
  /** The run is not the one that it should be. */
  #strays = false;
  /** What the present run follows after its last choice, as far as it can. */
  #guide: number[] = [];
  #ready: ReadonlySet<number> = new Set();
  /** Steps that the present run has in common with the one before. */
  #known: readonly Step[] = [];

  constructor(scheduler: Scheduler, scenario: Scenario) {
    this.#scheduler = scheduler;
    this.#scenario = scenario;
  }

  run(limit: number): Exhaustion {
    this.#scheduler.forget();
    const { recorder } = this.#scheduler;
    let alike = 0;
    let steps = 0;
    for (let schedules = 1; ; schedules++) {
      const outcome = this.#runOnce();
      steps += outcome.steps;
      alike += this.#alike ? 1 : 0;
      if (this.#strays) {
        throw new Error(`${this.#scenario.name}: the same choices gave another run; something is not under control`);
      }
      if (outcome.violation !== undefined) {
        return { schedules, alike, steps, complete: false, failed: outcome };
      }
      if (recorder.unnamed !== undefined) {
        throw new Error(`${this.#scenario.name}: tasks share ${recorder.unnamed}, and nobody told when it was made`);
      }
      this.#addRaces();
      const wrong = this.#races.countThatMayBeZero(this.#steps);
      if (wrong !== undefined && schedules < limit) {
        // What was left out may matter: once more from the beginning.
        recorder.mayBeZero(wrong);
        this.#races = new RaceFinder();
        this.#nodes.length = 0;
        this.#known = [];
        this.#guide = [];
        continue;
      }
      const more = this.#next();
      if (more === undefined || schedules >= limit) {
        const complete = more === undefined && wrong === undefined;
        return { schedules, alike, steps, complete, failed: undefined };
      }
      this.#known = this.#steps.slice(0, more);
    }
  }

  #runOnce(): Outcome {
    this.#steps = [];
    this.#alike = false;
    const { recorder } = this.#scheduler;
    const observer: StepObserver = {
      before: (job, jobs, step) => {
        const at = this.#steps.length;
        if (at === 0) {
          this.#firstStep = step;
          this.#before ??= recorder.made;
          this.#mustBe(this.#before === recorder.made);
        }
        if (this.#nodes[at] === undefined && !this.#alike) {
          this.#reach(at, job.id);
        }
        if (at < this.#known.length) {
          recorder.startAgain(job.id, job.context.task);
        } else if (!this.#alike) {
          this.#ready = new Set(jobs.map(({ id }) => id));
          recorder.start(job.id, job.context.task);
        }
      },
      after: (job) => {
        const known = this.#known[this.#steps.length];
        if (known !== undefined) {
          recorder.stop();
          this.#mustBe(recorder.made === known.made);
          this.#steps.push(known);
          return false;
        }
        if (!this.#alike) {
          const causes = [job.createdBy, job.enabledBy].map((step) => step - this.#firstStep);
          this.#steps.push({
            job: job.id,
            ready: this.#ready,
            causes: causes.filter((step) => step >= 0),
            accesses: recorder.stop(),
            counts: recorder.counts,
            made: recorder.made,
          });
        }
        return true;
      },
    };
    return this.#scheduler.run(this.#scenario, { choose: (_count, jobs) => this.#choose(jobs), observer });
  }

  #mustBe(same: boolean): void {
    this.#strays ||= !same;
  }

  #choose(jobs: readonly Job[]): number {
    const at = this.#steps.length;
    const known = this.#nodes[at];
    if (known !== undefined) {
      const index = jobs.findIndex(({ id }) => id === known.chosen);
      this.#mustBe(index >= 0);
      return Math.max(0, index);
    }
    if (this.#alike) {
      return 0;
    }
    const asleep = this.#asleepAt(at);
    const wish = this.#guide.findIndex((wanted) => !asleep.has(wanted) && jobs.some(({ id }) => id === wanted));
    if (wish >= 0) {
      const [wanted] = this.#guide.splice(wish, 1);
      return jobs.findIndex(({ id }) => id === wanted);
    }
    return Math.max(
      0,
      jobs.findIndex(({ id }) => !asleep.has(id)),
    );
  }

  /** A state that no run was in, and what goes on there. */
  #reach(at: number, job: number): void {
    const asleep = this.#asleepAt(at);
    if (asleep.has(job)) {
      this.#alike = true;
    } else {
      this.#nodes.push({ chosen: job, asleep, wanted: new Map([[job, []]]) });
    }
  }

  /** What sleeps before the last step and goes on sleeping after it. */
  #asleepAt(at: number): Map<number, Accesses> {
    const asleep = new Map<number, Accesses>();
    const before = this.#nodes[at - 1];
    if (before !== undefined) {
      const { accesses } = this.#steps[at - 1];
      for (const [job, does] of before.asleep) {
        if (job !== before.chosen && !conflict(does, accesses)) {
          asleep.set(job, does);
        }
      }
    }
    return asleep;
  }

  /** Goes back to the last state where something is left to try, and chooses it. Answers which state that is. */
  #next(): number | undefined {
    for (let at = this.#nodes.length - 1; at >= 0; at--) {
      const node = this.#nodes[at];
      node.asleep.set(node.chosen, this.#steps[at].accesses);
      for (const [job, instead] of node.wanted) {
        if (!node.asleep.has(job)) {
          node.chosen = job;
          this.#guide = instead.filter((other) => other !== job);
          this.#nodes.length = at + 1;
          return at;
        }
      }
    }
    return undefined;
  }

  /** Notes, for each race of the run, what has to be tried where. */
  #addRaces(): void {
    for (const { at, instead, initials } of this.#races.find(this.#steps, this.#known.length)) {
      const node = this.#nodes[at];
      if (initials.some((job) => node.wanted.has(job) || node.asleep.has(job))) {
        continue;
      }
      const { ready } = this.#steps[at];
      const job = initials.find((initial) => ready.has(initial));
      if (job !== undefined) {
        node.wanted.set(job, instead);
        continue;
      }
      // Nothing of it can begin here: try everything.
      for (const other of ready) {
        node.wanted.set(other, []);
      }
    }
  }
}
