/** What the benchmarks of svm mode share: data, and what a person would write without this library. */
import { open } from "../dist/node.js";

export const MIB = 2 ** 20;
export const DEVICE_PAGE = 16_384;
export const PAGE_WORDS = DEVICE_PAGE / 4;
export const WORKGROUP = 64;
export const PARAMS = "@group(0) @binding(0) var<uniform> params: Params;";

const STORAGE = 0x80 | 0x8 | 0x4;
const READBACK = 0x1 | 0x8;
const MAP_READ = 1;

/** What `body` does with an address space and a device of its own. */
export async function withOpen(options, body) {
  const pm = await open(options);
  try {
    return await body(pm);
  } finally {
    await pm.close();
  }
}

/** A mapping with words that are known. */
export async function filled(pm, length, name) {
  const mapping = await pm.mm.mmap({ length, name });
  const lease = await mapping.lease("rw");
  const words = lease.u32;
  for (let i = 0; i < words.length; i++) {
    words[i] = Math.imul(i, 2_654_435_761) >>> 7;
  }
  lease.release();
  return mapping;
}

/** Takes pages off the device: the CPU announces that it writes them. */
export async function forget(mapping, pieces = [{ offset: 0, length: mapping.length }]) {
  for (const { offset, length } of pieces) {
    (await mapping.lease("rw", { offset, length })).release();
  }
}

/** What a person would write without PageMirror: buffers, one pipeline, a readback of the sums. */
export async function handWritten(gpu, wgsl, sizes, sumBytes) {
  const device = gpu.device;
  const pipeline = await device.createComputePipelineAsync({
    layout: "auto",
    compute: { module: device.createShaderModule({ code: wgsl }) },
  });
  const buffers = sizes.map((size) => device.createBuffer({ size, usage: STORAGE }));
  const readback = device.createBuffer({ size: sumBytes, usage: READBACK });
  const group = (list) =>
    device.createBindGroup({
      layout: pipeline.getBindGroupLayout(0),
      entries: list.map(([binding, resource]) => ({ binding, resource })),
    });
  const submit = (bindGroup, workgroups) => {
    const encoder = device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    pass.setPipeline(pipeline);
    pass.setBindGroup(0, bindGroup);
    pass.dispatchWorkgroups(workgroups);
    pass.end();
    device.queue.submit([encoder.finish()]);
  };
  /** Waits for the GPU and returns the first sum and the last. */
  const sums = async (from) => {
    const encoder = device.createCommandEncoder();
    encoder.copyBufferToBuffer(from, 0, readback, 0, sumBytes);
    device.queue.submit([encoder.finish()]);
    await readback.mapAsync(MAP_READ);
    const words = new Uint32Array(readback.getMappedRange()).slice();
    readback.unmap();
    return words;
  };
  const end = () => {
    for (const buffer of [...buffers, readback]) {
      buffer.destroy();
    }
  };
  return { device, pipeline, buffers, group, submit, sums, end };
}

export function same(found, expected, what) {
  for (let i = 0; i < expected.length; i++) {
    if (found[i] !== expected[i]) {
      throw new Error(`${what}: sum ${i} is ${found[i]} and should be ${expected[i]}`);
    }
  }
}

export async function wordsOf(mapping) {
  const lease = await mapping.lease("r");
  const words = lease.u32.slice();
  lease.release();
  return words;
}
