/** The schedule explorer over the production code. */
import { appendFileSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import { EXPLORED_ENTRY } from "../scripts/explored.mjs";
import { Explorer, renderSchedule } from "../src/check/index.ts";
import { ensureBuilt, pagemirror, ROOT, runProgram } from "./support/built.ts";
import { type Bundle, breakLine, loadBundle } from "./support/explored.ts";

let bundle: Bundle;
let explorer: Explorer;

beforeAll(async () => {
  bundle = await loadBundle(EXPLORED_ENTRY);
  explorer = new Explorer(bundle.instantiate);
}, 60_000);

/** Schedules of a scenario in this test; `npm run check:nightly` runs up to 100,000. */
const SCHEDULES = 8;
/** Of one of the WebGPU driver, by its tasks: they take longer. */
const GPU_SCHEDULES = [0, 0, 25, 4];

const ACTIONS =
  "register unregister range-fault munmap mprotect fork migrate exit put get synchronize unload clear-runs device-lost".split(
    " ",
  );
const MORE =
  "interval-fault interval-insert cpu-write dontneed to-device to-coherent to-system device-read exclusive evict no-frames exclusive-touch".split(
    " ",
  );

/** How many choices of `size` of `count` things there are, the same one several times too. */
const choices = (count: number, size: number): number =>
  size === 0 ? 1 : (choices(count, size - 1) * (count + size - 1)) / size;

const GPU = "dispatch dispatch-read cpu-add other-gpu gpu-evict prefetch gpu-fork gpu-lost gpu-unload".split(" ");
const SPACE = "munmap mprotect exit clear-runs dontneed".split(" ");

test("there is a scenario for every pair and every triple of what is done with the WebGPU driver", () => {
  const names = explorer.namesOf("webgpu");
  expect(new Set(names.flatMap((name) => name.split("+")))).toEqual(new Set([...GPU, ...SPACE]));
  for (const size of [2, 3]) {
    const all = choices(GPU.length + SPACE.length, size) - choices(SPACE.length, size);
    expect(names.filter((name) => name.split("+").length === size).length).toBe(all);
  }
  expect(explorer.names.length).toBe(names.length + explorer.namesOf("dmirror").length);
});

test("there is a scenario for every pair and every triple of the 14 actions, and of what else drivers do", () => {
  const parts = explorer.namesOf("dmirror").map((name) => name.split("+"));
  expect(new Set(parts.flat())).toEqual(new Set([...ACTIONS, ...MORE]));
  const of = (names: readonly string[], size: number) =>
    parts.filter((scenario) => scenario.length === size && scenario.every((name) => names.includes(name))).length;
  for (const names of [ACTIONS, MORE]) {
    expect([of(names, 2), of(names, 3)]).toEqual([choices(names.length, 2), choices(names.length, 3)]);
  }
  expect(of([...ACTIONS, ...MORE], 2)).toBe(choices(ACTIONS.length + MORE.length, 2));
  expect(new Set(explorer.names).size).toBe(explorer.names.length);
});

describe("what is broken in the production code is found", () => {
  test.each([
    ["readRetry never says so", "return this.#seq !== seq;", "return false;", "interval-fault+munmap", "I-HMM-1"],
    ["a range is always valid", "get valid() {", "get valid() { return true;", "range-fault+migrate", "I-HMM-1"],
    [
      "a migration programs the device during an invalidation",
      "return !dmirror.isInvalidating(",
      "return true || dmirror.isInvalidating(",
      "interval-fault+to-device+device-read",
      "I-HMM-1",
    ],
    [
      "remove does not wait for the invalidation that calls it",
      'mightWaitFor("validity");\n      this.#removing = true;',
      "this.#removing = true; if (this.#mm) { intervalsOf(mm).remove(this); this.#removing = false; this.#mm = undefined; this.#ledger?.end(); mm.mmdrop(); return; }",
      "interval-insert+munmap",
      "",
    ],
  ])(
    "%s",
    async (_, from, to, scenario, invariant) => {
      const change = (code: string) => breakLine(code, from, to);
      const broken = new Explorer((await loadBundle(EXPLORED_ENTRY, { change })).instantiate);
      const { failure } = broken.random(broken.names.find((name) => name === scenario) ?? expect.fail(), 10_000, 1);
      expect(failure?.violation.invariant).toMatch(invariant);
      expect(failure?.schedule).toContain(`${scenario}:`);
    },
    60_000,
  );
});

test("no schedule of any pair or triple breaks an invariant", () => {
  const ofGpu = new Set(explorer.namesOf("webgpu"));
  const failures = explorer.names.flatMap((name, i) => {
    const schedules = ofGpu.has(name) ? GPU_SCHEDULES[name.split("+").length] : SCHEDULES;
    const { failure } = explorer.random(name, schedules, i);
    return failure === undefined
      ? []
      : [`${failure.violation.message}\n${renderSchedule(failure.outcome, bundle.locate)}\n${failure.schedule}`];
  });
  expect(failures).toEqual([]);
}, 120_000);

test("every schedule of every pair of the 14 actions that may end differently", async () => {
  const recorded = new Explorer((await loadBundle(EXPLORED_ENTRY, { record: true })).instantiate);
  const isPair = (parts: readonly string[]) => parts.length === 2 && parts.every((part) => ACTIONS.includes(part));
  for (const name of recorded.names.filter((scenario) => isPair(scenario.split("+")))) {
    const { complete, failure } = recorded.exhaust(name, 5000);
    expect([name, complete, failure?.violation.message]).toEqual([name, true, undefined]);
  }
}, 120_000);

test("I-HMM-1: a device that is being closed has no entries of pages that change meanwhile", () => {
  expect(explorer.random("unregister+mprotect", 200, 1).failure).toBeUndefined();
});

test("the same seed gives the same schedules", () => {
  const run = () => explorer.random("range-fault+munmap", 20, 7).steps;
  expect(run()).toBe(run());
});

test("a schedule that is replayed goes the same way, step by step", () => {
  const [first, second] = [0, 1].map(() => explorer.replay("range-fault+munmap:0110201"));
  expect(first).toEqual(second);
  expect(first?.trace.length).toBeGreaterThan(10);
  const printed = renderSchedule(first ?? expect.fail(), bundle.locate);
  expect(printed).toMatch(/^step {2}range-fault +\| munmap/);
  expect(printed).toMatch(/mm\/munmap\.ts:\d+.*\[mmap/);
});

describe("pagemirror check", () => {
  beforeAll(ensureBuilt, 120_000);

  test("explores a scenario and says what came of it", async () => {
    const { status, stdout, stderr } = await pagemirror([
      "check",
      "--schedules",
      "30",
      "--scenario",
      "munmap+range-fault",
    ]);
    expect(stderr).toBe("");
    expect(stdout).toMatch(/^1 scenarios, 30 schedules, \d+ steps, seed 1: nothing is wrong/);
    expect(status).toBe(0);
  });

  test("--exhaustive says how much of it came to its end", async () => {
    const { status, stdout } = await pagemirror(["check", "--exhaustive", "1000", "--scenario", "put+get"]);
    expect(stdout).toMatch(/^1 scenarios, \d+ schedules, \d+ steps, 1 of them to the end: nothing is wrong/);
    expect(status).toBe(0);
  });

  test("--driver webgpu explores the WebGPU driver", async () => {
    const { status, stdout } = await pagemirror(["check", "--driver", "webgpu", "--schedules", "1", "--json"]);
    const scenarios = choices(14, 2) + choices(14, 3) - choices(5, 2) - choices(5, 3);
    expect(JSON.parse(stdout)).toMatchObject({ ok: true, scenarios, schedules: scenarios });
    expect(status).toBe(0);
  });

  test("--json prints one object", async () => {
    const { stdout } = await pagemirror([
      "check",
      "--schedules",
      "3",
      "--seed",
      "9",
      "--scenario",
      "put+exit",
      "--json",
    ]);
    expect(JSON.parse(stdout)).toMatchObject({ ok: true, scenarios: 1, schedules: 3, seed: 9, failures: [] });
  });

  test("--replay prints the schedule's columns", async () => {
    const { status, stdout } = await pagemirror(["check", "--replay", "range-fault+munmap:011"]);
    expect(stdout).toMatch(/nothing is wrong/);
    expect(status).toBe(0);
  });

  test("check:nightly keeps each scenario's result, and goes on where it was", async () => {
    const folder = mkdtempSync(path.join(tmpdir(), "pagemirror-nightly-"));
    const results = path.join(folder, "results.jsonl");
    const nightly = (...args: string[]) =>
      runProgram(process.execPath, [
        path.join(ROOT, "scripts/check-nightly.mjs"),
        ...["--schedules", "5", "--jobs", "2", "--results", results],
        ...args,
      ]);
    try {
      const first = await nightly("--scenario", "get+synchronize");
      expect(first.stdout).toMatch(/\[1\/1\] get\+synchronize: \d schedules, all of them, and 1000 random ones in/);
      appendFileSync(results, '{"build":"cut o');
      const both = ["--scenario", "get+synchronize", "--scenario", "range-fault+fork"];
      const second = await nightly(...both);
      expect(second.stdout).toContain("2 scenarios, 1 of them done before");
      expect(second.stdout).toMatch(/range-fault\+fork: 5 schedules, not all, and 5 random ones in/);
      expect(second.stdout).toMatch(/2 scenarios, 1 of them exhausted: \d+ schedules in order, 1005 random .* wrong/);
      const third = await nightly(...both, "--json");
      expect(third.stderr).toContain("2 of them done before");
      expect(JSON.parse(third.stdout)).toMatchObject({ ok: true, complete: 1, random: 1005, seed: 1, failures: [] });
      expect([first.status, second.status]).toEqual([0, 0]);
      expect((await nightly("--scenario", "nap+sleep")).status).toBe(2);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });

  test.each([
    ["an unknown scenario", ["--scenario", "nap+sleep"], "there is no scenario"],
    ["an unknown driver", ["--driver", "amdgpu"], "there is no driver"],
    ["a count that is none", ["--schedules", "many"], "--schedules takes a whole number"],
    ["no schedules", ["--schedules", "0"], "--schedules takes a whole number from 1 up"],
    ["a limit of nothing", ["--exhaustive", "0"], "--exhaustive takes a whole number from 1 up"],
    ["a schedule that is none", ["--replay", "x"], "is no schedule"],
  ])("%s is wrong usage", async (_, args, message) => {
    const { status, stderr } = await pagemirror(["check", ...args]);
    expect(stderr).toContain(message);
    expect(status).toBe(2);
  });
});
