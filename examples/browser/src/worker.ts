/** Owns the address space and the device: maps the file, runs the kernel, and tells the page what happens meanwhile. */
import { KernelError, listenToTrace, open, type PageMirror } from "pagemirror/browser";
import { EventStore } from "../../../src/inspect/index.ts";
import { countOnCpu, findOnCpu } from "./check.ts";
import { BYTES, BYTES_PER_WORKGROUP, FIND, FIND_PER_WORKGROUP } from "./kernels.ts";
import type { FromWorker, Job, Outcome, ToWorker } from "./messages.ts";

const SHOWN_EVERY_MS = 100;
/** The kernels count bytes in a u32, and have one dimension of workgroups. */
const MOST_BYTES = { bytes: 2 ** 32 - 1, find: FIND_PER_WORKGROUP * 65_535 };

const scope = globalThis as unknown as {
  postMessage(message: FromWorker, transfer?: readonly Transferable[]): void;
  addEventListener(type: "message", listener: (event: MessageEvent<ToWorker>) => void): void;
};

let stop = new AbortController();

scope.addEventListener("message", ({ data }) => {
  if ("stop" in data) {
    stop.abort();
  } else {
    stop = new AbortController();
    void run(data.run, stop.signal).then(
      (outcome) => scope.postMessage({ outcome }),
      (error: unknown) => scope.postMessage({ failure: messageOf(error) }),
    );
  }
});

function messageOf(error: unknown): string {
  if (error instanceof KernelError) {
    return error.code === "EINTR" ? "Stopped." : error.message;
  }
  return error instanceof Error && error.name === "AbortError" ? "Stopped." : String(error);
}

async function run(job: Job, signal: AbortSignal): Promise<Outcome> {
  const most = MOST_BYTES[job.kernel];
  if (job.file.size > most) {
    const why = `${job.file.name} has ${job.file.size} bytes, and this kernel counts no further than ${most}: choose a smaller file`;
    throw new KernelError("EINVAL", "open", why);
  }
  // A device as WebGPU promises it everywhere, not as much as this one could do: the file is larger than its bindings.
  const adapter = await navigator.gpu?.requestAdapter();
  const gpu = await adapter?.requestDevice();
  await using pm = await open({ gpu, deviceMemory: job.deviceMemory });
  const bindingLimit = pm.device.gpu.limits.maxStorageBufferBindingSize;
  scope.postMessage({ opened: { adapter: pm.adapter.name, bindingLimit } });
  const store = new EventStore();
  const origin = performance.now();
  const unlisten = listenToTrace(({ name, fields, at, duration }) =>
    store.add(name, fields, (at - origin) * 1000, duration * 1000),
  );
  let told = { count: 0, samples: 0 };
  const tell = () => {
    const events = store.encode(told.count, told.samples).buffer;
    told = { count: store.count, samples: store.samples.length };
    scope.postMessage({ events }, [events]);
  };
  const timer = setInterval(() => {
    tell();
    const { bytesToDevice } = pm.device.stats();
    scope.postMessage({ progress: { what: "The GPU works", done: Math.min(1, bytesToDevice / job.file.size) } });
  }, SHOWN_EVERY_MS);
  try {
    const result = await dispatch(pm, job, signal);
    clearInterval(timer);
    tell();
    scope.postMessage({ progress: { what: "The CPU checks", done: 1 } });
    const started = performance.now();
    const same = await isSame(job, result, signal);
    const { bytesToDevice } = pm.device.stats();
    return { ...result, bytesToDevice, same, cpuMs: performance.now() - started };
  } finally {
    clearInterval(timer);
    unlisten();
    gpu?.destroy();
  }
}

type Result = Pick<Outcome, "counts" | "matches" | "gpuMs" | "rounds">;

async function dispatch(pm: PageMirror, job: Job, signal: AbortSignal): Promise<Result> {
  const object = await pm.openFile(job.file);
  const { size } = job.file;
  const file = await pm.mm.mmap({ object, length: size, shared: true, prot: "r", name: job.file.name });
  await object.put();
  const started = performance.now();
  if (job.kernel === "bytes") {
    const counts = await pm.mm.mmap({ length: 1024, name: "counts" });
    const kernel = await pm.device.kernel(BYTES, { name: "count bytes" });
    const { rounds } = await kernel.dispatch({
      mm: pm.mm,
      params: { file: file.svmAddress, bytes: size, counts: counts.svmAddress },
      workgroups: Math.ceil(size / BYTES_PER_WORKGROUP),
      signal,
    });
    const bytes = await counts.read(0, 1024);
    return { counts: new Uint32Array(bytes.buffer), matches: 0, rounds, gpuMs: performance.now() - started };
  }
  const text = new TextEncoder().encode(job.text);
  const needle = await pm.mm.mmap({ length: text.length, name: "needle" });
  await needle.write(0, text);
  const total = await pm.mm.mmap({ length: 4, name: "total" });
  const groups = Math.ceil(size / FIND_PER_WORKGROUP);
  const found = await pm.mm.mmap({ length: groups * 256, name: "matches by place" });
  const kernel = await pm.device.kernel(FIND, { name: "find text" });
  const { rounds } = await kernel.dispatch({
    mm: pm.mm,
    params: {
      text: file.svmAddress,
      bytes: size,
      needle: needle.svmAddress,
      needle_bytes: text.length,
      total: total.svmAddress,
      pieces: found.svmAddress,
    },
    workgroups: groups,
    signal,
  });
  const pieces = new Uint32Array((await found.read(0, groups * 256)).buffer);
  const [matches = 0] = new Uint32Array((await total.read(0, 4)).buffer);
  return { counts: binsOf(pieces), matches, rounds, gpuMs: performance.now() - started };
}

/** Matches of many pieces in 256 parts of the file. */
function binsOf(pieces: Uint32Array): Uint32Array {
  const bins = new Uint32Array(256);
  pieces.forEach((piece, i) => {
    bins[Math.floor((i * 256) / pieces.length)] += piece >>> 16;
  });
  return bins;
}

async function isSame(job: Job, { counts, matches }: Result, signal: AbortSignal): Promise<boolean> {
  if (job.kernel === "find") {
    return (await findOnCpu(job.file, new TextEncoder().encode(job.text), signal)) === matches;
  }
  const expected = await countOnCpu(job.file, signal);
  return expected.every((count, byte) => count === counts[byte]);
}
