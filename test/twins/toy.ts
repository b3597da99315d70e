/** What the twins share: the smallest space, device and notifier on which each known bug can be shown. */
import type { Host, Scenario, ScenarioTask } from "../../src/check/index.ts";
import { Mutex, Srcu } from "../../src/sync/index.ts";

/** One page: the CPU's entry, a device's, and the lock that the device's sync callback and its commit both take. */
export class ToyPage {
  /** A frame number; 0 for none. */
  pte = 1;
  device = 0;
  readonly update = new Mutex("update");
  readonly #host: Host;

  constructor(host: Host) {
    this.#host = host;
  }

  /** The device lets go, before the CPU's entry changes. */
  async sync(): Promise<void> {
    using _ = await this.update.lock();
    this.device = 0;
    this.#host.note(() => "sync: the device lets go");
  }

  change(): void {
    this.pte++;
    this.#host.note(() => `the CPU's entry names frame ${this.pte} now`);
  }

  commit(frame: number): void {
    this.device = frame;
    this.#host.note(() => `the device is told frame ${frame}`);
  }

  /** I-HMM-1 of the real code. */
  check(): void {
    if (this.device !== 0 && this.device !== this.pte) {
      this.#host.fail("I-HMM-1", `the device has frame ${this.device}, the CPU frame ${this.pte}`);
    }
  }
}

/** An object that callbacks use, and that must not be freed meanwhile. */
export class ToyNotifier {
  users = 1;
  freed = false;
  running = 0;
  readonly #host: Host;

  constructor(host: Host) {
    this.#host = host;
  }

  free(): void {
    this.#host.note(() => "free");
    if (this.freed) {
      this.#host.fail("I-MN-3", "freed twice");
    }
    if (this.running > 0) {
      this.#host.fail("I-MN-3", "freed while a callback runs");
    }
    this.freed = true;
  }

  async callback(): Promise<void> {
    this.#host.note(() => "callback begins");
    if (this.freed) {
      this.#host.fail("I-MN-3", "a callback of a notifier that is freed");
    }
    this.running++;
    await undefined;
    this.running--;
    this.#host.note(() => "callback ends");
  }
}

/** A list of notifiers under SRCU, as the real one. */
export class ToyList {
  readonly srcu = new Srcu();
  list: readonly ToyNotifier[] = [];

  unlist(notifier: ToyNotifier): void {
    this.list = this.list.filter((other) => other !== notifier);
  }

  /** Calls all that are listed, one after the other. */
  async invalidate(): Promise<void> {
    await this.srcu.read(async () => {
      for (const notifier of this.list) {
        await undefined;
        await notifier.callback();
      }
    });
  }
}

/** A scenario of a twin; the tasks are set up for each run. */
export function twin(
  name: string,
  start: (host: Host) => { readonly tasks: readonly ScenarioTask[]; readonly check?: () => void },
): Scenario {
  return {
    name,
    async start(host) {
      const { tasks, check } = start(host);
      return { tasks, check: check ?? (() => {}), finish: async () => {}, checkEnd: () => {} };
    },
  };
}
