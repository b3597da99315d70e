/** A schedule as text: a line a step, a column a task, with the locks that the task holds after it. */
import type { Outcome, TracedStep } from "./outcome.ts";

/** Finds a place in the sources for a stack; undefined when none of its frames is in the explored code. */
export type Locate = (stack: string) => string | undefined;

/** Of a column, at least. */
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
  const steps = outcome.trace.map((step) => ({ column: Math.max(0, step.task), cells: cellsOf(step, locate) }));
  const widths = Array.from({ length: columns }, (_, i) =>
    Math.max(
      WIDTH,
      ...steps.flatMap(({ column, cells }) => (column === i ? cells.map((cell) => cell.length + 1) : [])),
    ),
  );
  const row = (number: string, column: number, text: string) => {
    const cells = widths.map((width, i) => (i === column ? text : "").padEnd(width));
    return `${number.padStart(4)}  ${cells.join("| ")}`.trimEnd();
  };
  const head = `step  ${outcome.tasks.map((name, i) => name.padEnd(widths[i])).join("| ")}`.trimEnd();
  const all = widths.reduce((sum, width) => sum + width + 2, 6);
  const lines = [head, "-".repeat(Math.max(head.length, all))];
  for (const [index, { column, cells }] of steps.entries()) {
    for (const [line, text] of cells.entries()) {
      lines.push(row(line === 0 ? String(index + 1) : "", column, text));
    }
  }
  const { violation } = outcome;
  lines.push(violation === undefined ? "      nothing is wrong" : `      ${violation.invariant}: ${violation.message}`);
  return lines.join("\n");
}
