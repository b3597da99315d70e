/** Tasks that meet in places that are easily overlooked. Each program says how it ended. */
import type { Explored, Scenario } from "../../src/check/scenario.ts";

/** A program and the ways in which it ended so far. */
export interface Meeting extends Scenario {
  readonly outcomes: Set<string>;
}

type Task = () => Promise<void>;

/** What is made anew for each run: the tasks, and how they ended. */
interface Parts {
  readonly tasks: readonly Task[];
  result(): unknown;
}

function meeting(name: string, make: () => Parts): Meeting {
  const outcomes = new Set<string>();
  return {
    name,
    outcomes,
    async start() {
      const { tasks, result } = make();
      return {
        tasks: tasks.map((run, i) => ({ name: `task ${i}`, run })),
        check: () => {},
        finish: async () => {},
        checkEnd: () => void outcomes.add(JSON.stringify(result())),
      };
    },
  };
}

export const scenarios: readonly Meeting[] = [
  meeting("a variable that closures share", () => {
    let count = 0;
    const add = async () => {
      const seen = count;
      await undefined;
      count = seen + 1;
    };
    return { tasks: [add, add], result: () => count };
  }),
  meeting("a variable that is counted up and looked at", () => {
    let count = 0;
    const seen: number[] = [];
    const add = async () => {
      count++;
      await undefined;
      seen.push(count);
    };
    return { tasks: [add, add], result: () => seen };
  }),
  meeting("a copy of an object", () => {
    const shared = { a: 0, b: 0 };
    const first = async () => {
      const copy = { ...shared };
      await undefined;
      shared.a = copy.b + 1;
    };
    const second = async () => {
      const copy = { ...shared };
      await undefined;
      shared.b = copy.a + 1;
    };
    return { tasks: [first, second], result: () => shared };
  }),
  meeting("a promise that two settle", () => {
    let settle: (value: string) => void = () => {};
    let value = "";
    const promise = new Promise<string>((resolve) => {
      settle = resolve;
    });
    promise.then((settled) => {
      value = settled;
    });
    return { tasks: ["a", "b"].map((name) => async () => settle(name)), result: () => value };
  }),
  meeting("a map that somebody walks through while another one adds", () => {
    const map = new Map([[1, "a"]]);
    const seen: number[] = [];
    const walk = async () => {
      for (const [key] of map) {
        await undefined;
        seen.push(key);
      }
    };
    const change = async () => {
      await undefined;
      map.set(2, "b");
    };
    return { tasks: [walk, change], result: () => seen };
  }),
  meeting("an element behind two views", () => {
    const words = new Uint32Array(4);
    const view = words.subarray(1);
    const first = async () => {
      const before = words[1];
      await undefined;
      words[1] = before + 1;
    };
    const second = async () => {
      const before = view[0];
      await undefined;
      view[0] = before + 2;
    };
    return { tasks: [first, second], result: () => words[1] };
  }),
];

export const connect: Explored["connect"] = () => {};
