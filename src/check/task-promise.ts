/**
 * Promises whose continuations run when a scheduler says so.
 *
 * Explored code has these in place of the engine's own, and its async functions are generators over them. So a whole
 * schedule is one synchronous run, and every continuation of an `await` or a `then` is a job that the scheduler may put off.
 * What is not user code (adoption of another promise, `Promise.all`) happens at once: it would only multiply schedules.
 */
import type { LockdepTask } from "../sync/index.ts";

/** Which of the scenario's tasks something belongs to, and what lockdep knows of it. */
export interface TaskContext {
  /** Index of the task; -1 outside of all. */
  readonly task: number;
  readonly lockdep: LockdepTask | undefined;
}

/** A continuation. */
export interface Job {
  readonly context: TaskContext;
  /** Its place among the jobs of a run, the same in every run that begins alike: who made it, and the how manieth. 0 unless somebody follows the steps. */
  readonly id: number;
  /** Where it was made; only while schedules are printed. */
  readonly stack: string | undefined;
  /** The steps that made it, and made it ready. */
  readonly createdBy: number;
  enabledBy: number;
  run(): void;
}

/** Where jobs go. */
export interface JobQueue {
  readonly context: TaskContext;
  readonly step: number;
  nextJobId(): number;
  captureStack(): string | undefined;
  /** The job may run from now on. */
  enable(job: Job): void;
  /** A promise was made whose end may come from several sides: who comes first decides. */
  madeRace(promise: object): void;
  /** Somebody would end such a promise. */
  races(promise: object): void;
  /** A promise was rejected while nobody listened; `handled` tells whether somebody does by the end. */
  rejectedAlone(promise: TaskPromise<unknown>): void;
}

type State = 0 | 1 | 2;
const PENDING = 0;
const FULFILLED = 1;
const REJECTED = 2;

type Handler = ((value: unknown) => unknown) | undefined;

/** What happens when a promise settles: a job, or something done at once. */
interface Reaction {
  settled(state: State, value: unknown): void;
}

let queue: JobQueue;

/** Sets where jobs go, for all promises from now on. One run at a time. */
export function setJobQueue(next: JobQueue): void {
  queue = next;
}

class ReactionJob implements Job, Reaction {
  readonly context: TaskContext = queue.context;
  readonly id: number = queue.nextJobId();
  readonly stack: string | undefined = queue.captureStack();
  readonly createdBy = queue.step;
  enabledBy = -1;
  readonly #onFulfilled: Handler;
  readonly #onRejected: Handler;
  readonly #derived: TaskPromise<unknown> | undefined;
  #state: State = PENDING;
  #value: unknown;

  constructor(onFulfilled: Handler, onRejected: Handler, derived: TaskPromise<unknown> | undefined) {
    this.#onFulfilled = onFulfilled;
    this.#onRejected = onRejected;
    this.#derived = derived;
  }

  settled(state: State, value: unknown): void {
    const handler = state === FULFILLED ? this.#onFulfilled : this.#onRejected;
    if (handler === undefined) {
      this.#derived?.settle(state, value);
      return;
    }
    this.#state = state;
    this.#value = value;
    queue.enable(this);
  }

  run(): void {
    const handler = this.#state === FULFILLED ? this.#onFulfilled : this.#onRejected;
    const derived = this.#derived;
    if (derived === undefined) {
      handler?.(this.#value);
      return;
    }
    let result: unknown;
    try {
      result = handler?.(this.#value);
    } catch (error) {
      derived.settle(REJECTED, error);
      return;
    }
    derived.resolve(result);
  }
}

/** A promise with its continuations under control. The parts of the standard's interface that the project uses. */
export class TaskPromise<T> {
  #state: State = PENDING;
  #value: unknown;
  #reactions: Reaction[] | undefined;
  #locked = false;
  handled = false;

  constructor(executor?: (resolve: (value: T) => void, reject: (reason: unknown) => void) => void) {
    if (executor === undefined) {
      return;
    }
    try {
      executor(
        (value) => this.#resolveOnce(value),
        (reason) => this.#rejectOnce(reason),
      );
    } catch (error) {
      this.#rejectOnce(error);
    }
  }

  get reason(): unknown {
    return this.#value;
  }

  get isPending(): boolean {
    return this.#state === PENDING;
  }

  #resolveOnce(value: unknown): void {
    queue.races(this);
    if (!this.#locked) {
      this.#locked = true;
      this.resolve(value);
    }
  }

  #rejectOnce(reason: unknown): void {
    queue.races(this);
    if (!this.#locked) {
      this.#locked = true;
      this.settle(REJECTED, reason);
    }
  }

  /** @internal Takes the value, or follows it when it is a promise. */
  resolve(value: unknown): void {
    if (value instanceof TaskPromise) {
      value.react({ settled: (state, result) => this.settle(state, result) });
    } else if (typeof value === "object" && typeof (value as { then?: unknown } | null)?.then === "function") {
      this.settle(REJECTED, new TypeError("explored code met a promise that the scheduler does not know"));
    } else {
      this.settle(FULFILLED, value);
    }
  }

  /** @internal */
  settle(state: State, value: unknown): void {
    this.#state = state;
    this.#value = value;
    const reactions = this.#reactions;
    this.#reactions = undefined;
    if (reactions !== undefined) {
      for (const reaction of reactions) {
        reaction.settled(state, value);
      }
    } else if (state === REJECTED && !this.handled) {
      queue.rejectedAlone(this as TaskPromise<unknown>);
    }
  }

  /** @internal */
  react(reaction: Reaction): void {
    this.handled = true;
    if (this.#state !== PENDING) {
      reaction.settled(this.#state, this.#value);
    } else if (this.#reactions === undefined) {
      this.#reactions = [reaction];
    } else {
      this.#reactions.push(reaction);
    }
  }

  /** @internal What `await` does: a job and no further promise. */
  continueWith(onFulfilled: Handler, onRejected: Handler): void {
    this.react(new ReactionJob(onFulfilled, onRejected, undefined));
  }

  // biome-ignore lint/suspicious/noThenProperty: this is a promise.
  then(onFulfilled?: Handler | null, onRejected?: Handler | null): TaskPromise<unknown> {
    const derived = new TaskPromise<unknown>();
    this.react(new ReactionJob(onFulfilled ?? undefined, onRejected ?? undefined, derived));
    return derived;
  }

  catch(onRejected?: Handler | null): TaskPromise<unknown> {
    return this.then(undefined, onRejected);
  }

  finally(body: () => unknown): TaskPromise<unknown> {
    const after = (then: () => unknown): unknown => {
      const result = body();
      return result instanceof TaskPromise ? result.then(then) : then();
    };
    return this.then(
      (value) => after(() => value),
      (error) =>
        after(() => {
          throw error;
        }),
    );
  }

  static resolve(value?: unknown): TaskPromise<unknown> {
    if (value instanceof TaskPromise) {
      return value;
    }
    const promise = new TaskPromise<unknown>();
    promise.resolve(value);
    return promise;
  }

  static reject(reason: unknown): TaskPromise<never> {
    const promise = new TaskPromise<never>();
    promise.settle(REJECTED, reason);
    return promise;
  }

  static all(values: Iterable<unknown>): TaskPromise<unknown[]> {
    const promise = new TaskPromise<unknown[]>();
    queue.madeRace(promise);
    const results: unknown[] = [];
    let left = 1;
    const done = (): void => {
      if (--left === 0 && promise.#state === PENDING) {
        promise.settle(FULFILLED, results);
      }
    };
    let index = 0;
    for (const value of values) {
      const at = index++;
      left++;
      TaskPromise.resolve(value).react({
        settled(state, result) {
          if (state === REJECTED) {
            queue.races(promise);
            if (promise.#state === PENDING) {
              promise.settle(REJECTED, result);
            }
            return;
          }
          results[at] = result;
          done();
        },
      });
    }
    done();
    return promise;
  }

  static allSettled(values: Iterable<unknown>): TaskPromise<unknown[]> {
    const settled = [...values].map((value) =>
      TaskPromise.resolve(value).outcome((state, result) =>
        state === FULFILLED ? { status: "fulfilled", value: result } : { status: "rejected", reason: result },
      ),
    );
    return TaskPromise.all(settled);
  }

  /** At once, as everything that is not user code. */
  outcome(of: (state: State, result: unknown) => unknown): TaskPromise<unknown> {
    const promise = new TaskPromise<unknown>();
    this.react({ settled: (state, result) => promise.settle(FULFILLED, of(state, result)) });
    return promise;
  }

  static race(values: Iterable<unknown>): TaskPromise<unknown> {
    const promise = new TaskPromise<unknown>();
    queue.madeRace(promise);
    for (const value of values) {
      TaskPromise.resolve(value).react({
        settled(state, result) {
          queue.races(promise);
          if (promise.#state === PENDING) {
            promise.settle(state, result);
          }
        },
      });
    }
    return promise;
  }
}

/** The continuation of an `await`. */
class AwaitJob implements Job, Reaction {
  readonly context: TaskContext = queue.context;
  readonly id: number = queue.nextJobId();
  readonly stack: string | undefined = queue.captureStack();
  readonly createdBy = queue.step;
  enabledBy = -1;
  readonly #body: AsyncBody;
  #state: State = PENDING;
  #value: unknown;

  constructor(body: AsyncBody) {
    this.#body = body;
  }

  settled(state: State, value: unknown): void {
    this.#state = state;
    this.#value = value;
    queue.enable(this);
  }

  run(): void {
    this.#body.resume(this.#state, this.#value);
  }
}

/** A call of an async function: its generator and the promise of its result. */
class AsyncBody {
  readonly promise = new TaskPromise<unknown>();
  readonly #generator: Generator;

  constructor(generator: Generator) {
    this.#generator = generator;
  }

  resume(state: State, value: unknown): void {
    let result: IteratorResult<unknown>;
    try {
      result = state === REJECTED ? this.#generator.throw(value) : this.#generator.next(value);
    } catch (error) {
      this.promise.settle(REJECTED, error);
      return;
    }
    if (result.done) {
      this.promise.resolve(result.value);
    } else {
      TaskPromise.resolve(result.value).react(new AwaitJob(this));
    }
  }
}

/** What async functions of explored code are compiled to: runs a generator, a job for each `await`. */
export function runAsync(self: unknown, args: unknown, body: (...args: never[]) => Generator): TaskPromise<unknown> {
  const call = new AsyncBody(body.apply(self, (args ?? []) as never[]));
  call.resume(FULFILLED, undefined);
  return call.promise;
}
