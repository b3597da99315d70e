/** A stream that writes: `out = f(in)` through device memory that is smaller, against chunks by hand. */
import { interleaved, median, milliseconds } from "./measure.mjs";
import { filled, handWritten, MIB, PARAMS, same, WORKGROUP, wordsOf } from "./svm-parts.mjs";
import { SMALL_MEMORY } from "./svm-stream.mjs";

const MAP_READ = 1;
const READBACK = 0x1 | 0x8;
/** In and out. */
const WRITTEN = 128 * MIB;
const FEW_ROUNDS = 3;

/** `out = f(in)`, four words an invocation; the grid has two dimensions. */
const MAP = `
struct Params { data: u32, out: u32 }
${PARAMS}
@compute @workgroup_size(${WORKGROUP}) fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
  let at = (id.y * groups.x * ${WORKGROUP}u + id.x) * 4u;
  pm_store_vec4u(params.out + at, pm_load_vec4u(params.data + at) * 3u + 1u);
}`;
const RAW_MAP = `
@group(0) @binding(0) var<storage, read> data: array<vec4u>;
@group(0) @binding(1) var<storage, read_write> out: array<vec4u>;
@compute @workgroup_size(${WORKGROUP}) fn main(@builtin(global_invocation_id) id: vec3u) {
  out[id.x] = data[id.x] * 3u + 1u;
}`;

/** `out = f(in)` over arrays of 8 times the device's memory each, until the CPU has the result, against chunks by hand. */
export async function written(pm) {
  const data = await filled(pm, WRITTEN, "data");
  const out = await pm.mm.mmap({ length: WRITTEN, name: "out" });
  const words = await wordsOf(data);

  // Two of each, so that one is filled and the other read while the GPU works.
  const chunk = SMALL_MEMORY / 4;
  const rival = await handWritten(pm.device.gpu, RAW_MAP, [chunk, chunk, chunk, chunk], chunk);
  const backs = [0, 1].map(() => rival.device.createBuffer({ size: chunk, usage: READBACK }));
  const result = new Uint32Array(WRITTEN / 4);
  const chunks = async () => {
    const arriving = [undefined, undefined];
    const take = async (side) => {
      if (arriving[side] !== undefined) {
        const { at, mapped } = arriving[side];
        await mapped;
        result.set(new Uint32Array(backs[side].getMappedRange()), at / 4);
        backs[side].unmap();
        arriving[side] = undefined;
      }
    };
    for (let at = 0; at < WRITTEN; at += chunk) {
      const side = (at / chunk) % 2;
      rival.device.queue.writeBuffer(rival.buffers[side], 0, words, at / 4, chunk / 4);
      const bound = rival.group([rival.buffers[side], rival.buffers[2 + side]].map((buffer, i) => [i, { buffer }]));
      rival.submit(bound, chunk / 16 / WORKGROUP);
      await take(side);
      const encoder = rival.device.createCommandEncoder();
      encoder.copyBufferToBuffer(rival.buffers[2 + side], 0, backs[side], 0, chunk);
      rival.device.queue.submit([encoder.finish()]);
      arriving[side] = { at, mapped: backs[side].mapAsync(MAP_READ) };
    }
    await take(0);
    await take(1);
  };
  const kernel = await pm.device.kernel(MAP, { name: "map" });
  const params = { data: data.svmAddress, out: out.svmAddress };
  const svm = async () => {
    const { bytesToDevice } = await kernel.dispatch({
      mm: pm.mm,
      params,
      workgroups: [WRITTEN / 16 / WORKGROUP / 4, 4],
    });
    (await out.lease("r")).release();
    return bytesToDevice;
  };
  await chunks();
  await svm();
  same(await wordsOf(out), result, "written");
  const moved = [];
  const figures = await interleaved(FEW_ROUNDS, {
    chunks: () => milliseconds(chunks),
    svm: async () => {
      // What nobody needs any more is not brought before it is written.
      await pm.mm.madvise(out.start, out.length, "dontneed");
      return milliseconds(async () => moved.push(await svm()));
    },
  });
  for (const back of backs) {
    back.destroy();
  }
  rival.end();
  return { ...figures, bytesOverMinimum: median(moved) / WRITTEN };
}
