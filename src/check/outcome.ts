/** What a schedule came to. */

/** Why a schedule is a failure. */
export interface Violation {
  readonly invariant: string;
  readonly message: string;
  /** The step after which it was seen. */
  readonly step: number;
}

/** A step of a schedule that is printed. */
export interface TracedStep {
  readonly task: number;
  readonly where: string | undefined;
  readonly locks: readonly string[];
  readonly notes: readonly string[];
  /** Whether it is the first of its task. */
  readonly first: boolean;
  /** How many jobs were ready. */
  readonly ready: number;
}

/** What came of one schedule. */
export interface Outcome {
  readonly choices: readonly number[];
  readonly steps: number;
  readonly switches: number;
  readonly violation: Violation | undefined;
  readonly tasks: readonly string[];
  readonly trace: readonly TracedStep[];
}
