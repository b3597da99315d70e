/** `pagemirror run`: maps files, runs a kernel over them, and writes the outputs when all went well. */
import { createReadStream } from "node:fs";
import { KernelError } from "../base/index.ts";
import type { Mapping } from "../mm/index.ts";
import type { open } from "../node.ts";
import { fileError, urlError } from "./errors.ts";
import { OutputFiles, type OutputReport } from "./output.ts";
import { openProgress, type Progress } from "./progress.ts";
import { type RunReport, statsText } from "./report.ts";
import { type BindPlan, checkWorkgroups, defaultWorkgroups, planBindings, visibleLength } from "./run-bind.ts";
import { type MapPlan, type OutPlan, planRun, type RunArguments, type RunPlan } from "./run-plan.ts";

const CHUNK = 4 * 2 ** 20;
const PAGE = 4096;

type PageMirror = Awaited<ReturnType<typeof open>>;

async function mapUrl(pm: PageMirror, name: string, length: number, url: string): Promise<Mapping> {
  const op = `map ${name}`;
  const object = await pm.openUrl(url).catch(urlError(op));
  try {
    if (object.pager?.length !== length) {
      throw new KernelError("EIO", op, `${object.pager?.name} changed while the command started: run it again`);
    }
    return await pm.mm.mmap({ length: visibleLength(length), object, shared: true, prot: "r", name });
  } finally {
    await object.put();
  }
}

async function mapSource(pm: PageMirror, { name, length, file, url }: MapPlan): Promise<Mapping> {
  if (url !== undefined) {
    return mapUrl(pm, name, length, url);
  }
  if (file === undefined) {
    return pm.mm.mmap({ length: visibleLength(length), name });
  }
  const object = await pm.openFile(file.path);
  // Written mappings are private during the run: a failed one leaves the file as it was.
  const shared = file.mode === "r";
  const options = { length: visibleLength(length), object, shared, prot: shared ? "r" : "rw", name } as const;
  try {
    return await pm.mm.mmap(options);
  } finally {
    await object.put();
  }
}

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

/** Shows how much of the files is on the device, and then that the kernel runs. */
function watchUpload(pm: PageMirror, binds: readonly BindPlan[], progress: Progress): Disposable {
  const total = binds.reduce((sum, { map, length }) => sum + (map.file === undefined ? 0 : length), 0);
  let sent = 0;
  const look = () => {
    const now = pm.device.stats().bytesToDevice;
    progress.advance(now - sent);
    sent = now;
    if (sent >= total) {
      clearInterval(timer);
      progress.stage("running");
    }
  };
  const timer = setInterval(look, 100);
  if (total > 0) {
    progress.stage("sending to the device", total);
  }
  look();
  return { [Symbol.dispose]: () => clearInterval(timer) };
}

/** What the run did, before its outputs. */
interface Ran {
  readonly binds: readonly BindPlan[];
  readonly mappings: ReadonlyMap<string, Mapping>;
  readonly pagesMigrated: number;
}

async function dispatch(pm: PageMirror, plan: RunPlan, progress: Progress): Promise<Ran> {
  const name = `kernel ${plan.kernelPath}`;
  const kernel = await pm.device.kernel(plan.wgsl, {
    name,
    ...(plan.entry === undefined ? {} : { entryPoint: plan.entry }),
  });
  const binds = planBindings(kernel.reflection, plan.maps);
  const most = pm.adapter.limits.maxComputeWorkgroupsPerDimension ?? 65_535;
  const workgroups = plan.workgroups ?? defaultWorkgroups(kernel.reflection, binds, most);
  checkWorkgroups(workgroups, most);
  const mappings = new Map<string, Mapping>();
  const bind: Record<string, ReturnType<Mapping["range"]>> = {};
  for (const { map, length } of binds) {
    const mapping = await mapSource(pm, map);
    mappings.set(map.name, mapping);
    bind[map.name] = mapping.range(0, length);
  }
  using _watch = watchUpload(pm, binds, progress);
  const { pagesMigrated } = await kernel.dispatch({ bind, params: plan.params, workgroups });
  return { binds, mappings, pagesMigrated };
}

async function collectOutputs(
  plan: RunPlan,
  ran: Ran,
  outputs: OutputFiles,
  progress: Progress,
): Promise<Record<string, OutputReport>> {
  for (const out of plan.outs) {
    const bind = ran.binds.find(({ map }) => map.name === out.name);
    const mapping = ran.mappings.get(out.name);
    if (bind !== undefined && mapping !== undefined) {
      progress.stage(`writing ${out.path}`, bind.map.length);
      await writeOutput(out, bind.map, mapping, bind.length, outputs, progress);
    }
  }
  return outputs.commit();
}

async function runPlan(plan: RunPlan, outputs: OutputFiles, progress: Progress): Promise<RunReport> {
  progress.stage("opening the adapter");
  // Not before the command line is known to be good: this is where the GPU's library comes in.
  const library = await import("../node.ts");
  await using pm = await library.open({
    ...(plan.deviceMemory === undefined ? {} : { deviceMemory: plan.deviceMemory }),
    ...(plan.adapter === undefined ? {} : { adapter: plan.adapter }),
  });
  const ran = await dispatch(pm, plan, progress);
  const written = await collectOutputs(plan, ran, outputs, progress);
  const { bytesToDevice, bytesToHost, pagesUploaded, bytesEvicted, restarts } = pm.device.stats();
  return {
    ok: true,
    adapter: pm.adapter.name,
    mode: "bind",
    mmu: "software",
    wallMs: Math.round(performance.now() * 10) / 10,
    rounds: 1 + restarts,
    // In bind mode the device is given its pages and raises no fault; the CPU's faults bring written pages home.
    faults: { device: 0, cpu: Math.ceil(bytesToHost / PAGE) },
    bytes: { toDevice: bytesToDevice, toHost: bytesToHost, evicted: bytesEvicted },
    pages: {
      size: PAGE,
      bound: ran.binds.reduce((sum, { length }) => sum + Math.ceil(length / PAGE), 0),
      uploaded: pagesUploaded,
      migrated: ran.pagesMigrated,
    },
    outputs: written,
  };
}

/** Runs the command. Throws what {@link planRun} and the library throw; nothing is written then. */
export async function runCommand(kernelPath: string, args: RunArguments): Promise<void> {
  const plan = await planRun(kernelPath, args);
  using outputs = await OutputFiles.create(plan.outs);
  const progress = await openProgress(process.stderr);
  using _signals = cleanUpOnSignals(outputs, progress);
  let report: RunReport;
  try {
    report = await runPlan(plan, outputs, progress);
  } finally {
    progress.stop();
  }
  if (plan.report !== "none") {
    process.stdout.write(plan.report === "json" ? `${JSON.stringify(report)}\n` : statsText(report));
  } else if (plan.outs.length === 0) {
    process.stderr.write("pagemirror: note: no output was asked for: add --out NAME=PATH, --stats or --json\n");
  }
}
