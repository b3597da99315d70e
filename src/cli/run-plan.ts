/** Everything about a run that can be checked before a GPU is opened: arguments, files, names. */
import { constants } from "node:fs";
import { access, readFile, stat } from "node:fs/promises";
import { KernelError } from "../base/index.ts";
import { statUrl } from "../platform/http/index.ts";
import { failsAs, fileError, UsageError } from "./errors.ts";
import { type MapMode, type MapSpec, parseMaps, parseOuts, parseWorkgroups } from "./map-spec.ts";
import { fileIdentity } from "./output.ts";
import { mappingValues, type ParamSpec, parseParams } from "./param-spec.ts";
import { checkTracePath, type WatchPlan } from "./run-watch.ts";
import { parseSize } from "./size.ts";

/** The raw options of `run`, as commander gives them. */
export interface RunArguments {
  readonly map?: readonly string[];
  readonly set?: readonly string[];
  readonly out?: readonly string[];
  readonly workgroups?: string;
  readonly entry?: string;
  readonly mode?: string;
  readonly mmu: string;
  readonly deviceMemory?: string;
  readonly adapter?: string;
  readonly stats?: boolean;
  readonly json?: boolean;
  readonly trace?: string;
  readonly inspect?: boolean;
  readonly maps?: boolean;
}

/** A mapping to make. */
export interface MapPlan {
  readonly name: string;
  /** Bytes, before any rounding. */
  readonly length: number;
  /** The file and how it is mapped; undefined for a URL and for new zeros. */
  readonly file: { readonly path: string; readonly mode: MapMode } | undefined;
  /** Mapped read-only. */
  readonly url?: string | undefined;
}

/** A file to write when the run succeeds. */
export interface OutPlan {
  readonly name: string;
  readonly path: string;
  readonly op: string;
}

/** A checked command line. */
export interface RunPlan {
  readonly kernelPath: string;
  readonly wgsl: string;
  readonly maps: readonly MapPlan[];
  readonly outs: readonly OutPlan[];
  readonly params: readonly ParamSpec[];
  /** Undefined: as the kernel needs it. */
  readonly mode: "bind" | "svm" | undefined;
  readonly mmu: "software" | "userfaultfd" | "auto";
  readonly workgroups: [number, number, number] | undefined;
  readonly entry: string | undefined;
  readonly deviceMemory: number | undefined;
  readonly adapter: string | undefined;
  readonly report: "none" | "stats" | "json";
  readonly watch: WatchPlan;
  /** Say what is mapped when the kernel has run. */
  readonly showMaps: boolean;
}

const LONGEST_KERNEL = 16 * 2 ** 20;

function checkOptions({ stats, json, maps }: RunArguments): void {
  if (maps === true && json === true) {
    throw new UsageError("--maps and --json: choose one of them");
  }
  if (stats === true && json === true) {
    throw new UsageError("--stats and --json: choose one of them");
  }
}

function parseMmu(mmu: string): RunPlan["mmu"] {
  if (mmu === "software" || mmu === "userfaultfd" || mmu === "auto") {
    return mmu;
  }
  throw new UsageError(`--mmu "${mmu}": the MMU is software, userfaultfd or auto`);
}

function parseMode(mode: string | undefined): "bind" | "svm" | undefined {
  if (mode === undefined || mode === "bind" || mode === "svm") {
    return mode;
  }
  throw new UsageError(`--mode "${mode}": the mode is bind or svm`);
}

async function readKernel(path: string): Promise<string> {
  const op = "kernel";
  try {
    const stats = await stat(path);
    if (stats.size > LONGEST_KERNEL) {
      throw new KernelError("EINVAL", op, `${path} has ${stats.size} bytes: name a WGSL source file`);
    }
    return new TextDecoder("utf-8", { fatal: true }).decode(await readFile(path));
  } catch (error) {
    if (error instanceof TypeError) {
      throw new KernelError("EINVAL", op, `${path} is not UTF-8 text: name a WGSL source file`);
    }
    throw fileError(op, path, error);
  }
}

async function planMap({ name, source }: MapSpec): Promise<MapPlan> {
  if (source.kind === "new") {
    return { name, length: source.size, file: undefined };
  }
  const op = `map ${name}`;
  if (source.kind === "url") {
    const { length } = await statUrl(source.url).catch(failsAs(op));
    return { name, length, file: undefined, url: source.url };
  }
  const { path, mode } = source;
  try {
    const stats = await stat(path);
    if (stats.isDirectory()) {
      throw new KernelError("EISDIR", op, `${path}: this is a folder: name a file`);
    }
    if (!stats.isFile()) {
      throw new KernelError("EINVAL", op, `${path}: only regular files can be mapped: copy it into a file first`);
    }
    if (stats.size === 0) {
      throw new KernelError("EINVAL", op, `${path}: the file is empty: map a file with at least 1 byte, or new:SIZE`);
    }
    await access(path, constants.R_OK);
    return { name, length: stats.size, file: { path, mode } };
  } catch (error) {
    throw fileError(op, path, error);
  }
}

/** An output over a mapped file would destroy what is being read; `:rw` says that this is meant. */
async function refuseOutputOverInput(maps: readonly MapPlan[], outs: readonly OutPlan[]): Promise<void> {
  const inputs = new Map<string, MapPlan>();
  for (const map of maps) {
    if (map.file !== undefined && map.file.mode !== "rw") {
      inputs.set(await fileIdentity(map.file.path), map);
    }
  }
  for (const { op, path } of outs) {
    const input = inputs.get(await fileIdentity(path));
    if (input !== undefined) {
      const why = `${path} is mapped as ${input.name}: choose another file, or map it :rw to change it in place`;
      throw new KernelError("EINVAL", op, why);
    }
  }
}

/**
 * Checks a command line and the files and URLs that it names.
 *
 * Errors: UsageError for wrong arguments; KernelError ENOENT, EISDIR, EACCES, EINVAL for a file that cannot be used, those
 * of statUrl for a URL, ENOTSUP for what a later version does.
 */
export async function planRun(kernelPath: string, args: RunArguments): Promise<RunPlan> {
  checkOptions(args);
  const mode = parseMode(args.mode);
  const mmu = parseMmu(args.mmu);
  const specs = parseMaps(args.map ?? []);
  const outSpecs = parseOuts(args.out ?? []);
  const params = parseParams(args.set ?? []);
  const workgroups = args.workgroups === undefined ? undefined : parseWorkgroups(args.workgroups);
  const deviceMemory = args.deviceMemory === undefined ? undefined : parseSize(args.deviceMemory, "--device-memory");
  for (const { name } of outSpecs) {
    if (!specs.some((spec) => spec.name === name)) {
      throw new UsageError(
        `--out names ${name}, which is not mapped: add --map ${name}=PATH or --map ${name}=new:SIZE`,
      );
    }
  }
  for (const { name, value } of mappingValues(params)) {
    const { mapping } = value;
    if (!specs.some((spec) => spec.name === mapping)) {
      const mark = value.kind === "address" ? "@" : "#";
      throw new UsageError(`--set ${name} names ${mark}${mapping}, which is not mapped: add --map ${mapping}=PATH`);
    }
  }
  const wgsl = await readKernel(kernelPath);
  const maps = await Promise.all(specs.map(planMap));
  const outs: OutPlan[] = outSpecs.map(({ name, path }) => ({ name, path, op: `out ${name}` }));
  await refuseOutputOverInput(maps, outs);
  await checkTracePath(args.trace, [
    kernelPath,
    ...outs.map(({ path }) => path),
    ...maps.flatMap(({ file }) => file?.path ?? []),
  ]);
  for (const { name, file } of maps) {
    if (file?.mode === "rw") {
      outs.push({ name, path: file.path, op: `map ${name}` });
    }
  }
  return {
    kernelPath,
    wgsl,
    maps,
    outs,
    params,
    mode,
    mmu,
    workgroups,
    entry: args.entry,
    deviceMemory,
    adapter: args.adapter,
    watch: { trace: args.trace, inspect: args.inspect === true },
    showMaps: args.maps === true,
    report: args.json === true ? "json" : args.stats === true ? "stats" : "none",
  };
}
