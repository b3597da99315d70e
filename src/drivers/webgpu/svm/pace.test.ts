import { expect, test } from "vitest";
import { Pace } from "./pace.ts";

const quickRounds = (pace: Pace) => [0, 1, 2, 3, 4].filter((round) => pace.isQuick(round));

test("the first slice is thorough, the next ones are quick for as many rounds as it took", () => {
  const pace = new Pace();
  expect(quickRounds(pace)).toEqual([]);
  pace.note(3);
  expect(quickRounds(pace)).toEqual([0, 1, 2]);
  pace.note(1);
  pace.note(3);
  expect(quickRounds(pace)).toEqual([0, 1, 2]);
});

test("the last round of those that a slice takes is known, but for a first one", () => {
  const lastRounds = (pace: Pace) => [0, 1, 2, 3, 4].filter((round) => pace.isLast(round));
  const pace = new Pace();
  expect(lastRounds(pace)).toEqual([]);
  pace.note(3);
  expect(lastRounds(pace)).toEqual([2]);
  // A disappointment: the next slice is thorough, and the one after it has as many rounds as that took.
  pace.note(4);
  expect(lastRounds(pace)).toEqual([]);
  pace.note(1);
  expect(lastRounds(pace)).toEqual([]);
});

test("where quick rounds are more, slices are thorough again, ever more of them before the next try", () => {
  const pace = new Pace();
  pace.note(2);
  const thorough: number[] = [];
  for (let tries = 0; tries < 7; tries++) {
    pace.note(3);
    let slices = 0;
    while (!pace.isQuick(0)) {
      pace.note(2);
      slices++;
    }
    thorough.push(slices);
  }
  expect(thorough).toEqual([1, 2, 4, 8, 16, 16, 16]);
});

test("a try that went well makes the next disappointment a small one", () => {
  const pace = new Pace();
  for (const rounds of [2, 3, 2, 3, 2, 2, 2]) {
    pace.note(rounds);
  }
  pace.note(3);
  pace.note(2);
  expect(pace.isQuick(0)).toBe(true);
});

test("scouts are sent where a first round got nothing done, and waited with when that was no better", () => {
  const pace = new Pace();
  expect(pace.sendsScouts).toBe(false);
  pace.note(2, true);
  expect([pace.sendsScouts, pace.trustsScouts]).toEqual([true, false]);
  pace.noteScouted(2, true);
  expect([pace.sendsScouts, pace.trustsScouts]).toEqual([true, true]);
  const without: number[] = [];
  for (const rounds of [3, 4, 3]) {
    pace.noteScouted(rounds, true);
    let slices = 0;
    for (; !pace.sendsScouts; slices++) {
      pace.note(2, true);
    }
    without.push(slices);
  }
  expect(without).toEqual([1, 2, 4]);
  expect(pace.trustsScouts).toBe(false);
});

test("scouts that miss little are sent no more until a first round is in vain again", () => {
  const pace = new Pace();
  pace.note(2, true);
  pace.noteScouted(2, false);
  expect(pace.sendsScouts).toBe(false);
  pace.note(2, false);
  pace.note(2, false);
  expect(pace.sendsScouts).toBe(false);
  pace.note(2, true);
  expect(pace.sendsScouts).toBe(true);
});
