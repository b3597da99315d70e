/** A run as the page sees it: the worker, what it said last, and the events for the inspector. */
import type { EventFeed } from "../../../inspector/src/feed.ts";
import { EventStore } from "../../../src/inspect/index.ts";
import type { FromWorker, Job, Opened, Outcome, ToWorker } from "./messages.ts";

export class Run implements EventFeed {
  readonly job: Job;
  /** Tells runs apart. */
  readonly startedAt = performance.now();
  readonly store = new EventStore();
  status = { live: true, dropped: 0 };
  /** Of the inspector's source; what the run itself fails with is the page's to show. */
  readonly failure = undefined;
  trouble: string | undefined;
  opened: Opened | undefined;
  progress = { what: "Opening the GPU", done: 0 };
  outcome: Outcome | undefined;
  readonly #worker: Worker;
  readonly #onChange: () => void;
  /** The inspector, once it is there. */
  #onEvents: () => void = () => undefined;

  constructor(job: Job, onChange: () => void) {
    this.job = job;
    this.#onChange = onChange;
    this.#worker = new Worker(new URL("./worker.ts", import.meta.url), { type: "module", name: "pagemirror" });
    this.#worker.onmessage = ({ data }: MessageEvent<FromWorker>) => this.#hear(data);
    this.#worker.onerror = ({ message }) => this.#hear({ failure: `The worker failed: ${message}` });
    this.#send({ run: job });
  }

  get isOver(): boolean {
    return !this.status.live;
  }

  /** Events come by themselves. */
  start(): void {}

  /** Follows the events, as the inspector does. */
  readonly connect = (onEvents: () => void): EventFeed => {
    this.#onEvents = onEvents;
    return this;
  };

  stop(): void {
    this.#send({ stop: true });
  }

  #send(message: ToWorker): void {
    this.#worker.postMessage(message);
  }

  #hear({ opened, events, progress, outcome, failure }: FromWorker): void {
    this.opened = opened ?? this.opened;
    this.progress = progress ?? this.progress;
    this.outcome = outcome ?? this.outcome;
    this.trouble = failure ?? this.trouble;
    if (events !== undefined) {
      this.store.append(events);
      this.#onEvents();
    }
    if (outcome !== undefined || failure !== undefined) {
      this.status = { ...this.status, live: false };
      this.#worker.terminate();
      this.#onEvents();
    }
    this.#onChange();
  }
}
