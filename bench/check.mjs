/** The schedule explorer: schedules a second, setting up and checking included. */

import { instantiate } from "../dist/check/explored.js";
import { Explorer } from "../dist/check/index.js";
import { interleaved, milliseconds } from "./measure.mjs";

const ROUNDS = 5;
/** Schedules of each scenario a round. */
const SCHEDULES = 20;

export async function metrics() {
  const explorer = new Explorer(instantiate);
  const pairs = explorer.namesOf("dmirror").filter((name) => name.split("+").length === 2);
  let seed = 0;
  const rate = async () => {
    seed++;
    const ms = await milliseconds(() => {
      for (const name of pairs) {
        const { failure } = explorer.random(name, SCHEDULES, seed);
        if (failure !== undefined) {
          throw new Error(`${failure.schedule}: ${failure.violation.message}`);
        }
      }
    });
    return (pairs.length * SCHEDULES * 1000) / ms;
  };
  await interleaved(1, { rate });
  const figures = await interleaved(ROUNDS, { rate });
  return [{ name: "check.schedules_per_s", value: figures.rate, unit: "1/s", better: "higher" }];
}
