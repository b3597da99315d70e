/** The reduction leaves no outcome out: compared with all interleavings of small random programs. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { Access } from "./access.ts";
import { exhaust } from "./exhaustive.ts";
import type { AccessRecorder } from "./recorder.ts";
import type { Scenario } from "./scenario.ts";
import { Scheduler } from "./scheduler.ts";
import { TaskPromise } from "./task-promise.ts";

/** A step of a task: reads a variable into its register, or whether it is 0; writes what follows from the register; counts. */
interface Op {
  readonly kind: "read" | "write" | "up" | "down" | "ask" | "down and ask";
  readonly variable: number;
}

type Program = readonly (readonly Op[])[];

const VARIABLES = 3;
const DELTA = { up: 1, down: -1, ask: 0, "down and ask": -1 } as const;
/** Of each variable at the beginning, so that some counts come to 0 and others do not. */
const START = 2;

function execute(op: Op, task: number, variables: number[], registers: number[]): void {
  if (op.kind === "write") {
    variables[op.variable] = (registers[task] ?? 0) * 3 + task + 1;
  } else if (op.kind !== "read") {
    const value = (variables[op.variable] ?? 0) + DELTA[op.kind];
    variables[op.variable] = value;
    if (op.kind !== "up" && op.kind !== "down") {
      registers[task] = value === 0 ? 1 : 0;
    }
  } else {
    registers[task] = variables[op.variable] ?? 0;
  }
}

/** Every outcome there is, by trying all interleavings. */
function allOutcomes(program: Program): Set<string> {
  const outcomes = new Set<string>();
  const go = (at: number[], variables: number[], registers: number[]): void => {
    let ended = true;
    for (const [task, ops] of program.entries()) {
      const op = ops[at[task] ?? 0];
      if (op !== undefined) {
        ended = false;
        const [nextVariables, nextRegisters] = [[...variables], [...registers]];
        execute(op, task, nextVariables, nextRegisters);
        go(at.with(task, (at[task] ?? 0) + 1), nextVariables, nextRegisters);
      }
    }
    if (ended) {
      outcomes.add(JSON.stringify(variables));
    }
  };
  go(
    program.map(() => 0),
    Array<number>(VARIABLES).fill(START),
    program.map(() => 0),
  );
  return outcomes;
}

function tell(recorder: AccessRecorder, { kind }: Op, variable: { value: number }): void {
  if (kind === "read" || kind === "write") {
    recorder.access(variable, "value", kind === "read" ? Access.Read : Access.Write);
  } else {
    recorder.count(variable, "value", DELTA[kind], kind.endsWith("ask"), variable.value);
  }
}

/** The program under the explorer, which tells what it accesses as bundled code would. */
function scenarioOf(program: Program, scheduler: Scheduler, outcomes: Set<string>): Scenario {
  const done = () => TaskPromise.resolve() as unknown as Promise<void>;
  return {
    name: "program",
    start() {
      const variables = Array.from(
        { length: VARIABLES },
        () => scheduler.recorder.make({ value: START }) as { value: number },
      );
      const registers = program.map(() => 0);
      const step = (op: Op, task: number) => () => {
        tell(scheduler.recorder, op, variables[op.variable] ?? expect.fail());
        const values = variables.map(({ value }) => value);
        execute(op, task, values, registers);
        for (const [i, variable] of variables.entries()) {
          variable.value = values[i] ?? 0;
        }
      };
      const tasks = program.map((ops, task) => ({
        name: `task ${task}`,
        run: () =>
          ops.reduce<TaskPromise<unknown>>((before, op) => before.then(step(op, task)), TaskPromise.resolve()) as never,
      }));
      const checkEnd = () => void outcomes.add(JSON.stringify(variables.map(({ value }) => value)));
      return TaskPromise.resolve({ tasks, check: () => {}, finish: done, checkEnd }) as never;
    },
  };
}

const op = fc.record({
  kind: fc.constantFrom<Op["kind"]>("read", "write", "up", "down", "ask", "down and ask"),
  variable: fc.nat({ max: VARIABLES - 1 }),
});
const program = fc
  .array(fc.array(op, { minLength: 1, maxLength: 3 }), { minLength: 2, maxLength: 3 })
  .filter((tasks) => tasks.flat().length <= 7);

function expectAllOutcomes(tasks: Program): void {
  const scheduler = new Scheduler();
  const reached = new Set<string>();
  const { complete } = exhaust(scheduler, scenarioOf(tasks, scheduler, reached), 100_000);
  expect(complete).toBe(true);
  expect([...reached].sort()).toEqual([...allOutcomes(tasks)].sort());
}

test("every outcome of every interleaving is reached", () => {
  fc.assert(fc.property(program, expectAllOutcomes), { numRuns: 300 });
});

test("a step up before a count is written makes no room for a step down after it", () => {
  const counter = (kind: Op["kind"]): Op => ({ kind, variable: 0 });
  expectAllOutcomes([
    [counter("write"), counter("ask"), { kind: "write", variable: 1 }],
    [counter("up"), counter("down")],
  ]);
  expectAllOutcomes([
    [counter("up"), counter("write"), counter("down and ask")],
    [counter("down and ask"), counter("write")],
  ]);
});

test("tasks that share nothing take one schedule", () => {
  const scheduler = new Scheduler();
  const tasks = [0, 1, 2].map((variable) => [0, 1, 2].map(() => ({ kind: "write" as const, variable })));
  expect(exhaust(scheduler, scenarioOf(tasks, scheduler, new Set()), 1000)).toMatchObject({
    schedules: 1,
    complete: true,
  });
});

test("tasks that only count take one schedule as long as no count comes to 0, and none is run that ends like another", () => {
  const scheduler = new Scheduler();
  const counts = [0, 1, 2].map((): Op[] => [
    { kind: "up", variable: 0 },
    { kind: "ask", variable: 0 },
    { kind: "down and ask", variable: 0 },
  ]);
  expect(exhaust(scheduler, scenarioOf(counts, scheduler, new Set()), 1000)).toMatchObject({
    schedules: 1,
    complete: true,
  });
  const writes = [0, 1, 2].map(() => [{ kind: "write" as const, variable: 0 }]);
  expect(exhaust(scheduler, scenarioOf(writes, scheduler, new Set()), 1000)).toMatchObject({
    schedules: 6,
    alike: 0,
    complete: true,
  });
});

test("a limit ends the search, and it says so", () => {
  const scheduler = new Scheduler();
  const tasks = [0, 1].map(() => [0, 0, 0].map((variable) => ({ kind: "write" as const, variable })));
  expect(exhaust(scheduler, scenarioOf(tasks, scheduler, new Set()), 5)).toMatchObject({
    schedules: 5,
    complete: false,
  });
});
