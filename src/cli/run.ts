/** `pagemirror run`: maps files, runs a kernel over them, and writes the outputs when all went well. */
import { createReadStream } from "node:fs";
import { formatSmaps, type Mapping } from "../mm/index.ts";
import { fileError } from "./errors.ts";
import { OutputFiles, type OutputReport } from "./output.ts";
import { openProgress, type Progress } from "./progress.ts";
import { type RunReport, statsText } from "./report.ts";
import { dispatchPlan, type Ran } from "./run-dispatch.ts";
import { type MapPlan, type OutPlan, planRun, type RunArguments, type RunPlan } from "./run-plan.ts";
import { Watch } from "./run-watch.ts";

const CHUNK = 4 * 2 ** 20;
const PAGE = 4096;

/** Sends a mapping's bytes to its output: what the kernel could reach from memory, the rest straight from the file. */
async function writeOutput(
  { name, op }: OutPlan,
  map: MapPlan,
  mapping: Mapping,
  bound: number,
  outputs: OutputFiles,
  progress: Progress,
): Promise<void> {
  const fromMemory = map.file === undefined ? map.length : Math.min(map.length, bound);
  for (let at = 0; at < fromMemory; at += CHUNK) {
    const bytes = await mapping.read(at, Math.min(CHUNK, fromMemory - at));
    await outputs.write(name, bytes);
    progress.advance(bytes.length);
  }
  if (map.file === undefined || fromMemory === map.length) {
    return;
  }
  const rest = createReadStream(map.file.path, { start: fromMemory, end: map.length - 1, highWaterMark: CHUNK });
  try {
    for await (const bytes of rest as AsyncIterable<Uint8Array>) {
      await outputs.write(name, bytes);
      progress.advance(bytes.length);
    }
  } catch (error) {
    throw fileError(op, map.file.path, error);
  }
}

/** Ends the process on a signal, leaving no partial output behind. */
function cleanUpOnSignals(outputs: OutputFiles, progress: Progress): Disposable {
  const signals = { SIGHUP: 129, SIGINT: 130, SIGTERM: 143 } as const;
  const listeners = Object.entries(signals).map(([signal, status]) => {
    const listener = () => {
      outputs.discardSync();
      progress.stop();
      process.stderr.write(`pagemirror: run: EINTR: ended by ${signal}: no output was written; run it again\n`);
      process.exit(status);
    };
    process.on(signal, listener);
    return () => process.off(signal, listener);
  });
  return {
    [Symbol.dispose]() {
      for (const remove of listeners) {
        remove();
      }
    },
  };
}

async function collectOutputs(
  plan: RunPlan,
  ran: Ran,
  outputs: OutputFiles,
  progress: Progress,
): Promise<Record<string, OutputReport>> {
  for (const out of plan.outs) {
    const reached = ran.reached.find(({ map }) => map.name === out.name);
    if (reached !== undefined) {
      progress.stage(`writing ${out.path}`, reached.map.length);
      await writeOutput(out, reached.map, reached.mapping, reached.length, outputs, progress);
    }
  }
  return outputs.commit();
}

async function runPlan(plan: RunPlan, outputs: OutputFiles, progress: Progress, watch: Watch): Promise<RunReport> {
  progress.stage("opening the adapter");
  // Not before the command line is known to be good: this is where the GPU's library comes in.
  const library = await import("../node.ts");
  await using pm = await library.open({
    ...(plan.deviceMemory === undefined ? {} : { deviceMemory: plan.deviceMemory }),
    ...(plan.adapter === undefined ? {} : { adapter: plan.adapter }),
  });
  watch.introduce(pm.mm);
  const ran = await dispatchPlan(pm, plan, progress);
  if (plan.showMaps) {
    progress.stop();
    process.stdout.write(formatSmaps(pm.mm));
  }
  const written = await collectOutputs(plan, ran, outputs, progress);
  const { mode, reached, stats } = ran;
  const { bytesToDevice, bytesToHost, pagesUploaded, bytesEvicted } = pm.device.stats();
  return {
    ok: true,
    adapter: pm.adapter.name,
    mode,
    mmu: "software",
    wallMs: Math.round(performance.now() * 10) / 10,
    rounds: stats.rounds + (mode === "bind" ? stats.restarts : 0),
    // In bind mode the device is given its pages and raises no fault; the CPU's faults bring written pages home.
    faults: { device: stats.deviceFaults, cpu: Math.ceil(bytesToHost / PAGE) },
    bytes: { toDevice: bytesToDevice, toHost: bytesToHost, evicted: bytesEvicted },
    pages: {
      size: PAGE,
      mapped: reached.reduce((sum, { length }) => sum + Math.ceil(length / PAGE), 0),
      uploaded: pagesUploaded,
      migrated: stats.pagesMigrated,
      prefetched: stats.pagesPrefetched,
      prefetchHits: stats.prefetchHits,
      evicted: stats.evictions,
    },
    outputs: written,
  };
}

/** Runs the command. Throws what {@link planRun} and the library throw; nothing is written then. */
export async function runCommand(kernelPath: string, args: RunArguments): Promise<void> {
  const plan = await planRun(kernelPath, args);
  await using watch = await Watch.start(plan.watch);
  await runOnce(plan, watch);
  await watch.linger();
}

async function runOnce(plan: RunPlan, watch: Watch): Promise<void> {
  using outputs = await OutputFiles.create(plan.outs);
  const progress = await openProgress(process.stderr);
  using _signals = cleanUpOnSignals(outputs, progress);
  let report: RunReport;
  try {
    report = await runPlan(plan, outputs, progress, watch);
  } finally {
    progress.stop();
  }
  if (plan.report !== "none") {
    process.stdout.write(plan.report === "json" ? `${JSON.stringify(report)}\n` : statsText(report));
  } else if (plan.outs.length === 0 && !plan.showMaps) {
    process.stderr.write("pagemirror: note: no output was asked for: add --out NAME=PATH, --stats or --json\n");
  }
}
