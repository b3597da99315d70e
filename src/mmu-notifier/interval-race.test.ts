/** A driver with one page over an interval notifier, in orders that fast-check chooses; and drivers that leave a step out. */
import fc from "fast-check";
import { expect, test } from "vitest";
import type { AddressSpace } from "../mm/index.ts";
import { lockdepTask, Mutex } from "../sync/index.ts";
import { bugs } from "../testing/bugs.ts";
import { BASE, createSpace, invalidation } from "../testing/spaces.ts";
import { MmuIntervalNotifier } from "./index.ts";

const P = 4096;

/** A step of the protocol that a driver leaves out. */
type Flaw = "none" | "no setSeq" | "no readRetry";

/** The CPU's page is a number that only grows; the device may hold the present one, or nothing. */
class World {
  readonly mm: AddressSpace = createSpace();
  readonly update = new Mutex("update");
  readonly sub: MmuIntervalNotifier;
  cpu = 0;
  device: number | undefined;
  invalidating = 0;
  readonly #s: fc.Scheduler;
  readonly #flaw: Flaw;

  constructor(s: fc.Scheduler, flaw: Flaw) {
    this.#s = s;
    this.#flaw = flaw;
    this.sub = new MmuIntervalNotifier({
      name: flaw,
      invalidate: async (notifier, _range, curSeq) => {
        await this.pause("invalidate");
        using _ = await this.update.lock();
        if (flaw !== "no setSeq") {
          notifier.setSeq(curSeq);
        }
        this.device = undefined;
        return () => this.pause("finish");
      },
    });
  }

  async pause(label: string): Promise<void> {
    await this.#s.schedule(Promise.resolve(), label);
  }

  read(): Promise<void> {
    return lockdepTask("reader", () => this.#read());
  }

  async #read(): Promise<void> {
    for (let tries = 0; tries < 20; tries++) {
      const seq = await this.sub.readBegin();
      await this.pause("begun");
      const seen = this.cpu;
      await this.pause("read");
      using _ = await this.update.lock();
      if (this.#flaw === "no readRetry" || !this.sub.readRetry(seq)) {
        this.device = seen;
        return;
      }
    }
    throw new Error("no progress");
  }

  change(): Promise<void> {
    return lockdepTask("changer", () => this.#change());
  }

  async #change(): Promise<void> {
    const range = invalidation(this.mm, 0, 1);
    await this.mm.notifiers?.invalidateRangeStart(range);
    this.invalidating++;
    try {
      this.expectFresh();
      await this.pause("change");
      this.expectFresh();
    } finally {
      this.cpu++;
      this.invalidating--;
      await this.mm.notifiers?.invalidateRangeEnd(range);
    }
    this.expectFresh();
  }

  resubscribe(): Promise<void> {
    return lockdepTask("subscriber", () => this.#resubscribe());
  }

  async #resubscribe(): Promise<void> {
    await this.sub.remove();
    this.device = undefined;
    await this.pause("removed");
    await this.sub.insert(this.mm, BASE, P);
  }

  /** Between a start and its end the device has nothing; otherwise it has nothing old. */
  expectFresh(): void {
    expect(this.device === undefined || (this.invalidating === 0 && this.device === this.cpu)).toBe(true);
  }

  end(): Promise<void> {
    return lockdepTask("end", () => this.#end());
  }

  async #end(): Promise<void> {
    if (this.sub.isInserted) {
      await this.sub.remove();
    }
    await this.mm.mmput();
  }
}

const plan = fc.record({
  readers: fc.integer({ min: 1, max: 3 }),
  changes: fc.integer({ min: 1, max: 3 }),
});

const property = (flaw: Flaw) =>
  fc.asyncProperty(fc.scheduler(), plan, async (s, { readers, changes }) => {
    const world = new World(s, flaw);
    await world.sub.insert(world.mm, BASE, P);
    const tasks = [
      ...Array.from({ length: readers }, () => async () => {
        await world.pause("reader");
        await world.read();
        world.expectFresh();
      }),
      ...Array.from({ length: changes }, () => async () => {
        await world.pause("changer");
        await world.change();
      }),
    ];
    const all = Promise.allSettled(tasks.map((task) => task()));
    const outcomes = await s.waitFor(all);
    await s.waitFor(world.end());
    const reports = bugs.splice(0).map((bug) => bug.invariant);
    expect(outcomes.filter(({ status }) => status === "rejected")).toEqual([]);
    expect(reports).toEqual([]);
  });

test("in every schedule the device holds nothing old, nothing hangs, nothing leaks", async () => {
  await fc.assert(property("none"), { numRuns: 400 });
});

test.each(["no setSeq", "no readRetry"] as const)("a driver with %s is found out", async (flaw) => {
  expect((await fc.check(property(flaw), { numRuns: 200 })).failed).toBe(true);
});

test("I-MN-2: without setSeq the device keeps what is old, report or no report", async () => {
  const stale = fc.asyncProperty(fc.scheduler(), async (s) => {
    const world = new World(s, "no setSeq");
    await world.sub.insert(world.mm, BASE, P);
    await s.waitFor(Promise.allSettled([world.read(), world.change()]));
    const fresh = world.device === undefined || world.device === world.cpu;
    await s.waitFor(world.end());
    bugs.length = 0;
    expect(fresh).toBe(true);
  });
  expect((await fc.check(stale, { numRuns: 200 })).failed).toBe(true);
});

test("removed and inserted again in any order with invalidations: the last subscription is told, and none twice", async () => {
  await fc.assert(
    fc.asyncProperty(fc.scheduler(), fc.integer({ min: 1, max: 3 }), async (s, changes) => {
      const world = new World(s, "none");
      await world.sub.insert(world.mm, BASE, P);
      const outcomes = await s.waitFor(
        Promise.allSettled([world.resubscribe(), ...Array.from({ length: changes }, () => world.change())]),
      );
      expect(outcomes.filter(({ status }) => status === "rejected")).toEqual([]);
      const before = await world.sub.readBegin();
      await s.waitFor(world.change());
      expect(world.sub.readRetry(before)).toBe(true);
      await s.waitFor(world.end());
      expect([world.mm.users, world.mm.count]).toEqual([0, 0]);
    }),
    { numRuns: 200 },
  );
});
