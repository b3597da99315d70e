/** The reduction leaves no outcome out: compared with all interleavings of small random programs. */
import fc from "fast-check";
import { expect, test } from "vitest";
import { exhaust } from "./exhaustive.ts";
import { Access } from "./recorder.ts";
import type { Scenario } from "./scenario.ts";
import { Scheduler } from "./scheduler.ts";
import { TaskPromise } from "./task-promise.ts";

/** A step of a task: reads a variable into its register, writes what follows from the register, or only counts. */
interface Op {
  readonly kind: "read" | "write" | "count";
  readonly variable: number;
}

const ACCESS = { read: Access.Read, write: Access.Write, count: Access.Update } as const;

type Program = readonly (readonly Op[])[];

const VARIABLES = 3;

function execute(op: Op, task: number, variables: number[], registers: number[]): void {
  if (op.kind === "count") {
    variables[op.variable] = (variables[op.variable] ?? 0) + 100;
  } else if (op.kind === "write") {
    variables[op.variable] = (registers[task] ?? 0) * 3 + task + 1;
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
    Array<number>(VARIABLES).fill(0),
    program.map(() => 0),
  );
  return outcomes;
}

/** The program under the explorer, which tells what it accesses as bundled code would. */
function scenarioOf(program: Program, scheduler: Scheduler, outcomes: Set<string>): Scenario {
  const done = () => TaskPromise.resolve() as unknown as Promise<void>;
  return {
    name: "program",
    start() {
      const variables = Array.from(
        { length: VARIABLES },
        () => scheduler.recorder.make({ value: 0 }) as { value: number },
      );
      const registers = program.map(() => 0);
      const step = (op: Op, task: number) => () => {
        scheduler.recorder.access(variables[op.variable], "value", ACCESS[op.kind]);
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

const op = fc.record({ kind: fc.constantFrom("read", "write", "count"), variable: fc.nat({ max: VARIABLES - 1 }) });
const program = fc
  .array(fc.array(op, { minLength: 1, maxLength: 3 }), { minLength: 2, maxLength: 3 })
  .filter((tasks) => tasks.flat().length <= 7);

test("every outcome of every interleaving is reached", () => {
  fc.assert(
    fc.property(program, (tasks) => {
      const scheduler = new Scheduler();
      const reached = new Set<string>();
      const { complete } = exhaust(scheduler, scenarioOf(tasks, scheduler, reached), 100_000);
      expect(complete).toBe(true);
      expect([...reached].sort()).toEqual([...allOutcomes(tasks)].sort());
    }),
    { numRuns: 60 },
  );
});

test("tasks that share nothing take one schedule", () => {
  const scheduler = new Scheduler();
  const tasks = [0, 1, 2].map((variable) => [0, 1, 2].map(() => ({ kind: "write" as const, variable })));
  expect(exhaust(scheduler, scenarioOf(tasks, scheduler, new Set()), 1000)).toMatchObject({
    schedules: 1,
    complete: true,
  });
});

test("tasks that only count take one schedule, and none is run that ends like another", () => {
  const scheduler = new Scheduler();
  const counts = [0, 1, 2].map(() => [{ kind: "count" as const, variable: 0 }]);
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
