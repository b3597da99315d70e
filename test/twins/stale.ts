/** Twins of mirrors: a device that keeps what the CPU has changed, and the same done as it should be. */
import { WaitQueue } from "../../src/sync/index.ts";
import { ToyPage, twin } from "./toy.ts";

/** 5.4's `range.valid` is a flag: a start and an end between the walk and the check go unseen. */
function validAba(fixed: boolean) {
  return twin(fixed ? "range-valid-aba.fixed" : "range-valid-aba", (host) => {
    const page = new ToyPage(host);
    const range = { valid: true, generation: 0, seen: 0 };
    return {
      check: () => page.check(),
      tasks: [
        {
          name: "fault",
          run: async () => {
            if (!range.valid) {
              return;
            }
            range.seen = range.generation;
            const frame = page.pte;
            host.note(() => `walk: frame ${frame}`);
            await undefined;
            using _ = await page.update.lock();
            if (range.valid && (!fixed || range.seen === range.generation)) {
              page.commit(frame);
            }
          },
        },
        {
          name: "invalidate",
          run: async () => {
            range.valid = false;
            range.generation++;
            await page.sync();
            page.change();
            range.valid = true;
            host.note(() => "end: the range is valid again");
          },
        },
      ],
    };
  });
}

/** A sequence count, odd while an invalidation is under way, as interval notifiers have it. */
class Sequence {
  #value = 0;
  readonly #wq = new WaitQueue();

  async begin(): Promise<number> {
    // The condition may fail again between the wake-up and this task's turn.
    while (this.#value % 2 !== 0) {
      await this.#wq.wait(() => this.#value % 2 === 0);
    }
    return this.#value;
  }

  retry(seen: number): boolean {
    return seen !== this.#value;
  }

  step(): void {
    this.#value++;
    this.#wq.wakeAll();
  }
}

/** The sequence is compared before the lock is taken under which the entry is made. */
function unlockedRetry(fixed: boolean) {
  return twin(fixed ? "unlocked-read-retry.fixed" : "unlocked-read-retry", (host) => {
    const page = new ToyPage(host);
    const sequence = new Sequence();
    return {
      check: () => page.check(),
      tasks: [
        {
          name: "fault",
          run: async () => {
            for (;;) {
              const seen = await sequence.begin();
              const frame = page.pte;
              host.note(() => `walk: frame ${frame}`);
              await undefined;
              if (!fixed && sequence.retry(seen)) {
                continue;
              }
              using _ = await page.update.lock();
              if (fixed && sequence.retry(seen)) {
                continue;
              }
              page.commit(frame);
              return;
            }
          },
        },
        {
          name: "invalidate",
          run: async () => {
            {
              using _ = await page.update.lock();
              sequence.step();
              page.device = 0;
            }
            page.change();
            await undefined;
            sequence.step();
          },
        },
      ],
    };
  });
}

/** The end of the invalidation is told before the CPU's entry changes: a fault in between reads the old one. */
function endFirst(fixed: boolean) {
  return twin(fixed ? "end-before-change.fixed" : "end-before-change", (host) => {
    const page = new ToyPage(host);
    const sequence = new Sequence();
    return {
      check: () => page.check(),
      tasks: [
        {
          name: "fault",
          run: async () => {
            for (;;) {
              const seen = await sequence.begin();
              const frame = page.pte;
              host.note(() => `walk: frame ${frame}`);
              using _ = await page.update.lock();
              if (!sequence.retry(seen)) {
                page.commit(frame);
                return;
              }
            }
          },
        },
        {
          name: "invalidate",
          run: async () => {
            sequence.step();
            await page.sync();
            if (fixed) {
              page.change();
            }
            sequence.step();
            host.note(() => "end");
            if (!fixed) {
              await undefined;
              page.change();
            }
          },
        },
      ],
    };
  });
}

/** Each bug and its repair. */
export const stale = [validAba, unlockedRetry, endFirst].flatMap((make) => [make(false), make(true)]);
