/** `pagemirror inspect`: shows a trace file in a browser. */
import { createReadStream } from "node:fs";
import { EventStore, TraceLoader } from "../inspect/index.ts";
import { fileError } from "./errors.ts";
import { InspectServer } from "./inspect-server.ts";
import { untilInterrupted } from "./run-watch.ts";

/** Loads a trace file. @throws KernelError ENOENT, EISDIR, EACCES of the file; EINVAL it is no trace */
export async function loadTrace(path: string, op = "inspect"): Promise<EventStore> {
  const store = new EventStore();
  const loader = new TraceLoader(store, path, op);
  try {
    const stream = createReadStream(path, { encoding: "utf8", highWaterMark: 2 ** 20 });
    for await (const text of stream as AsyncIterable<string>) {
      loader.push(text);
    }
  } catch (error) {
    throw fileError(op, path, error);
  }
  loader.end();
  return store;
}

/** Serves a trace file until Ctrl-C. @throws KernelError as {@link loadTrace}; ENOENT the page was not built */
export async function inspectCommand(path: string): Promise<void> {
  const store = await loadTrace(path);
  const server = await InspectServer.start({ store, live: false });
  const lost = store.dropped === 0 ? "" : `, ${store.dropped.toLocaleString("en-US")} more did not fit`;
  process.stderr.write(`pagemirror: ${store.count.toLocaleString("en-US")} events${lost}; Ctrl-C ends\n`);
  process.stdout.write(`${server.url}\n`);
  await untilInterrupted();
  await server.close();
}
