/**
 * `npm run demo`: two kernels of examples/ over a real file that every machine with Node has, the node executable itself.
 * Checks both results against the CPU and ends with 1 when they differ.
 */
import { readFile } from "node:fs/promises";
import type { Mapping } from "../mm/index.ts";
import { open } from "../node.ts";
import { describeFailure, failureLine } from "./errors.ts";
import { formatBytes } from "./size.ts";

const NEEDLE = "WebAssembly";
const WORKGROUPS = 256;
const PAGE = 4096;
/** No binding is larger than this, so that the demo fits every adapter. */
const LARGEST_PIECE = 64 * 2 ** 20;

type PageMirror = Awaited<ReturnType<typeof open>>;

interface Figures {
  ms: number;
  bytesToDevice: number;
}

interface Histogram extends Figures {
  readonly counts: readonly number[];
}

interface Matches extends Figures {
  readonly offsets: readonly number[];
}

/** The file in pieces that one binding can hold; each piece but the last has `overlap` bytes of the next one at its end. */
function pieces(length: number, overlap: number): { offset: number; bytes: number }[] {
  const list: { offset: number; bytes: number }[] = [];
  for (let offset = 0; offset < length; offset += LARGEST_PIECE) {
    list.push({ offset, bytes: Math.min(LARGEST_PIECE + overlap, length - offset) });
  }
  return list;
}

/** Bytes up to the next 16: what lies behind a file's end is zeros. */
const words = (bytes: number) => Math.ceil(bytes / 16) * 16;

async function kernelOf(pm: PageMirror, name: string) {
  return pm.device.kernel(await readFile(new URL(`../../examples/${name}.wgsl`, import.meta.url), "utf8"), { name });
}

async function histogram(pm: PageMirror, data: Mapping, length: number): Promise<Histogram> {
  const kernel = await kernelOf(pm, "histogram");
  const counts = await pm.mm.mmap({ length: 256 * 4, name: "counts" });
  const started = performance.now();
  let bytesToDevice = 0;
  for (const { offset, bytes } of pieces(length, 0)) {
    const stats = await kernel.dispatch({
      bind: { data: data.range(offset, words(bytes)), counts: counts.range(0, 256 * 4) },
      params: { bytes },
      workgroups: WORKGROUPS,
    });
    bytesToDevice += stats.bytesToDevice;
  }
  using result = await counts.lease("r");
  return { counts: [...result.u32.subarray(0, 256)], ms: performance.now() - started, bytesToDevice };
}

async function search(pm: PageMirror, data: Mapping, length: number): Promise<Matches> {
  const kernel = await kernelOf(pm, "search");
  const needle = await pm.mm.mmap({ length: PAGE, name: "needle" });
  const found = await pm.mm.mmap({ length: 16 * PAGE, name: "found" });
  await needle.write(0, new TextEncoder().encode(NEEDLE));
  const started = performance.now();
  let bytesToDevice = 0;
  const offsets: number[] = [];
  for (const { offset, bytes } of pieces(length, NEEDLE.length - 1)) {
    await found.write(0, new Uint8Array(4));
    const stats = await kernel.dispatch({
      bind: { data: data.range(offset, words(bytes)), needle: needle.range(0, words(NEEDLE.length)), found },
      params: { bytes, needle_bytes: NEEDLE.length },
      workgroups: WORKGROUPS,
    });
    bytesToDevice += stats.bytesToDevice;
    using result = await found.lease("r");
    const count = result.u32[0] ?? 0;
    offsets.push(...[...result.u32.subarray(1, 1 + count)].map((at) => offset + at));
  }
  return { offsets: offsets.sort((a, b) => a - b), ms: performance.now() - started, bytesToDevice };
}

/** The same answers without a GPU and without PageMirror. */
function onCpu(bytes: Buffer): { counts: number[]; offsets: number[]; ms: number } {
  const started = performance.now();
  const counts = new Float64Array(256);
  for (const byte of bytes) {
    counts[byte] = (counts[byte] ?? 0) + 1;
  }
  const offsets: number[] = [];
  for (let at = bytes.indexOf(NEEDLE); at >= 0; at = bytes.indexOf(NEEDLE, at + 1)) {
    offsets.push(at);
  }
  return { counts: [...counts], offsets, ms: performance.now() - started };
}

function speed({ ms, bytesToDevice }: Figures, length: number): string {
  return `${ms.toFixed(0)} ms, ${(length / ms / 1e6).toFixed(2)} GB/s, ${formatBytes(bytesToDevice)} sent to the device`;
}

const equal = (a: readonly number[], b: readonly number[]) => a.length === b.length && a.every((n, i) => n === b[i]);
const verdict = (good: boolean) => (good ? "OK, equal to the CPU's" : "FAILED, the CPU's differs");

async function demo(): Promise<boolean> {
  const path = process.execPath;
  const say = (text: string) => process.stdout.write(`${text}\n`);
  await using pm = await open();
  const object = await pm.openFile(path);
  const bytes = await readFile(path);
  const { length } = bytes;
  const data = await pm.mm.mmap({ length: words(length), object, shared: true, prot: "r", name: "data" });
  await object.put();
  const { name, kind, why } = pm.adapter;
  say(`PageMirror demo: two kernels over ${path}`);
  say(
    `  file       ${formatBytes(length)}, ${Math.ceil(length / PAGE).toLocaleString("en-US")} pages, mapped read-only`,
  );
  say(`  adapter    ${name}${kind === "software" ? ", in software on the CPU" : ""}: ${why}`);

  const histogramResult = await histogram(pm, data, length);
  say(`  histogram  ${speed(histogramResult, length)}`);
  const searchResult = await search(pm, data, length);
  say(`  search     ${speed(searchResult, length)} (the file was there already)`);

  const cpu = onCpu(bytes);
  const countsGood = equal(histogramResult.counts, cpu.counts);
  const offsetsGood = equal(searchResult.offsets, cpu.offsets);
  const zeros = ((100 * (histogramResult.counts[0] ?? 0)) / length).toFixed(1);
  const firstAt = searchResult.offsets[0];
  const where = firstAt === undefined ? "" : `, the first at byte ${firstAt.toLocaleString("en-US")}`;
  say(`  counts     ${zeros} % of the bytes are 0: ${verdict(countsGood)}`);
  say(`  matches    "${NEEDLE}" ${searchResult.offsets.length} times${where}: ${verdict(offsetsGood)}`);
  say(countsGood && offsetsGood ? "OK" : "FAILED");
  return countsGood && offsetsGood;
}

try {
  process.exitCode = (await demo()) ? 0 : 1;
} catch (error) {
  process.stderr.write(`${failureLine(describeFailure(error))}\n`);
  process.exitCode = 1;
}
