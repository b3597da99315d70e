/** Ways to choose the next job. */
import type { Choose } from "./scheduler.ts";
import type { Job } from "./task-promise.ts";

/** Numbers that look random and depend on the seed alone. */
function randomFrom(seed: number): (below: number) => number {
  let state = (seed ^ 0x9e3779b9) >>> 0;
  return (below) => {
    state = (state + 0x6d2b79f5) >>> 0;
    let x = Math.imul(state ^ (state >>> 15), state | 1);
    x ^= x + Math.imul(x ^ (x >>> 7), x | 61);
    return Math.floor((((x ^ (x >>> 14)) >>> 0) / 2 ** 32) * below);
  };
}

/** Any job that is ready, each as likely as the others. Finds what needs many switches. */
export function uniform(random: (below: number) => number): Choose {
  return (count) => random(count);
}

/**
 * Tasks have priorities, and the ready job of the highest one runs; at a few random steps the one that runs falls to the
 * lowest. Finds what needs few switches at the right places, which a uniform choice hardly ever meets.
 * (Burckhardt and others, A Randomized Scheduler with Probabilistic Guarantees of Finding Bugs, 2010.)
 */
function byPriority(random: (below: number) => number, tasks: number, changes: number, length: number): Choose {
  const priorities = Array.from({ length: tasks + 1 }, () => random(1 << 20) + changes);
  const points = Array.from({ length: changes }, () => random(length));
  let step = 0;
  return (count, jobs) => {
    const best = (): number => {
      let found = 0;
      for (let i = 1; i < count; i++) {
        if (priorities[jobs[i].context.task + 1] > priorities[jobs[found].context.task + 1]) {
          found = i;
        }
      }
      return found;
    };
    const change = points.indexOf(step++);
    if (change !== -1) {
      priorities[jobs[best()].context.task + 1] = change;
    }
    return best();
  };
}

/** The random strategy of one schedule: both kinds in turn. */
export function randomStrategy(seed: number, tasks: number): Choose {
  const random = randomFrom(seed);
  const kind = random(3);
  return kind === 0 ? uniform(random) : byPriority(random, tasks, kind === 1 ? 1 : 3, 40);
}

/** The choices of a former schedule; after their end nothing switches without need. */
export function replay(choices: readonly number[]): Choose {
  let at = 0;
  return (count: number, _jobs: readonly Job[]) => {
    const choice = choices[at++] ?? 0;
    return choice < count ? choice : 0;
  };
}
