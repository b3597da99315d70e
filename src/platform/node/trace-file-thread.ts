/** The thread of a trace file: makes text of events and writes it, until it is told to end. */
import { writeSync } from "node:fs";
import { setPriority } from "node:os";
import { parentPort, workerData } from "node:worker_threads";
import { ChromeTraceWriter } from "../../trace/index.ts";
import { type ToTraceFile, TraceFileState } from "./trace-file.ts";

/** A quarter of what others get of a processor that all want: what is traced is still written as fast as it comes. */
const POLITE = 6;

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

parentPort?.on("message", (told: ToTraceFile | "end") => {
  if (told === "end") {
    writer.end();
    Atomics.store(state, 0, TraceFileState.Ended);
    Atomics.notify(state, 0);
    parentPort?.close();
    return;
  }
  const { rows, used, texts, taken } = told;
  writer.addChunk({ rows: rows.subarray(0, used), texts });
  Atomics.store(taken, 0, 0);
  writer.flush();
});
