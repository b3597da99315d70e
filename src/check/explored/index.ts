/** What is bundled for the explorer: every pair and every triple of the actions, over the production code. */
import { setBugHandler } from "../../base/index.ts";
import { setLockdepContext } from "../../sync/index.ts";
import type { Explored, Host, Scenario, ScenarioRun } from "../scenario.ts";
import { ACTIONS } from "./actions.ts";
import { DRIVER_ACTIONS } from "./driver-actions.ts";
import { GPU_ACTIONS, SPACE_ACTIONS } from "./gpu-actions.ts";
import { GpuWorld } from "./gpu-world.ts";
import { PAGE, World } from "./world.ts";

/** What a task does, once its preparations are made. */
type Prepare<W> = (world: W) => Promise<() => Promise<void>> | (() => Promise<void>);

/** A scenario of actions that run at the same time. */
function scenarioOf<W extends World>(
  driver: "dmirror" | "webgpu",
  names: readonly string[],
  makeWorld: (host: Host) => W,
  actions: Readonly<Record<string, Prepare<W>>>,
): Scenario {
  return {
    name: names.join("+"),
    driver,
    async start(host: Host): Promise<ScenarioRun> {
      const world = makeWorld(host);
      await world.map();
      const tasks: { name: string; run: () => Promise<void> }[] = [];
      for (const name of names) {
        tasks.push({ name, run: await actions[name](world) });
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
const gpuNames = Object.keys(GPU_ACTIONS);
const spaceNames = Object.keys(SPACE_ACTIONS);

const dmirror = { ...ACTIONS, ...DRIVER_ACTIONS };
const webgpu = { ...GPU_ACTIONS, ...SPACE_ACTIONS };

/** Three of the mapping's pages, so that the fourth needs room; a frame of svm mode and its table take more. */
const memoryFor = (each: readonly string[]): number => (each.includes("prefetch") ? 8 : 3) * PAGE;

/** Those in which a GPU takes part. */
const withGpu = (size: number): string[][] =>
  combinations([...gpuNames, ...spaceNames], size).filter(([first]) => gpuNames.includes(first));

/**
 * All pairs and triples of the actions; what else drivers do in pairs with each of them, and in triples among themselves; and
 * all pairs and triples of what is done with the WebGPU driver.
 */
export const scenarios: Explored["scenarios"] = [
  ...[
    ...combinations(names, 2),
    ...combinations(names, 3),
    ...driverNames.flatMap((name) => names.map((other) => [name, other])),
    ...combinations(driverNames, 2),
    ...combinations(driverNames, 3),
  ].map((each) => scenarioOf("dmirror", each, (host) => new World(host), dmirror)),
  ...[...withGpu(2), ...withGpu(3)].map((each) =>
    scenarioOf("webgpu", each, (host) => new GpuWorld(host, memoryFor(each)), webgpu),
  ),
];

export const connect: Explored["connect"] = (lockdep, onBug) => {
  setLockdepContext(lockdep);
  setBugHandler(onBug);
};
