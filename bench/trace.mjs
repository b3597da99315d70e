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
/**
 * Pairs of blocks, one with a trace file and one without, in turn. The first rounds of each do not count: a trace file's
 * thread is a new one, and compiles its code in them.
 */
const PAIRS = 10;
const ROUNDS = 40;
const WARM_UP = 40;
const LOOKS = 20_000_000;
/** Looks at the variable for each event that would have been sent: its start, its end, and those that send nothing. */
const LOOKS_PER_EVENT = 3;

async function overhead(pm, folder) {
  const ours = await mirrored(pm, KERNEL);
  let round = 0;
  /** The median of a block's rounds, in milliseconds. */
  const block = async (traced) => {
    // Open for all rounds of a block, so that what its thread does while the next round runs is paid for by that round.
    const file = traced ? writeTrace(path.join(folder, "run.json")) : undefined;
    const times = [];
    for (let i = 0; i < WARM_UP + ROUNDS; i++, round++) {
      const pages = dirtyPages(round);
      const ms = await milliseconds(() => ours.run(pages, round));
      if (i >= WARM_UP) {
        times.push(ms);
      }
    }
    await file?.close();
    return median(times);
  };
  await block(false);
  const pairs = [];
  for (let pair = 0; pair < PAIRS; pair++) {
    const traced = pair % 2 === 0;
    const [first, second] = [await block(traced), await block(!traced)];
    pairs.push(traced ? { on: first, off: second } : { on: second, off: first });
  }
  let events = 0;
  const stop = listenToTrace(() => {
    events++;
  });
  await ours.run(dirtyPages(-1), -1);
  stop();
  // Slow seconds of the machine meet both blocks of a pair.
  const ratio = median(pairs.map(({ on, off }) => on / off));
  return { off: median(pairs.map(({ off }) => off)), ratio, looks: events * LOOKS_PER_EVENT };
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
    const { off, ratio, looks } = await overhead(pm, folder).finally(() => pm.close());
    const file = path.join(folder, "million.json");
    writeMillion(file);
    const loads = [];
    for (let i = 0; i < 3; i++) {
      loads.push(await milliseconds(() => loadTrace(file)));
    }
    return [
      { name: "trace.off.overhead_pct", value: (100 * looks * lookNs()) / (off * 1e6), unit: "%", better: "lower" },
      { name: "trace.on.overhead_pct", value: 100 * (ratio - 1), unit: "%", better: "lower" },
      { name: "inspect.load_1m_events_ms", value: median(loads), unit: "ms", better: "lower" },
    ];
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
