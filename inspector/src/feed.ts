/** Brings the events from the server that served this page. */
import { EventStore } from "../../src/inspect/index.ts";

/** What the server says about its store. */
export interface FeedStatus {
  readonly count: number;
  readonly samples: number;
  readonly dropped: number;
  readonly live: boolean;
}

/** Where the events come from. */
export interface EventFeed {
  readonly store: EventStore;
  readonly status: Pick<FeedStatus, "dropped" | "live">;
  /** What is wrong with the source. */
  readonly failure: string | undefined;
  /** Starts to listen. */
  start(): void;
}

/** Follows the server's store; `onChange` is called when rows came, or the status changed. */
export class Feed implements EventFeed {
  readonly store = new EventStore();
  status: FeedStatus = { count: 0, samples: 0, dropped: 0, live: false };
  failure: string | undefined;
  readonly #token: string;
  readonly #onChange: () => void;
  #busy = false;

  constructor(token: string, onChange: () => void) {
    this.#token = token;
    this.#onChange = onChange;
  }

  /** Starts to listen. */
  start(): void {
    const source = new EventSource(`/live?token=${encodeURIComponent(this.#token)}`);
    source.onmessage = ({ data }: MessageEvent<string>) => {
      this.failure = undefined;
      this.status = JSON.parse(data) as FeedStatus;
      void this.#fetch();
    };
    source.onerror = () => {
      this.failure = this.status.count === 0 ? "the server does not answer: is the command still running?" : undefined;
      this.status = { ...this.status, live: false };
      this.#onChange();
    };
  }

  async #fetch(): Promise<void> {
    if (this.#busy) {
      return;
    }
    this.#busy = true;
    try {
      while (this.store.count < this.status.count || this.store.samples.length < this.status.samples) {
        const { count, samples } = this.store;
        const query = `token=${encodeURIComponent(this.#token)}&from=${count}&samples=${samples.length}`;
        const response = await fetch(`/events?${query}`);
        if (!response.ok) {
          throw new Error(`the server answered ${response.status}`);
        }
        this.store.append(await response.arrayBuffer());
        if (this.store.dropped > 0) {
          break;
        }
      }
    } catch (error) {
      this.failure = String(error);
    } finally {
      this.#busy = false;
      this.#onChange();
    }
  }
}
