/**
 * Page faults of plain arrays on Linux, against the same work in C: bench/uffd.c, compiled here with the system's compiler.
 * Both sides run in processes of their own, one after the other, on one processor.
 */
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { openDawn, openShared, probeUserfaultfd } from "../dist/node.js";
import { collect, interleaved, median } from "./measure.mjs";
import { sparse } from "./uffd-sparse.mjs";

const here = path.dirname(fileURLToPath(import.meta.url));
const ROUNDS = 5;
/** The first rounds of either side touch memory and run code that is new: three of them cost two to five times as much. */
const READBACK_ROUNDS = 11;
const PAGE = 4096;
/** 256 MiB, and 64 MiB where a fault brings one page. */
const PAGES = 65_536;
const FEW = 16_384;
const READBACK_BYTES = 64 * 2 ** 20;

const note = (text) => process.stderr.write(`uffd: ${text}\n`);

/** Runs a command on the last processor that this process may use; its output is one figure. */
function pinned(command, args) {
  const { status, stdout, stderr } = spawnSync("taskset", ["-c", "0", command, ...args], { encoding: "utf8" });
  if (status !== 0) {
    throw new Error(`${command} ${args.join(" ")} ended with ${status}: ${stderr}`);
  }
  return Number(stdout);
}

function compile(folder) {
  const binary = path.join(folder, "uffd");
  for (const compiler of ["cc", "gcc", "clang"]) {
    const { status } = spawnSync(compiler, ["-O2", "-pthread", "-o", binary, path.join(here, "uffd.c")]);
    if (status === 0) {
      return binary;
    }
  }
  return undefined;
}

async function againstC(binary) {
  const ours = (mode, pages, around) =>
    pinned(process.execPath, [path.join(here, "uffd-side.mjs"), mode, pages, around]);
  const c = (mode, pages, around) => pinned(binary, [mode, pages, around]);
  const figures = await interleaved(ROUNDS, {
    fault: () => ours("fault", FEW, 1),
    faultC: () => c("touch", FEW, 1),
    touch: () => ours("touch", PAGES, 64),
    touchC: () => c("touch", PAGES, 64),
    scan: () => ours("scan", PAGES, 1),
    scanC: () => c("scan", PAGES, 1),
    evict: () => ours("evict", PAGES, 64),
    evictC: () => c("evict", PAGES, 64),
  });
  const gbps = (ms) => (PAGES * PAGE) / 1e6 / ms;
  return [
    { name: "uffd.fault.us", value: figures.fault, unit: "us" },
    { name: "uffd.fault.vs_c", value: figures.fault / figures.faultC, unit: "x" },
    { name: "uffd.sequential.us_per_page", value: figures.touch, unit: "us" },
    { name: "uffd.sequential.vs_c", value: figures.touch / figures.touchC, unit: "x" },
    { name: "uffd.wp_scan.ms_per_gib", value: figures.scan * 4, unit: "ms" },
    { name: "uffd.wp_scan.vs_c", value: figures.scan / figures.scanC, unit: "x" },
    { name: "uffd.evict_cycle.gbps", value: gbps(figures.evict), unit: "GB/s" },
    { name: "uffd.evict_cycle.vs_copy", value: figures.evictC / figures.evict, unit: "x" },
  ];
}

const TOUCH_ALL = /* wgsl */ `
struct Params { value: u32 }
@group(0) @binding(0) var<storage, read_write> data: array<u32>;
@group(0) @binding(1) var<uniform> params: Params;
@compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3u) {
  let page = id.x * 1024u;
  if (page < arrayLength(&data)) { data[page] = params.value; }
}`;

/** Touching what a kernel wrote, against one copy and one map by hand. */
async function readbacks() {
  const pm = await openShared({ mmu: "userfaultfd" });
  const data = await pm.mm.mmap({ length: READBACK_BYTES });
  const kernel = await pm.device.kernel(TOUCH_ALL);
  const { u32 } = data;
  const touched = (value) => {
    for (let at = 0; at < u32.length; at += 1024) {
      if (Atomics.load(u32, at) !== value) {
        throw new Error(`wrong word at ${at}`);
      }
    }
  };
  const { adapter, close } = await openDawn();
  const gpu = await adapter.requestDevice({ requiredLimits: { maxBufferSize: READBACK_BYTES } });
  const source = gpu.createBuffer({ size: READBACK_BYTES, usage: 0x4 | 0x8 | 0x80 });
  const staging = gpu.createBuffer({ size: READBACK_BYTES, usage: 0x1 | 0x8 });
  const own = new Uint8Array(READBACK_BYTES);
  let value = 0;
  const figures = await interleaved(READBACK_ROUNDS, {
    ours: async () => {
      value++;
      // Mapping 64 MiB by hand makes the engine look for garbage, beside whatever comes next.
      collect();
      await kernel.dispatch({ bind: { data }, params: { value }, workgroups: READBACK_BYTES / PAGE / 64 });
      const start = performance.now();
      touched(value);
      return performance.now() - start;
    },
    hand: async () => {
      collect();
      const start = performance.now();
      const encoder = gpu.createCommandEncoder();
      encoder.copyBufferToBuffer(source, 0, staging, 0, READBACK_BYTES);
      gpu.queue.submit([encoder.finish()]);
      await staging.mapAsync(1);
      own.set(new Uint8Array(staging.getMappedRange()));
      staging.unmap();
      return performance.now() - start;
    },
  });
  const single = [];
  for (let i = 0; i < 20; i++) {
    const page = data.range(i * 64 * PAGE, PAGE);
    await kernel.dispatch({ bind: { data: page }, params: { value: 1000 + i }, workgroups: 1 });
    const start = performance.now();
    const word = Atomics.load(u32, i * 64 * 1024);
    single.push((performance.now() - start) * 1000);
    if (word !== 1000 + i) {
      throw new Error(`wrong word ${word}`);
    }
  }
  gpu.destroy();
  close();
  await pm.close();
  return [
    { name: "uffd.readback.gbps", value: READBACK_BYTES / 1e6 / figures.ours, unit: "GB/s" },
    { name: "uffd.readback.vs_hand", value: figures.hand / figures.ours, unit: "x" },
    { name: "uffd.fault.device_us", value: median(single), unit: "us" },
  ];
}

export async function metrics() {
  const { works, why } = probeUserfaultfd();
  if (!works) {
    note(`skipped: ${why}`);
    return [];
  }
  const folder = mkdtempSync(path.join(tmpdir(), "pagemirror-bench-"));
  try {
    const binary = compile(folder);
    if (binary === undefined) {
      note("no C compiler: figures against C are skipped");
    }
    const found = binary === undefined ? [] : await againstC(binary);
    return [...found, ...(await readbacks()), ...(await sparse())];
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}
