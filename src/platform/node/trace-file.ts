/** A trace file, written by a thread of its own: what is traced pays for a row of numbers, and not for text and disk. */
import { closeSync, openSync } from "node:fs";
import type { Worker } from "node:worker_threads";
import { addTraceSink, type Errno, KernelError } from "../../base/index.ts";
import { EventPacker, ROW_STRIDE } from "../../trace/index.ts";
import { errnoOfOpen } from "./file-pager.ts";
import { startThread } from "./start-thread.ts";

/** Events that wait to be sent, at most, and how long. */
const MOST_WAITING = 4096;
const SEND_EVERY_MS = 50;
/** How long the end of the process waits for the thread. */
const EXIT_BUDGET_MS = 5000;

/** What the thread has said in shared memory. */
export const TraceFileState = { Writing: 0, Ended: 1 } as const;

/** Why a trace cannot be written, and what to do. */
const REASONS: Partial<Record<Errno, string>> = {
  ENOENT: "cannot be made, a folder of its path is not there: make the folder, or name another file",
  EISDIR: "is a folder: name a file in it",
  EACCES: "may not be written by this user: name another file",
  ENOSPC: "does not fit on its disk: make room, or name a file elsewhere",
};

/** Rows that both threads see. The thread looks for them: to wake it, or to send them, costs what is traced more than to fill them. */
export interface SharedRows {
  readonly rows: Float64Array;
  /** Which chunk they are, counted from 1, while the thread is to write them; else 0. And how many of their numbers count. */
  readonly chunk: Int32Array;
}

/** What the thread is told: rows that it has not seen before, texts that later chunks name, or that there are no more. */
export type ToTraceFile = SharedRows | readonly string[] | "end";

function makeRows(): SharedRows {
  const buffer = new SharedArrayBuffer(8 + MOST_WAITING * ROW_STRIDE * 8);
  return { chunk: new Int32Array(buffer, 0, 2), rows: new Float64Array(buffer, 8) };
}

/** A trace file that grows until it is closed. */
export class TraceFile implements AsyncDisposable {
  readonly #path: string;
  readonly #file: number;
  readonly #all: SharedRows[] = [];
  #current = makeRows();
  #chunks = 0;
  readonly #packer = new EventPacker(this.#current.rows, {
    // Written as it comes: a run that is killed leaves a file that can be read up to there.
    onFirst: () => {
      this.#timer = setTimeout(() => this.#send(), SEND_EVERY_MS).unref();
    },
    onFull: () => this.#send(),
  });
  readonly #state = new Int32Array(new SharedArrayBuffer(4));
  readonly #thread: Worker;
  readonly #ended: Promise<void>;
  readonly #stop: () => void;
  readonly #atExit = () => this.#endNow();
  #timer: NodeJS.Timeout | undefined;
  #failure: unknown;
  #closed: Promise<void> | undefined;

  /** @internal Use {@link writeTrace}. */
  constructor(path: string) {
    this.#path = path;
    try {
      this.#file = openSync(path, "w");
    } catch (cause) {
      throw this.#error(cause);
    }
    const workerData = { file: this.#file, state: this.#state, origin: performance.now() };
    this.#thread = startThread(import.meta.url, "trace-file-thread", { workerData, name: "pagemirror trace" });
    this.#thread.unref();
    this.#thread.on("message", ({ code, message }: { readonly code?: string; readonly message: string }) => {
      this.#failure ??= Object.assign(new Error(message), { code });
    });
    this.#thread.on("error", (failure) => {
      this.#failure ??= failure;
    });
    this.#ended = new Promise((resolve) => this.#thread.once("exit", () => resolve()));
    this.#tellRows(this.#current);
    this.#stop = addTraceSink(this.#packer);
    process.once("exit", this.#atExit);
  }

  /**
   * Stops listening; on return the file is complete. Idempotent.
   * @throws KernelError ENOSPC, EIO the file could not be written
   */
  close(): Promise<void> {
    this.#closed ??= this.#close();
    return this.#closed;
  }

  async #close(): Promise<void> {
    process.off("exit", this.#atExit);
    this.#thread.ref();
    this.#sendEnd();
    await this.#ended;
    closeSync(this.#file);
    if (this.#failure !== undefined) {
      throw this.#error(this.#failure);
    }
  }

  #send(): void {
    clearTimeout(this.#timer);
    if (this.#packer.empty) {
      return;
    }
    const { chunk } = this.#current;
    this.#current = this.#freeRows();
    const { rows, texts } = this.#packer.takeChunk(this.#current.rows);
    if (texts.length > 0) {
      this.#tell(texts);
    }
    chunk[1] = rows.length;
    // Last: who sees it takes the rest for granted.
    Atomics.store(chunk, 0, ++this.#chunks);
  }

  /** Rows that the thread is done with; new ones where it has all, for what is traced does not wait. */
  #freeRows(): SharedRows {
    const free = this.#all.find((rows) => rows !== this.#current && Atomics.load(rows.chunk, 0) === 0);
    return free ?? this.#tellRows(makeRows());
  }

  #tellRows(rows: SharedRows): SharedRows {
    this.#all.push(rows);
    this.#tell(rows);
    return rows;
  }

  #tell(what: ToTraceFile): void {
    this.#thread.postMessage(what);
  }

  #sendEnd(): void {
    this.#stop();
    this.#send();
    this.#tell("end");
  }

  /** The process ends without waiting for anything: the thread gets a moment for what it has not written yet. */
  #endNow(): void {
    this.#sendEnd();
    Atomics.wait(this.#state, 0, TraceFileState.Writing, EXIT_BUDGET_MS);
  }

  #error(cause: unknown): KernelError {
    const code = errnoOfOpen(cause);
    const why = REASONS[code] ?? `${cause instanceof Error ? cause.message : String(cause)}: name another file`;
    return new KernelError(code, "trace", `${this.#path} ${why}`, { cause });
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}

/**
 * Writes every event to a file in Chrome's Trace Event format, until the file is closed: `await using file = writeTrace(path)`.
 * What was mapped before is not in it: begin before the first mmap.
 * @throws KernelError ENOENT, EISDIR, EACCES, EIO the file cannot be written
 */
export function writeTrace(path: string): TraceFile {
  return new TraceFile(path);
}
