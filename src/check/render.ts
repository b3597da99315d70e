/** A schedule as text: a line a step, a column a task, with the locks that the task holds after it. */
import type { Outcome, TracedStep } from "./scheduler.ts";

/** Finds a place in the sources for a stack; undefined when none of its frames is in the explored code. */
export type Locate = (stack: string) => string | undefined;

const WIDTH = 46;

/** What stands in the column of the task that ran. */
function cellsOf(step: TracedStep, locate: Locate): string[] {
  const where = step.where === undefined ? undefined : locate(step.where);
  const locks = step.locks.length === 0 ? "" : ` [${step.locks.join(" ")}]`;
  const lines = step.notes.map((note) => `- ${note}`);
  return [`${where ?? (step.first ? "begins" : "goes on")}${locks}`, ...lines];
}

/** Draws the outcome of a traced run. */
export function renderSchedule(outcome: Outcome, locate: Locate): string {
  const columns = outcome.tasks.length;
  const row = (number: string, column: number, text: string) => {
    const cells = Array.from({ length: columns }, (_, i) => (i === column ? text : "").padEnd(WIDTH));
    return `${number.padStart(4)}  ${cells.join("| ")}`.trimEnd();
  };
  const head = `step  ${outcome.tasks.map((name) => name.padEnd(WIDTH)).join("| ")}`.trimEnd();
  const lines = [head, "-".repeat(Math.max(head.length, 6 + columns * (WIDTH + 2)))];
  for (const [index, step] of outcome.trace.entries()) {
    const column = Math.max(0, step.task);
    for (const [line, text] of cellsOf(step, locate).entries()) {
      lines.push(row(line === 0 ? String(index + 1) : "", column, text));
    }
  }
  const { violation } = outcome;
  lines.push(violation === undefined ? "      nothing is wrong" : `      ${violation.invariant}: ${violation.message}`);
  return lines.join("\n");
}
