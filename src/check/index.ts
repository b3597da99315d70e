export { type Exploration, Explorer, type Failure } from "./explorer.ts";
export type { Outcome, Violation } from "./outcome.ts";
export { type Locate, renderSchedule } from "./render.ts";
export type { Explored, Host, Instantiate, Scenario, ScenarioRun, ScenarioTask } from "./scenario.ts";
export { Scheduler } from "./scheduler.ts";
