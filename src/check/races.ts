/** The order that a run's steps must have, and where another order would be another run. */
import { Access, type Accesses, type Count, conflicts } from "./access.ts";

/** What a step of a run was. */
export interface Step {
  readonly job: number;
  readonly ready: ReadonlySet<number>;
  /** Steps of this run that made the job and made it ready. */
  readonly causes: readonly number[];
  readonly accesses: Accesses;
  readonly counts: readonly Count[];
  /** Objects that it made. */
  readonly made: number;
}

/** Two steps that nothing orders, though they touch the same: the second one may come first. */
export interface Race {
  /** The earlier step. */
  readonly at: number;
  /** What has to run in its place for the later one to come first, jobs in their order. */
  readonly instead: readonly number[];
  /** Those of `instead` that may begin: what they wait for comes before the earlier step. */
  readonly initials: readonly number[];
}

/** Steps before each step that have to be, as bits. */
class Before {
  readonly #words: Uint32Array;

  constructor(steps: number) {
    this.#words = new Uint32Array((steps + 31) >> 5);
  }

  has(step: number): boolean {
    return (this.#words[step >> 5] & (1 << (step & 31))) !== 0;
  }

  set(step: number): void {
    this.#words[step >> 5] |= 1 << (step & 31);
  }

  add(step: number, before: Before): void {
    for (let i = 0; i < before.#words.length; i++) {
      this.#words[i] |= before.#words[i];
    }
    this.set(step);
  }

  meets(other: Before): boolean {
    for (let i = 0; i < other.#words.length && i < this.#words.length; i++) {
      if ((this.#words[i] & other.#words[i]) !== 0) {
        return true;
      }
    }
    return false;
  }
}

/** A variable's accesses so far, the latest last. */
interface Touch {
  readonly step: number;
  readonly mask: number;
}

/** The order of one run after the other; what a run has in common with the one before is not looked at again. */
export class RaceFinder {
  #before: Before[] = [];
  readonly #touches = new Map<number, Touch[]>();
  /** Variables of which somebody asked, in this run or another one, whether they are 0. */
  readonly #asked = new Set<number>();
  /** Variables of each step, to take them back. */
  readonly #variables: Accesses[] = [];

  /** The races whose later step is at `from` or after it. The steps before `from` are those of the last call. */
  find(steps: readonly Step[], from: number): Race[] {
    this.#takeBack(from);
    const races: Race[] = [];
    for (let j = from; j < steps.length; j++) {
      const { causes, accesses } = steps[j];
      const own = new Before(j + 1);
      for (const cause of causes) {
        own.add(cause, this.#before[cause]);
      }
      // The latest first: what an earlier conflict orders through a later one is no race of its own.
      for (const i of this.#conflicting(accesses)) {
        if (!own.has(i)) {
          races.push(this.#race(steps, own, i, j));
          own.add(i, this.#before[i]);
        }
      }
      this.#before.push(own);
      this.#variables.push(accesses);
      for (const [variable, mask] of accesses) {
        if (mask & Access.Zero) {
          this.#asked.add(variable);
        }
        const touches = this.#touches.get(variable);
        if (touches === undefined) {
          this.#touches.set(variable, [{ step: j, mask }]);
        } else {
          touches.push({ step: j, mask });
        }
      }
    }
    return races;
  }

  /**
   * A count that some order of the run's steps may take to 0, although somebody who asks whether it is 0 was taken not to
   * care. None, if for each step down (but for as many as it began with, less one) there is a step up that comes before it
   * in every order. Who writes the count begins it anew: what comes before that and what comes after do not change places.
   */
  countThatMayBeZero(steps: readonly Step[]): string | undefined {
    const counts = new Map<number, { spare: number; readonly ups: number[] }>();
    for (const [j, step] of steps.entries()) {
      const writes = (variable: number) => ((step.accesses.get(variable) ?? 0) & Access.Write) !== 0;
      for (const variable of counts.keys()) {
        if (writes(variable)) {
          counts.delete(variable);
        }
      }
      for (const { variable, name, delta, value } of step.counts) {
        if (!this.#asked.has(variable) || writes(variable)) {
          continue;
        }
        let count = counts.get(variable);
        if (count === undefined) {
          count = { spare: value - 1, ups: [] };
          counts.set(variable, count);
        }
        if (delta > 0) {
          count.ups.push(j);
        } else if (delta < 0) {
          const up = count.ups.findLastIndex((i) => i === j || this.#before[j].has(i));
          if (up >= 0) {
            count.ups.splice(up, 1);
          } else {
            count.spare--;
          }
        }
        if (count.spare < 0) {
          return name;
        }
      }
    }
    return undefined;
  }

  #takeBack(from: number): void {
    for (const accesses of this.#variables.splice(from)) {
      for (const variable of accesses.keys()) {
        this.#touches.get(variable)?.pop();
      }
    }
    this.#before.length = from;
  }

  /** Former steps that conflict, the latest first. */
  #conflicting(accesses: Accesses): number[] {
    const found = new Set<number>();
    for (const [variable, mask] of accesses) {
      for (const touch of this.#touches.get(variable) ?? []) {
        if (conflicts(touch.mask, mask)) {
          found.add(touch.step);
        }
      }
    }
    return [...found].sort((a, b) => b - a);
  }

  #race(steps: readonly Step[], own: Before, i: number, j: number): Race {
    const between = new Before(j + 1);
    const instead: number[] = [];
    const initials: number[] = [];
    for (let k = i + 1; k <= j; k++) {
      const before = k === j ? own : this.#before[k];
      if (k < j && before.has(i)) {
        continue;
      }
      if (!before.meets(between)) {
        initials.push(steps[k].job);
      }
      between.set(k);
      instead.push(steps[k].job);
    }
    return { at: i, instead, initials };
  }
}
