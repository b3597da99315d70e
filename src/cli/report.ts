/** What `run` says about itself: `--json`'s object and `--stats`' text. */
import type { OutputReport } from "./output.ts";
import { formatBytes } from "./size.ts";

/** The object of `run --json`. */
export interface RunReport {
  readonly ok: true;
  /** Name of the adapter that ran the kernel. */
  readonly adapter: string;
  readonly mode: "bind" | "svm";
  readonly mmu: "software" | "userfaultfd";
  /** From the start of the command to its last output. */
  readonly wallMs: number;
  /** Times that the kernel was run, over some or all of its workgroups. */
  readonly rounds: number;
  /** Pages that the device, or the CPU, had to be brought because it touched them. */
  readonly faults: { readonly device: number; readonly cpu: number };
  readonly bytes: { readonly toDevice: number; readonly toHost: number; readonly evicted: number };
  /**
   * `migrated` pages became the device's own, to be written. Of device pages, of 16 KiB, are: those that came `prefetched`
   * beside what the kernel missed, the `prefetchHits` of them that were used, and those `evicted` for others.
   */
  readonly pages: {
    readonly size: number;
    readonly mapped: number;
    readonly uploaded: number;
    readonly migrated: number;
    readonly prefetched: number;
    readonly prefetchHits: number;
    readonly evicted: number;
  };
  /** Bytes of GPU buffers at the end: those that hold pages, the cap on them, and all others. */
  readonly deviceMemory: { readonly used: number; readonly limit: number; readonly beside: number };
  readonly outputs: Readonly<Record<string, OutputReport>>;
}

function count(n: number): string {
  return n.toLocaleString("en-US");
}

function devicePages(n: number): string {
  return `${count(n)} device ${n === 1 ? "page" : "pages"}`;
}

function prefetchLine({ mode, pages }: RunReport): [string, string][] {
  const { prefetched, prefetchHits } = pages;
  const used = prefetched === 0 ? "" : `, ${Math.round((100 * prefetchHits) / prefetched)} % of them used`;
  return mode === "svm" ? [["prefetched", `${devicePages(prefetched)}${used}`]] : [];
}

/** The report as a few aligned lines. */
export function statsText(report: RunReport): string {
  const { adapter, mode, mmu, wallMs, rounds, faults, bytes, pages, deviceMemory, outputs } = report;
  const { used, limit, beside } = deviceMemory;
  const lines: [string, string][] = [
    ["adapter", adapter],
    ["mode", `${mode}, ${mmu} MMU`],
    ["time", `${wallMs.toFixed(0)} ms, ${count(rounds)} ${rounds === 1 ? "round" : "rounds"}`],
    ["to device", `${formatBytes(bytes.toDevice)} (${count(pages.uploaded)} pages, ${count(pages.mapped)} are mapped)`],
    ["to host", formatBytes(bytes.toHost)],
    ["evicted", `${formatBytes(bytes.evicted)}${mode === "svm" ? ` (${devicePages(pages.evicted)})` : ""}`],
    ["memory", `${formatBytes(used)} of ${formatBytes(limit)} for pages, ${formatBytes(beside)} for other buffers`],
    ["faults", `${count(faults.device)} device, ${count(faults.cpu)} CPU`],
    ...prefetchLine(report),
    ...Object.entries(outputs).map(([name, output]): [string, string] => [
      `output ${name}`,
      `${formatBytes(output.bytes)}, sha256 ${output.sha256}`,
    ]),
  ];
  const width = Math.max(...lines.map(([label]) => label.length));
  return `${lines.map(([label, text]) => `${label.padEnd(width)}  ${text}`).join("\n")}\n`;
}
