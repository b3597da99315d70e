/** The thread of a trace file: makes text of events and writes it, until it is told to end. */
import { writeSync } from "node:fs";
import { setPriority } from "node:os";
import { parentPort, receiveMessageOnPort, workerData } from "node:worker_threads";
import { ChromeTraceWriter } from "../../trace/index.ts";
import { type SharedRows, type ToTraceFile, TraceFileState } from "./trace-file.ts";

/** A quarter of what others get of a processor that all want: what is traced is still written as fast as it comes. */
const POLITE = 6;

/** How often it looks for rows: seldom, because each time it takes a processor from what is traced, and many at once cost less. */
const LOOK_EVERY_MS = 50;

const { file, state, origin } = workerData as {
  readonly file: number;
  readonly state: Int32Array;
  readonly origin: number;
};

// Where processors are few, the traced program and a GPU in software come first. Elsewhere this is about the process.
if (process.platform === "linux") {
  setPriority(POLITE);
}

let failed = false;
const writer = new ChromeTraceWriter((piece) => {
  if (failed) {
    return;
  }
  try {
    writeSync(file, piece);
  } catch (error) {
    failed = true;
    // An error that is sent to another thread loses its code.
    parentPort?.postMessage({ code: (error as NodeJS.ErrnoException).code, message: String(error) });
  }
}, origin);

const all: SharedRows[] = [];
let texts: string[] = [];
let written = 0;
let last = false;

function take(told: ToTraceFile): void {
  if (told === "end") {
    last = true;
  } else if ("chunk" in told) {
    all.push(told);
  } else {
    texts.push(...told);
  }
}

/** Messages that came before a chunk, but were not delivered yet. */
function takeSent(): void {
  for (let sent = receive(); sent !== undefined; sent = receive()) {
    take(sent.message);
  }
}

function receive(): { readonly message: ToTraceFile } | undefined {
  return parentPort === null ? undefined : receiveMessageOnPort(parentPort);
}

/** Writes the chunks that are there, in order, and ends the file after the last. */
function look(): void {
  for (let next = nextChunk(); next !== undefined; next = nextChunk()) {
    takeSent();
    const { rows, chunk } = next;
    writer.addChunk({ rows: rows.subarray(0, chunk[1]), texts });
    texts = [];
    written++;
    Atomics.store(chunk, 0, 0);
  }
  writer.flush();
  if (last) {
    end();
  }
}

function end(): void {
  clearInterval(looking);
  writer.end();
  Atomics.store(state, 0, TraceFileState.Ended);
  Atomics.notify(state, 0);
  parentPort?.close();
}

function nextChunk(): SharedRows | undefined {
  return all.find(({ chunk }) => Atomics.load(chunk, 0) === written + 1);
}

const looking = setInterval(look, LOOK_EVERY_MS);
parentPort?.on("message", (told: ToTraceFile) => {
  take(told);
  if (last) {
    look();
  }
});
