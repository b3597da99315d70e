/** Runs one schedule: at each step one of the jobs that are ready, chosen by a strategy. */
import { BugError } from "../base/index.ts";
import type { LockdepContext, LockdepTask } from "../sync/index.ts";
import { Access } from "./access.ts";
import type { Outcome, TracedStep, Violation } from "./outcome.ts";
import { AccessRecorder } from "./recorder.ts";
import type { ExploredGlobals, Host, Scenario, ScenarioRun } from "./scenario.ts";
import { type Job, type JobQueue, runAsync, setJobQueue, type TaskContext, TaskPromise } from "./task-promise.ts";

/**
 * Which of `count` jobs is next: 0 stays with the task that ran last, if it can run; the others are in the order in which
 * they became ready.
 */
export type Choose = (count: number, jobs: readonly Job[]) => number;

/** Who follows a schedule step by step. */
export interface StepObserver {
  before(job: Job, ready: readonly Job[], step: number): void;
  /** Answers whether the state after the step is a new one: others were checked in a former run. */
  after(job: Job): boolean;
}

/** How a schedule is run. */
export interface RunOptions {
  readonly choose: Choose;
  /** Keep what a printed schedule shows. */
  readonly trace?: boolean;
  /** Is told of each step of the tasks; what it records of them is what steps depend on each other through. */
  readonly observer?: StepObserver;
}

/** A run that takes more steps than this makes no progress. */
const MAX_STEPS = 20_000;

const MAX_JOBS_A_STEP = 2 ** 16;

const OUTSIDE: TaskContext = { task: -1, lockdep: undefined };

interface Timer {
  readonly at: number;
  readonly context: TaskContext;
  readonly work: () => void;
}

/** Steps, contexts and time of the run that is under way. One scheduler runs one schedule after the other. */
export class Scheduler implements JobQueue, Host {
  context: TaskContext = OUTSIDE;
  #ready: Job[] = [];
  #timers = new Set<Timer>();
  /** Timers without a delay, which are jobs. */
  readonly #soon = new Set<object>();
  #now = 0;
  step = 0;
  readonly recorder = new AccessRecorder();
  /** The identity of the job that runs, and how many it has made. */
  #maker = 0;
  #made = 0;
  /** Somebody follows the steps, and so has to know jobs again. */
  #observed = false;
  readonly #jobIds = new Map<number, number>();
  #tracing = false;
  #notes: string[] = [];
  #where: string | undefined;
  #violation: Violation | undefined;
  #rejected: TaskPromise<unknown>[] = [];

  /** What explored code gets in place of the engine's own. */
  readonly globals: ExploredGlobals = {
    Promise: TaskPromise,
    __async: runAsync,
    queueMicrotask: (work) => {
      TaskPromise.resolve().continueWith(work, undefined);
    },
    setTimeout: (work, ms) => {
      if (ms === 0) {
        // No time limit, but a turn of its own.
        const soon = {};
        this.#soon.add(soon);
        TaskPromise.resolve().continueWith(() => this.#soon.delete(soon) && work(), undefined);
        return soon;
      }
      const timer = { at: this.#now + ms, context: this.context, work };
      this.#timers.add(timer);
      return timer;
    },
    clearTimeout: (timer) => {
      this.#timers.delete(timer as Timer);
      this.#soon.delete(timer as object);
    },
    Date: { now: () => this.#now },
    __access: (object, key, mask) => this.recorder.access(object, key, mask),
    __count: (object, key, delta, tested, value) => this.recorder.count(object, key, delta, tested, value),
    __call: (object, method) => this.recorder.call(object, method),
    __keyed: (object, method) => this.recorder.keyed(object, method),
    __key: (key, mask) => this.recorder.key(key, mask),
    __iterate: (object) => this.recorder.access(object, "*", Access.Read),
    __walk: (object) => this.recorder.walk(object as Iterable<unknown>),
    __make: (object) => this.recorder.make(object),
    __aside: (object) => this.recorder.aside(object),
  };

  /** Follows tasks across `await`, for the explored code's lockdep. */
  readonly lockdep: LockdepContext = {
    current: () => {
      this.#see();
      return this.context.lockdep;
    },
    run: (lockdep, body) => this.#within({ task: this.context.task, lockdep }, body),
  };

  /** The runs to come begin anew: what jobs and objects were called before means nothing any more. */
  forget(): void {
    this.#jobIds.clear();
    this.recorder.forget();
  }

  nextJobId(): number {
    if (!this.#observed) {
      return 0;
    }
    const place = this.#maker * MAX_JOBS_A_STEP + this.#made++;
    let id = this.#jobIds.get(place);
    if (id === undefined) {
      id = this.#jobIds.size + 1;
      this.#jobIds.set(place, id);
    }
    return id;
  }

  captureStack(): string | undefined {
    this.#see();
    return this.#tracing ? new Error("at").stack : undefined;
  }

  /** Where the step is: the first place of it from which the explored code calls back. */
  #see(): void {
    if (this.#tracing && this.#where === undefined) {
      const { stack } = new Error("at");
      this.#where = stack?.includes("explored") === true ? stack : undefined;
    }
  }

  enable(job: Job): void {
    job.enabledBy = this.step;
    this.#ready.push(job);
  }

  madeRace(promise: object): void {
    this.recorder.make(promise);
  }

  races(promise: object): void {
    this.recorder.access(promise, "end", Access.Read | Access.Write);
  }

  rejectedAlone(promise: TaskPromise<unknown>): void {
    this.#rejected.push(promise);
  }

  note(text: () => string): void {
    if (this.#tracing) {
      this.#see();
      this.#notes.push(text());
    }
  }

  fail(invariant: string, message: string): void {
    this.#violation ??= { invariant, message, step: this.step };
  }

  /** For `setBugHandler` of the explored code. */
  readonly onBug = (bug: BugError): void => {
    this.fail(bug.invariant, bug.message.slice(bug.invariant.length + 2));
  };

  /** Runs a scenario once. After a violation the explored code's modules are in no defined state: load them anew. */
  run(scenario: Scenario, options: RunOptions): Outcome {
    this.#reset();
    this.#observed = options.observer !== undefined;
    this.recorder.reset(this.#observed);
    setJobQueue(this);
    const choices: number[] = [];
    const trace: TracedStep[] = [];
    let switches = 0;
    let world: ScenarioRun | undefined;
    try {
      world = this.#finishNow(scenario.start(this));
      const { tasks } = world;
      const running = tasks.map((task, index) => this.#spawn(task.name, index, () => task.run()));
      this.#tracing = options.trace === true;
      let last = -1;
      while (this.#violation === undefined) {
        const ready = this.#ready;
        if (ready.length === 0) {
          if (this.#fireTimer()) {
            continue;
          }
          break;
        }
        // The task that ran last comes first: a schedule of zeros has no switch that is not needed.
        const same = ready.findIndex((job) => job.context.task === last);
        if (same > 0) {
          ready.unshift(...ready.splice(same, 1));
        }
        let index = 0;
        if (ready.length > 1) {
          index = options.choose(ready.length, ready);
          choices.push(index);
          if (same >= 0 && index > 0) {
            switches++;
          }
        }
        const readyCount = ready.length;
        const [job] = ready.splice(index, 1);
        last = job.context.task;
        options.observer?.before(job, [job, ...ready], this.step + 1);
        this.#runJob(job);
        if (options.observer?.after(job) !== false) {
          this.#check(() => world?.check());
        }
        if (this.#tracing) {
          trace.push(this.#traced(job, readyCount, trace));
        }
        if (this.step > MAX_STEPS) {
          this.fail("I-CHK-2", `live-lock: ${MAX_STEPS} steps, and the tasks have not ended`);
        }
      }
      for (const [index, promise] of running.entries()) {
        if (this.#violation === undefined && promise.isPending) {
          this.fail("I-CHK-1", `deadlock: task "${tasks[index].name}" waits for something that never comes`);
        }
      }
      this.#tracing = false;
      if (this.#violation === undefined) {
        this.#finishNow(world.finish());
        this.#check(() => world?.checkEnd());
      }
    } catch (error) {
      this.#report(error);
    }
    const names = world?.tasks.map(({ name }) => name) ?? [];
    return { choices, steps: this.step, switches, violation: this.#violation, tasks: names, trace };
  }

  #reset(): void {
    this.context = OUTSIDE;
    this.#ready = [];
    this.#timers.clear();
    this.#soon.clear();
    this.#now = 0;
    this.step = 0;
    this.#maker = 0;
    this.#made = 0;
    this.#tracing = false;
    this.#notes = [];
    this.#where = undefined;
    this.#violation = undefined;
    this.#rejected = [];
  }

  /** A task begins with a job of its own, so that even its first step is a choice. */
  #spawn(name: string, task: number, body: () => Promise<void>): TaskPromise<unknown> {
    const lockdep: LockdepTask = { name, held: new Set() };
    return this.#within({ task, lockdep }, () => {
      const ended = TaskPromise.resolve().then(() => body());
      ended.continueWith(
        () => this.note(() => "ends"),
        (error) => this.#report(error),
      );
      return ended;
    });
  }

  /** Runs what is ready first come first served until nothing is, and gives the result. */
  #finishNow<T>(promise: Promise<T>): T {
    let result: { readonly value: T } | undefined;
    (promise as unknown as TaskPromise<T>).continueWith(
      (value) => {
        result = { value: value as T };
      },
      (error) => this.#report(error),
    );
    while (this.#violation === undefined) {
      const job = this.#ready.shift();
      if (job !== undefined) {
        this.#runJob(job);
      } else if (!this.#fireTimer()) {
        break;
      }
    }
    if (result === undefined) {
      throw new BugError("I-CHK-1", this.#violation?.message ?? "what comes before or after the tasks never ends");
    }
    return result.value;
  }

  #runJob(job: Job): void {
    this.step++;
    this.context = job.context;
    this.#maker = job.id;
    this.#made = 0;
    try {
      job.run();
    } catch (error) {
      this.#report(error);
    }
    this.context = OUTSIDE;
    if (this.#rejected.length > 0) {
      for (const promise of this.#rejected.splice(0)) {
        this.#afterwards(promise);
      }
    }
  }

  /** A rejection that nobody listens to when its step is over is a failure. */
  #afterwards(promise: TaskPromise<unknown>): void {
    if (!promise.handled) {
      this.#report(promise.reason);
    }
  }

  #check(body: () => void): void {
    try {
      body();
    } catch (error) {
      this.#report(error);
    }
  }

  #report(error: unknown): void {
    if (error instanceof Error && "invariant" in error) {
      this.onBug(error as BugError);
    } else {
      this.fail("I-CHK-3", `a task failed: ${error instanceof Error ? (error.stack ?? error.message) : String(error)}`);
    }
  }

  #within<T>(context: TaskContext, body: () => T): T {
    const former = this.context;
    this.context = context;
    try {
      return body();
    } finally {
      this.context = former;
    }
  }

  /** Time passes only when nothing else can happen: then only a time limit ended a wait, which is a failure. */
  #fireTimer(): boolean {
    let first: Timer | undefined;
    for (const timer of this.#timers) {
      if (first === undefined || timer.at < first.at) {
        first = timer;
      }
    }
    if (first === undefined) {
      return false;
    }
    this.fail("I-CHK-1", "deadlock: every task waits, and only a time limit would end it");
    return true;
  }

  #traced(job: Job, ready: number, before: readonly TracedStep[]): TracedStep {
    const { task } = job.context;
    const first = !before.some((step) => step.task === task);
    const held = [...(job.context.lockdep?.held ?? [])].filter(({ live }) => live).map(({ cls }) => cls);
    const notes = this.#notes;
    this.#notes = [];
    const where = this.#where ?? job.stack;
    this.#where = undefined;
    return { task, where, locks: [...new Set(held)], notes, first, ready };
  }
}
