/** What the explorer and the code that it explores know of each other. */
import type { BugError } from "../base/index.ts";
import type { LockdepContext } from "../sync/index.ts";

/** What the explorer gives to a scenario. */
export interface Host {
  /** Adds a line to the running task's column. Free unless a schedule is being printed. */
  note(text: () => string): void;
  /** Reports a broken invariant; the schedule ends there. */
  fail(invariant: string, message: string): void;
}

/** One of the tasks that run at the same time. */
export interface ScenarioTask {
  readonly name: string;
  run(): Promise<void>;
}

/** A scenario that was set up: what runs, what is checked, and how it ends. */
export interface ScenarioRun {
  readonly tasks: readonly ScenarioTask[];
  /** After every step. Reports through `host.fail`, or throws a BugError. */
  check(): void;
  /** After all tasks have ended: gives back everything. */
  finish(): Promise<void>;
  /** At the very end: nothing may be left. */
  checkEnd(): void;
}

/** A way to set up tasks. Everything in it runs under the explorer's promises. */
export interface Scenario {
  readonly name: string;
  /** The driver that takes part, if there are several. */
  readonly driver?: "dmirror" | "webgpu";
  start(host: Host): Promise<ScenarioRun>;
}

/** What a bundle of explored code exports. */
export interface Explored {
  readonly scenarios: readonly Scenario[];
  /** Connects the bundle's own lockdep and WARN reports with the explorer. */
  connect(lockdep: LockdepContext, onBug: (bug: BugError) => void): void;
}

/** What explored code finds instead of the engine's own. */
export interface ExploredGlobals {
  readonly Promise: unknown;
  readonly __async: unknown;
  readonly queueMicrotask: (work: () => void) => void;
  readonly setTimeout: (work: () => void, ms: number) => unknown;
  readonly clearTimeout: (timer: unknown) => void;
  readonly Date: { now(): number };
  /** For bundles that record what they read and write: scripts/record-accesses.mjs. Each returns its first argument. */
  readonly __access: (object: unknown, key: string, mask: number) => unknown;
  readonly __count: (object: unknown, key: string, delta: number, tested: boolean, value: unknown) => unknown;
  readonly __call: (object: unknown, method: string) => unknown;
  readonly __keyed: (object: unknown, method?: string) => unknown;
  readonly __key: (key: unknown, mask: number) => unknown;
  readonly __iterate: (object: unknown) => unknown;
  readonly __walk: (object: unknown) => unknown;
  readonly __make: (object: unknown) => unknown;
  readonly __aside: (object: unknown) => unknown;
}

/** A bundle made by scripts/explored.mjs: each call is a fresh instance of all of its modules. */
export type Instantiate = (globals: ExploredGlobals) => Explored;
