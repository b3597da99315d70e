/** What is bundled for the explorer: every pair and every triple of the actions, over the production code. */
import { setBugHandler } from "../../base/index.ts";
import { setLockdepContext } from "../../sync/index.ts";
import type { Explored, Host, Scenario, ScenarioRun } from "../scenario.ts";
import { ACTIONS } from "./actions.ts";
import { World } from "./world.ts";

/** A scenario of actions that run at the same time. */
function scenarioOf(names: readonly string[]): Scenario {
  return {
    name: names.join("+"),
    async start(host: Host): Promise<ScenarioRun> {
      const world = new World(host);
      await world.map();
      const tasks: { name: string; run: () => Promise<void> }[] = [];
      for (const name of names) {
        tasks.push({ name, run: await ACTIONS[name](world) });
      }
      return { tasks, check: () => world.check(), finish: () => world.finish(), checkEnd: () => world.checkEnd() };
    },
  };
}

/** Each choice of `size` names in their order, the same name several times too. */
function combinations(names: readonly string[], size: number): string[][] {
  return size === 0
    ? [[]]
    : names.flatMap((name, i) => combinations(names.slice(i), size - 1).map((rest) => [name, ...rest]));
}

const names = Object.keys(ACTIONS);

/** All pairs, then all triples. */
export const scenarios: Explored["scenarios"] = [...combinations(names, 2), ...combinations(names, 3)].map(scenarioOf);

export const connect: Explored["connect"] = (lockdep, onBug) => {
  setLockdepContext(lockdep);
  setBugHandler(onBug);
};
