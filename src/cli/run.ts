/** `pagemirror run`: maps files, runs a kernel over them, and writes the outputs when all went well. */
import { createReadStream, writeSync } from "node:fs";
import { KernelError, type MaybePromise } from "../base/index.ts";
import type { MemoryErrorEvent, probeUserfaultfd, SharedMapping, SharedMirror } from "../node.ts";
import { type Failure, failureJson, failureLine, fileError } from "./errors.ts";
import { OutputFiles } from "./output.ts";
import { openProgress, type Progress } from "./progress.ts";
import { type RunReport, statsText } from "./report.ts";
import { dispatchPlan, type Ran } from "./run-dispatch.ts";
import { type MapPlan, type OutPlan, planRun, type RunArguments, type RunPlan } from "./run-plan.ts";
import { Watch } from "./run-watch.ts";

const CHUNK = 4 * 2 ** 20;
const PAGE = 4096;

/** Bytes of a mapping: through its plain array, where that waits for pages that are on the device. */
function readBytes(pm: SharedMirror, mapping: SharedMapping, at: number, length: number): MaybePromise<Uint8Array> {
  return pm.mmu.name === "userfaultfd" && mapping.hasArrays
    ? mapping.u8.slice(at, at + length)
    : mapping.read(at, length);
}

/** Sends a mapping's bytes to its output: what the kernel could reach from memory, the rest straight from the file. */
async function writeOutput(
  pm: SharedMirror,
  { name, op }: OutPlan,
  map: MapPlan,
  mapping: SharedMapping,
  bound: number,
  outputs: OutputFiles,
  progress: Progress,
): Promise<void> {
  const fromMemory = map.file === undefined ? map.length : Math.min(map.length, bound);
  for (let at = 0; at < fromMemory; at += CHUNK) {
    const bytes = await readBytes(pm, mapping, at, Math.min(CHUNK, fromMemory - at));
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
function cleanUpOnSignals(outputs: OutputFiles, progress: Progress, json: boolean): Disposable {
  const signals = { SIGHUP: 129, SIGINT: 130, SIGTERM: 143 } as const;
  const listeners = Object.entries(signals).map(([signal, status]) => {
    const listener = () => {
      outputs.discardSync();
      progress.stop();
      const why = `ended by ${signal}: no output was written; run it again`;
      const failure: Failure = { op: "run", code: "EINTR", why, exitStatus: 1 };
      // Synchronous: the process ends here.
      writeSync(2, `${failureLine(failure)}\n`);
      writeSync(1, json ? `${failureJson(failure)}\n` : "");
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

/** Writes the outputs' bytes to where they wait for the commit. */
async function collectOutputs(
  pm: SharedMirror,
  plan: RunPlan,
  ran: Ran,
  outputs: OutputFiles,
  progress: Progress,
): Promise<void> {
  for (const out of plan.outs) {
    const reached = ran.reached.find(({ map }) => map.name === out.name);
    if (reached !== undefined) {
      progress.stage(`writing ${out.path}`, reached.map.length);
      await writeOutput(pm, out, reached.map, reached.mapping, reached.length, outputs, progress);
    }
  }
  await refuseFaults(pm);
}

/** @throws KernelError the first error that a plain access met: what it read are not the mapping's bytes */
async function refuseFaults(pm: SharedMirror): Promise<void> {
  const [first] = pm.faultErrors();
  if (first !== undefined) {
    // The sentence comes by message, and before the answer to this.
    await pm.counts().catch(() => undefined);
    throw faults.get(pm) ?? new KernelError(first.code, "run", "bytes of an output could not be read: run it again");
  }
}

/** What the first plain access that failed met, by client. */
const faults = new WeakMap<SharedMirror, KernelError>();

function chooseMmu({ mmu }: RunPlan, probe: typeof probeUserfaultfd, progress: Progress): "software" | "userfaultfd" {
  if (mmu !== "auto") {
    return mmu;
  }
  const { works, why } = probe();
  if (!works) {
    progress.stop();
    process.stderr.write(`pagemirror: note: --mmu auto uses software: ${why}\n`);
  }
  return works ? "userfaultfd" : "software";
}

/** Tells of the run, once its outputs are in their places. */
type Reporter = (outputs: RunReport["outputs"]) => RunReport;

async function runPlan(plan: RunPlan, outputs: OutputFiles, progress: Progress): Promise<Reporter> {
  progress.stage("opening the adapter");
  // Not before the command line is known to be good: this is where the GPU's library comes in.
  const library = await import("../node.ts");
  await using pm = await library.open({
    mmu: chooseMmu(plan, library.probeUserfaultfd, progress),
    ...(plan.deviceMemory === undefined ? {} : { deviceMemory: plan.deviceMemory }),
    ...(plan.adapter === undefined ? {} : { adapter: plan.adapter }),
  });
  const first = (event: MemoryErrorEvent) => {
    faults.set(pm, event.error);
  };
  pm.addEventListener("error", first, { once: true });
  const ran = await dispatchPlan(pm, plan, progress);
  if (plan.showMaps) {
    progress.stop();
    process.stdout.write(await pm.mm.smaps());
  }
  await collectOutputs(pm, plan, ran, outputs, progress);
  const { mode, reached, stats } = ran;
  const { bytesToDevice, bytesToHost, pagesUploaded, bytesEvicted, deviceMemory } = await pm.device.stats();
  const { faults: cpuFaults } = await pm.counts();
  return (written) => ({
    ok: true,
    adapter: pm.adapter?.name ?? "none",
    mode,
    mmu: pm.mmu.name,
    wallMs: Math.round(performance.now() * 10) / 10,
    rounds: stats.rounds + (mode === "bind" ? stats.restarts : 0),
    // In bind mode the device is given its pages and raises no fault. On the software MMU the CPU's faults bring written
    // pages home, and nothing else.
    faults: {
      device: stats.deviceFaults,
      cpu: pm.mmu.name === "userfaultfd" ? cpuFaults : Math.ceil(bytesToHost / PAGE),
    },
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
    deviceMemory,
    outputs: written,
  });
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
  using _signals = cleanUpOnSignals(outputs, progress, plan.report === "json");
  let report: RunReport;
  try {
    const reportOn = await runPlan(plan, outputs, progress);
    // What may still fail comes before the outputs appear.
    await watch.endTrace();
    report = reportOn(await outputs.commit());
  } finally {
    progress.stop();
  }
  if (plan.report !== "none") {
    process.stdout.write(plan.report === "json" ? `${JSON.stringify(report)}\n` : statsText(report));
  } else if (plan.outs.length === 0 && !plan.showMaps) {
    process.stderr.write("pagemirror: note: no output was asked for: add --out NAME=PATH, --stats or --json\n");
  }
}
