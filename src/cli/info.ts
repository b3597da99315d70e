/** `pagemirror info`: what works on this machine, and the remedy for what does not. */
import { KernelError } from "../base/index.ts";
import type { AdapterReport } from "../platform/adapter.ts";
import { cacheFolder } from "../platform/node/cache-folder.ts";
import { openDawn } from "../platform/node/dawn.ts";
import { probeUserfaultfd } from "../platform/userfaultfd/probe.ts";
import { describeFailure, type Failure } from "./errors.ts";
import { formatBytes } from "./size.ts";

/** One MMU back end and whether it works here. */
interface MmuReport {
  readonly name: "software" | "userfaultfd";
  readonly works: boolean;
  readonly why: string;
}

/** The object of `info --json`. */
export interface InfoReport {
  readonly ok: boolean;
  readonly version: string;
  readonly node: string;
  readonly platform: string;
  readonly mmu: readonly MmuReport[];
  readonly adapter: AdapterReport | null;
  /** Why there is no adapter and what to do; null when there is one. */
  readonly problem: Pick<Failure, "op" | "code" | "why"> | null;
  readonly cacheFolder: string;
}

function mmuReports(): MmuReport[] {
  const { works, why } = probeUserfaultfd();
  return [
    { name: "software", works: true, why: "the CPU announces its accesses with leases; works everywhere" },
    { name: "userfaultfd", works, why },
  ];
}

/** The limits that decide what a kernel may bind and dispatch. */
const LIMITS: readonly [name: string, text: string, inBytes: boolean][] = [
  ["maxStorageBufferBindingSize", "bytes a binding", true],
  ["maxBufferSize", "bytes a buffer", true],
  ["maxStorageBuffersPerShaderStage", "storage bindings a kernel", false],
  ["maxComputeWorkgroupsPerDimension", "workgroups a dimension", false],
  ["maxComputeInvocationsPerWorkgroup", "invocations a workgroup", false],
];

/** Looks at the machine. An adapter that does not open is part of the report, not an error. */
export async function gatherInfo(version: string): Promise<InfoReport> {
  const common = {
    version,
    node: process.version,
    platform: `${process.platform} ${process.arch}`,
    mmu: mmuReports(),
    cacheFolder: await cacheFolder(),
  };
  try {
    const opened = await openDawn();
    opened.close();
    return { ok: true, ...common, adapter: opened.report, problem: null };
  } catch (error) {
    if (!(error instanceof KernelError)) {
      throw error;
    }
    const { op, code, why } = describeFailure(error);
    return { ok: false, ...common, adapter: null, problem: { op, code, why } };
  }
}

function adapterLines(adapter: AdapterReport): string[] {
  const limits = LIMITS.flatMap(([name, text, inBytes]) => {
    const value = adapter.limits[name];
    const shown = value === undefined ? "" : inBytes ? formatBytes(value) : value.toLocaleString("en-US");
    return value === undefined ? [] : [`  ${shown.padEnd(10)} ${text} (${name})`];
  });
  return [
    `adapter: ${adapter.name}`,
    `  ${adapter.kind}, ${adapter.backend}: chosen because ${adapter.why}`,
    ...adapter.driverFiles.map((file) => `  driver file ${file}`),
    "limits:",
    ...limits,
    "looked at:",
    ...adapter.tried.map(
      ({ what, result, remedy }) => `  ${what}: ${result}${remedy === undefined ? "" : ` (remedy: ${remedy})`}`,
    ),
  ];
}

/** The report for people. */
export function infoText(report: InfoReport): string {
  const { version, node, platform, mmu, adapter, problem } = report;
  const lines = [
    `pagemirror ${version}, Node ${node}, ${platform}`,
    "MMU back ends:",
    ...mmu.map(({ name, works, why }) => `  ${name.padEnd(11)} ${works ? "yes" : "no "}  ${why}`),
    ...(adapter === null ? [`adapter: none (${problem?.code}: ${problem?.why})`] : adapterLines(adapter)),
    `cache folder: ${report.cacheFolder}`,
  ];
  return `${lines.join("\n")}\n`;
}
