import { expect, test, vi } from "vitest";
import { PollPause } from "./poll-pause.ts";

const turn = () => new Promise((resolve) => setImmediate(resolve));

async function turns(count: number): Promise<void> {
  for (let i = 0; i < count; i++) {
    await turn();
  }
}

/** Turns of an event loop whose every turn has something to do. */
async function busyTurns(count: number): Promise<void> {
  for (let i = 0; i < count; i++) {
    const begun = performance.now();
    while (performance.now() - begun < 1) {}
    await turn();
  }
}

function counted() {
  let sleeps = 0;
  return {
    pause: new PollPause(() => {
      sleeps++;
    }),
    sleeps: () => sleeps,
  };
}

test("the thread sleeps while somebody waits for long, and neither before nor after", async () => {
  const { pause, sleeps } = counted();
  await turns(20);
  expect(sleeps()).toBe(0);
  pause.begin();
  pause.begin();
  pause.end();
  while (sleeps() < 3) {
    await turn();
  }
  pause.end();
  await turn();
  const after = sleeps();
  await turns(20);
  expect(sleeps()).toBe(after);
  pause.begin();
  while (sleeps() === after) {
    await turn();
  }
  pause.end();
});

test("a loop with something else to do is not held up", async () => {
  const { pause, sleeps } = counted();
  pause.begin();
  await busyTurns(30);
  expect(sleeps()).toBe(0);
  pause.end();
});

test("a wait that has just begun is looked after without a pause", () => {
  const { pause, sleeps } = counted();
  const begun = performance.now();
  return new Promise<void>((resolve) => {
    const again = () => {
      pause.begin();
      pause.end();
      if (performance.now() - begun < 5) {
        setImmediate(again);
        return;
      }
      expect(sleeps()).toBe(0);
      pause.end();
      resolve();
    };
    pause.begin();
    again();
  });
});

test("after a long wait the next one is expected to be long", async () => {
  let clock = 0;
  const now = vi.spyOn(performance, "now").mockImplementation(() => clock);
  try {
    const { pause, sleeps } = counted();
    for (const [lasts, sleepsAtOnce] of [
      [2, false],
      [0.1, true],
      [0.1, false],
    ] as const) {
      const before = sleeps();
      pause.begin();
      await turns(3);
      expect(sleeps() > before).toBe(sleepsAtOnce);
      clock += lasts;
      pause.end();
      await turns(3);
    }
  } finally {
    now.mockRestore();
  }
});
