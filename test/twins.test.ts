/** The explorer finds the known bugs in their twins, and nothing in the twins that do not have them. */
import { readFileSync } from "node:fs";
import path from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import { Explorer, renderSchedule } from "../src/check/index.ts";
import { ROOT } from "./support/built.ts";
import { type Bundle, loadBundle } from "./support/explored.ts";

let bundle: Bundle;
let explorer: Explorer;
let recorded: Explorer;

beforeAll(async () => {
  bundle = await loadBundle(path.join(ROOT, "test/twins/index.ts"));
  explorer = new Explorer(bundle.instantiate);
  const { instantiate } = await loadBundle(path.join(ROOT, "test/twins/index.ts"), { record: true });
  recorded = new Explorer(instantiate);
}, 60_000);

/** What each bug breaks. */
const BUGS = [
  ["mm-hmm-kref", "I-MN-3"],
  ["range-valid-aba", "I-HMM-1"],
  ["put-grace-period", "I-MN-3"],
  ["free-before-synchronize", "I-MN-3"],
  ["unlocked-read-retry", "I-HMM-1"],
  ["end-before-change", "I-HMM-1"],
] as const;

const SCHEDULES = 10_000;

describe.each(BUGS)("the twin %s", (name, invariant) => {
  test(`breaks ${invariant} within 10,000 schedules, whatever the seed`, () => {
    for (const seed of [1, 2, 3]) {
      expect(explorer.random(name, SCHEDULES, seed).failure?.violation.invariant).toBe(invariant);
    }
  });

  test("fails again when its schedule is replayed", () => {
    const { failure } = explorer.random(name, SCHEDULES, 1);
    expect(explorer.replay(failure?.schedule ?? "").violation).toEqual(failure?.violation);
  });

  test("is printed in docs/schedules.md as it is found", () => {
    const { failure } = explorer.random(name, SCHEDULES, 1);
    const printed = renderSchedule(failure?.outcome ?? expect.fail("no failure was found"), bundle.locate);
    expect(readFileSync(path.join(ROOT, "docs/schedules.md"), "utf8")).toContain(`\`\`\`text\n${printed}\n\`\`\``);
  });

  test("is found by trying all schedules that may end differently, and its repair is proved by it", () => {
    expect(recorded.exhaust(name, 1000).failure?.violation.invariant).toBe(invariant);
    expect(recorded.exhaust(`${name}.fixed`, 1000)).toMatchObject({ complete: true, failure: undefined });
  });

  test("has no failing schedule once it is repaired", () => {
    expect(explorer.random(`${name}.fixed`, SCHEDULES / 2, 1).failure).toBeUndefined();
  });
});

test("shrinking leaves no switch that the failure does not need", () => {
  for (const [name] of BUGS) {
    const { failure } = explorer.random(name, SCHEDULES, 2);
    expect(failure?.outcome.switches, name).toBeLessThanOrEqual(2);
  }
});
