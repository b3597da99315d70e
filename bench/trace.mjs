/**
 * What tracing costs. On: dispatches over 256 MiB of which 1 % was rewritten, with a trace file and without, in turn. Off: the
 * looks at `traceOn` that such a dispatch takes, counted, times what one look costs, as a share of the dispatch.
 * And how long a trace file of a million events takes to load.
 */
import { closeSync, mkdtempSync, openSync, rmSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { listenToTrace, traceNow, traceOn } from "../dist/base/index.js";
import { loadTrace } from "../dist/cli/inspect.js";
import { ChromeTraceWriter, open, writeTrace } from "../dist/node.js";
import { dirtyPages, KERNEL, mirrored, PAGES } from "./bind.mjs";
import { median, milliseconds } from "./measure.mjs";

const PAGE = 4096;
/** Blocks of rounds with a trace file and without, in turn; the first rounds of each do not count. */
const BLOCKS = 8;
const ROUNDS = 30;
const WARM_UP = 20;
const LOOKS = 20_000_000;
/** Looks at the variable for each event that would have been sent: its start, its end, and those that send nothing. */
const LOOKS_PER_EVENT = 3;

/** The lower quartile. */
function quickest(values) {
  return [...values].sort((a, b) => a - b)[values.length >> 2];
}

async function overhead(pm, folder) {
  const ours = await mirrored(pm, KERNEL);
  const run = (round) => ours.run(dirtyPages(round), round);
  const times = { off: [], on: [] };
  for (let block = 0; block < BLOCKS; block++) {
    // Open for all rounds of a block, so that what its thread does while the next round runs is paid for by that round.
    const file = block % 2 === 0 ? writeTrace(path.join(folder, "run.json")) : undefined;
    for (let i = 0; i < WARM_UP + ROUNDS; i++) {
      const ms = await milliseconds(() => run(block * (WARM_UP + ROUNDS) + i));
      if (i >= WARM_UP) {
        times[file ? "on" : "off"].push(ms);
      }
    }
    await file?.close();
  }
  let events = 0;
  const stop = listenToTrace(() => {
    events++;
  });
  await run(-1);
  stop();
  // The quarter of the rounds that nothing else on the machine disturbed: disturbances are larger than what is measured.
  const [off, on] = [quickest(times.off), quickest(times.on)];
  const looks = events * LOOKS_PER_EVENT;
  return { off, on, looks };
}

/** Nanoseconds of one look at the variable, as a tracepoint takes it. */
function lookNs() {
  let seen = 0;
  const turns = (look) => {
    const started = performance.now();
    for (let i = 0; i < LOOKS; i++) {
      seen += look ? traceNow() + (traceOn ? 1 : 0) : i & 1;
    }
    return performance.now() - started;
  };
  const rounds = Array.from({ length: 5 }, () => turns(true) - turns(false));
  if (seen < 0) {
    throw new Error("nobody comes here; the loop is not taken out");
  }
  return Math.max(0, (median(rounds) / LOOKS) * 1e6);
}

function writeMillion(file) {
  const out = openSync(file, "w");
  const writer = new ChromeTraceWriter((text) => void writeSync(out, text), 0);
  const range = (page, pages) => ({ space: 1, start: page * PAGE, end: (page + pages) * PAGE });
  writer.add({ name: "mm.map", at: 0, duration: 0, fields: { ...range(0, PAGES), name: "data", write: true } });
  for (let i = 1; i < 1_000_000; i++) {
    const at = i / 100;
    const fields = range((i * 7919) % PAGES, 1);
    writer.add(
      i % 2 === 0
        ? { name: "mm.fault", at, duration: 0.004, fields: { ...fields, write: true, device: false } }
        : { name: "gpu.upload", at, duration: 0.008, fields: { device: "gpu", ...fields, pages: 1, bytes: PAGE } },
    );
  }
  writer.end();
  closeSync(out);
}

export async function metrics() {
  const folder = mkdtempSync(path.join(tmpdir(), "pagemirror-trace-"));
  try {
    const pm = await open();
    const { off, on, looks } = await overhead(pm, folder).finally(() => pm.close());
    const file = path.join(folder, "million.json");
    writeMillion(file);
    const loads = [];
    for (let i = 0; i < 3; i++) {
      loads.push(await milliseconds(() => loadTrace(file)));
    }
    return [
      { name: "trace.off.overhead_pct", value: (100 * looks * lookNs()) / (off * 1e6), unit: "%", better: "lower" },
      { name: "trace.on.overhead_pct", value: 100 * (on / off - 1), unit: "%", better: "lower" },
      { name: "inspect.load_1m_events_ms", value: median(loads), unit: "ms", better: "lower" },
    ];
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
