import { expect, test } from "vitest";
import { nextLane } from "./windows.ts";

test("all of a workgroup get their turn, wherever the workgroup before left off and however many run at a time", () => {
  const count = 64;
  for (let begin = 0; begin < count; begin++) {
    for (let lanes = 1; lanes < count; lanes++) {
      const ran = new Set<number>();
      for (let turn = 0, first = begin; turn <= count; turn++, first = nextLane(first, lanes, count)) {
        for (let lane = first; lane < Math.min(count, first + lanes); lane++) {
          ran.add(lane);
        }
      }
      expect(ran.size).toBe(count);
    }
  }
});
