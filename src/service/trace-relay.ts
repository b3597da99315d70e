/** Events of tracepoints on their way from the thread that owns the memory to the one that listens. */
import { addTraceSink, relayTrace, watchTrace } from "../base/index.ts";
import { type AddressSpace, traceSpace } from "../mm/index.ts";
import { type EventChunk, EventPacker, EventUnpacker, ROW_STRIDE } from "../trace/index.ts";

/** Events of one message, at most, and how long they wait for it. */
const MOST_WAITING = 2048;
const SEND_EVERY_MS = 50;

/** Events as they are sent. */
export interface TracedChunk extends EventChunk {
  /** Where the sender's clock begins. */
  readonly timeOrigin: number;
}

/** The side where things happen: sends events as long as they are wanted. */
export class TraceSender {
  readonly #send: (chunk: TracedChunk) => void;
  readonly #packer = new EventPacker(new Float64Array(MOST_WAITING * ROW_STRIDE), {
    onFirst: () => {
      this.#timer = setTimeout(() => this.#flush(), SEND_EVERY_MS);
    },
    onFull: () => this.#flush(),
  });
  #timer: ReturnType<typeof setTimeout> | undefined;
  #stop: (() => void) | undefined;
  #ended = false;

  constructor(send: (chunk: TracedChunk) => void) {
    this.#send = send;
  }

  /** Whether somebody listens. Whoever begins to is told first what is mapped in `spaces`. */
  want(wanted: boolean, spaces: Iterable<AddressSpace> = []): void {
    if (!wanted) {
      this.#stop?.();
      this.#stop = undefined;
      this.#flush();
    } else if (this.#stop === undefined && !this.#ended) {
      this.#stop = addTraceSink(this.#packer);
      for (const mm of spaces) {
        traceSpace(mm);
      }
    }
  }

  /** Sends what is left, and no more. */
  end(): void {
    this.#ended = true;
    this.want(false);
  }

  #flush(): void {
    clearTimeout(this.#timer);
    if (!this.#packer.empty) {
      const { rows, texts } = this.#packer.takeChunk();
      this.#send({ rows: rows.slice(), texts, timeOrigin: performance.timeOrigin });
    }
  }
}

/** The side that listens: tells the sender whenever that begins or ends, until it is disposed of. */
export class TraceReceiver implements Disposable {
  readonly #unpacker = new EventUnpacker();
  readonly #unwatch: () => void;

  constructor(tell: (wanted: boolean) => void) {
    this.#unwatch = watchTrace(tell);
  }

  /** Tells listeners of this thread, in the time of this thread. */
  receive(chunk: TracedChunk): void {
    const later = chunk.timeOrigin - performance.timeOrigin;
    for (const event of this.#unpacker.unpack(chunk)) {
      relayTrace({ ...event, at: event.at + later });
    }
  }

  [Symbol.dispose](): void {
    this.#unwatch();
  }
}
