/** No place where tasks may meet is overlooked: the reduction ends in all the ways in which all schedules end. */
import { expect, test } from "vitest";
import { exhaust } from "../src/check/exhaustive.ts";
import { Scheduler } from "../src/check/scheduler.ts";
import { replay } from "../src/check/strategy.ts";
import { loadBundle } from "./support/explored.ts";
import type { Meeting } from "./twins/meetings.ts";

const ENTRY = "test/twins/meetings.ts";

async function load(record: boolean): Promise<{ scheduler: Scheduler; meetings: readonly Meeting[] }> {
  const { instantiate } = await loadBundle(ENTRY, { record });
  const scheduler = new Scheduler();
  const explored = scheduler.recorder.load(() => instantiate(scheduler.globals));
  return { scheduler, meetings: explored.scenarios as readonly Meeting[] };
}

/** Runs all schedules, one after the other: the last choice that has another one left is changed. */
function runAll(scheduler: Scheduler, meeting: Meeting): number {
  let runs = 0;
  for (let choices: number[] | undefined = []; choices !== undefined; ) {
    const ready: number[] = [];
    const follow = replay(choices);
    const outcome = scheduler.run(meeting, {
      choose: (count, jobs) => {
        ready.push(count);
        return follow(count, jobs);
      },
    });
    expect(outcome.violation).toBeUndefined();
    runs++;
    const last = outcome.choices.findLastIndex((choice, i) => choice + 1 < ready[i]);
    choices = last < 0 ? undefined : [...outcome.choices.slice(0, last), outcome.choices[last] + 1];
  }
  return runs;
}

test("every way in which all schedules end is found by fewer of them", async () => {
  const plain = await load(false);
  const recorded = await load(true);
  for (const [i, meeting] of plain.meetings.entries()) {
    const runs = runAll(plain.scheduler, meeting);
    const reduced = recorded.meetings[i];
    const { complete, schedules } = exhaust(recorded.scheduler, reduced, 1000);
    expect([meeting.name, complete, [...reduced.outcomes].sort()]).toEqual([
      meeting.name,
      true,
      [...meeting.outcomes].sort(),
    ]);
    expect(meeting.outcomes.size, meeting.name).toBeGreaterThan(1);
    expect(schedules, meeting.name).toBeLessThanOrEqual(runs);
  }
}, 60_000);
