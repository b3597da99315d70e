/**
 * Bind mode against uploads by hand: 256 MiB bound for reading, 1 % of its 4 KiB pages rewritten at random before each
 * dispatch of a small kernel. The CPU's writes are in every side's time, and so is the wait for the GPU.
 *
 * Managed memory is shared memory, which workers and wasm can have too. `vs_hand` is against a program whose data is in
 * shared memory as well: it goes through an ordinary array, for queue.writeBuffer does not take shared memory everywhere
 * (Dawn's Node binding crashes on it). `vs_hand_unshared` is against one that does without shared memory.
 */
import { open } from "../dist/node.js";
import { median } from "./measure.mjs";

const MIB = 1024 * 1024;
export const BYTES = 256 * MIB;
const PAGE = 4096;
export const PAGES = BYTES / PAGE;
export const DIRTY = Math.floor(PAGES / 100);
const ROUNDS = 61;
/** Dawn makes room for what `queue.writeBuffer` sends, in pieces, for some dozen rounds, which take up to four times as long. */
export const WARM_UP = 20;

export const KERNEL = /* wgsl */ `
@group(0) @binding(0) var<storage, read> data: array<u32>;
@group(0) @binding(1) var<storage, read_write> result: array<u32>;
@compute @workgroup_size(64) fn main(@builtin(local_invocation_index) i: u32) {
  result[i] = data[i * (arrayLength(&data) / 64u)];
}`;

const IN_PLACE = /* wgsl */ `
@group(0) @binding(0) var<storage, read_write> data: array<u32>;
@compute @workgroup_size(64) fn main(@builtin(local_invocation_index) i: u32) {
  data[i * (arrayLength(&data) / 64u)] += 1u;
}`;

/** The same pages for every side of a round, other ones in the next. */
export function dirtyPages(round) {
  let x = round * 2654435761 + 1;
  const pages = new Set();
  while (pages.size < DIRTY) {
    x = (Math.imul(x, 1664525) + 1013904223) >>> 0;
    pages.add(Math.floor((x / 2 ** 32) * PAGES));
  }
  return [...pages];
}

/** What somebody would write who knows WebGPU: an ordinary array, and the stretches of it that he changed. */
export async function handWritten(gpu) {
  const { device } = gpu;
  // Written before, as the mirrored memory is: a first write to memory is another matter.
  const plain = new Uint32Array(BYTES / 4).fill(1);
  const shared = new Uint32Array(new SharedArrayBuffer(BYTES)).fill(1);
  const page0 = new Uint32Array(PAGE / 4);
  const storage = GPU_STORAGE | GPU_COPY_DST;
  const data = device.createBuffer({ size: BYTES, usage: storage });
  const result = device.createBuffer({ size: 256, usage: storage });
  const pipeline = await device.createComputePipelineAsync({
    layout: "auto",
    compute: { module: device.createShaderModule({ code: KERNEL }) },
  });
  const entries = [data, result].map((buffer, binding) => ({ binding, resource: { buffer } }));
  const group = device.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries });
  const write = (source, pages, value) => {
    for (const page of pages) {
      source.subarray(page * 1024, page * 1024 + 1024).fill(value);
    }
  };
  const run = async () => {
    const encoder = device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    pass.setPipeline(pipeline);
    pass.setBindGroup(0, group);
    pass.dispatchWorkgroups(1);
    pass.end();
    gpu.queue.submit([encoder.finish()]);
    await gpu.queue.onSubmittedWorkDone();
  };
  return {
    async dirtyOnly(pages, value) {
      write(shared, pages, value);
      for (const page of pages) {
        page0.set(shared.subarray(page * 1024, page * 1024 + 1024));
        gpu.queue.writeBuffer(data, page * PAGE, page0);
      }
      await run();
    },
    async dirtyOnlyUnshared(pages, value) {
      write(plain, pages, value);
      for (const page of pages) {
        gpu.queue.writeBuffer(data, page * PAGE, plain, page * 1024, 1024);
      }
      await run();
    },
    async everything(pages, value) {
      write(plain, pages, value);
      gpu.queue.writeBuffer(data, 0, plain);
      await run();
    },
    end() {
      data.destroy();
      result.destroy();
    },
  };
}

const GPU_COPY_DST = 0x8;
const GPU_STORAGE = 0x80;

/** 256 MiB of managed memory: `run` rewrites pages, each by a lease, and runs the kernel. */
export async function mirrored(pm, wgsl) {
  const data = await pm.mm.mmap({ length: BYTES, name: "data" });
  const whole = await data.lease("rw");
  whole.u32.fill(1);
  whole.release();
  const result = await pm.mm.mmap({ length: 256, name: "result" });
  const kernel = await pm.device.kernel(wgsl);
  const bind = wgsl === KERNEL ? { data, result } : { data };
  return {
    async run(pages, value) {
      for (const page of pages) {
        const pending = data.lease("rw", { offset: page * PAGE, length: PAGE });
        const lease = pending instanceof Promise ? await pending : pending;
        lease.u32.fill(value);
        lease.release();
      }
      return await kernel.dispatch({ bind, workgroups: 1 });
    },
    async end() {
      await data.munmap();
      await result.munmap();
    },
  };
}

/** Median seconds of each side; every round runs all sides, each round another one first. */
export async function interleaved(sides, rounds = ROUNDS) {
  const times = sides.map(() => []);
  for (let round = 0; round < rounds + WARM_UP; round++) {
    const pages = dirtyPages(round);
    for (let i = 0; i < sides.length; i++) {
      const side = (i + round) % sides.length;
      const started = performance.now();
      await sides[side](pages, round);
      const ms = performance.now() - started;
      if (round >= WARM_UP) {
        times[side].push(ms);
      }
    }
  }
  return times.map(median);
}

export async function metrics() {
  const pm = await open();
  try {
    return await measure(pm);
  } finally {
    await pm.close();
  }
}

async function measure(pm) {
  const found = [];
  {
    const ours = await mirrored(pm, KERNEL);
    const hand = await handWritten(pm.device.gpu);
    const before = pm.device.stats();
    const [mine, dirtyOnly, unshared] = await interleaved([ours.run, hand.dirtyOnly, hand.dirtyOnlyUnshared]);
    const uploaded = pm.device.stats().pagesUploaded - before.pagesUploaded;
    const expected = PAGES + (ROUNDS + WARM_UP - 1) * DIRTY;
    if (uploaded > expected + DIRTY) {
      throw new Error(`${uploaded} pages went up, ${expected} had changed`);
    }
    const [again, everything] = await interleaved([ours.run, hand.everything], 11);
    found.push(
      { name: "bind.sparse.ms", value: mine, unit: "ms", better: "lower" },
      { name: "bind.sparse.vs_hand", value: mine / dirtyOnly, unit: "x", better: "lower" },
      { name: "bind.sparse.vs_hand_unshared", value: mine / unshared, unit: "x", better: "lower" },
      { name: "bind.sparse.vs_full_upload", value: everything / again, unit: "x", better: "higher" },
    );
    hand.end();
    await ours.end();
  }
  {
    const ours = await mirrored(pm, IN_PLACE);
    const [mine] = await interleaved([ours.run], 5);
    found.push({ name: "bind.sparse.written_ms", value: mine, unit: "ms", better: "lower" });
    await ours.end();
  }
  return found;
}
