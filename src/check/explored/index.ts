/** What is bundled for the explorer: every pair and every triple of the actions, over the production code. */
import { setBugHandler } from "../../base/index.ts";
import { setLockdepContext } from "../../sync/index.ts";
import type { Explored, Host, Scenario, ScenarioRun } from "../scenario.ts";
import { ACTIONS } from "./actions.ts";
import { DRIVER_ACTIONS } from "./driver-actions.ts";
import { World } from "./world.ts";

const ALL = { ...ACTIONS, ...DRIVER_ACTIONS };

/** A scenario of actions that run at the same time. */
function scenarioOf(names: readonly string[]): Scenario {
  return {
    name: names.join("+"),
    async start(host: Host): Promise<ScenarioRun> {
      const world = new World(host);
      await world.map();
      const tasks: { name: string; run: () => Promise<void> }[] = [];
      for (const name of names) {
        tasks.push({ name, run: await ALL[name](world) });
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
const driverNames = Object.keys(DRIVER_ACTIONS);

/** All pairs and triples of the actions; what else drivers do in pairs with each of them, and in triples among themselves. */
export const scenarios: Explored["scenarios"] = [
  ...combinations(names, 2),
  ...combinations(names, 3),
  ...driverNames.flatMap((name) => names.map((other) => [name, other])),
  ...combinations(driverNames, 2),
  ...combinations(driverNames, 3),
].map(scenarioOf);

export const connect: Explored["connect"] = (lockdep, onBug) => {
  setLockdepContext(lockdep);
  setBugHandler(onBug);
};
