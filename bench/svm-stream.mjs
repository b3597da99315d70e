/** A pass over data of 16 times the device's memory, against chunks by hand. */
import { interleaved, median, milliseconds } from "./measure.mjs";
import { filled, handWritten, MIB, PARAMS, same, WORKGROUP, wordsOf } from "./svm-parts.mjs";

const ROUNDS = 7;
const LARGE = 256 * MIB;
export const SMALL_MEMORY = 16 * MIB;
/** Words that an invocation sums. */
const LONG_RUN = 1024;

const STREAM = `
struct Params { data: u32, sums: u32 }
${PARAMS}
@compute @workgroup_size(${WORKGROUP}) fn main(@builtin(global_invocation_id) id: vec3u) {
  let words = pm_span(params.data + id.x * ${LONG_RUN}u, ${LONG_RUN}u);
  var four = vec4u();
  for (var i = 0u; i < ${LONG_RUN}u; i += 4u) { four += pm_span_load_vec4u(words, i); }
  pm_store_u32(params.sums + id.x, four.x + four.y + four.z + four.w);
}`;
const RAW_STREAM = `
@group(0) @binding(0) var<storage, read> data: array<vec4u>;
@group(0) @binding(1) var<storage, read_write> sums: array<u32>;
@compute @workgroup_size(${WORKGROUP}) fn main(@builtin(global_invocation_id) id: vec3u) {
  var four = vec4u();
  for (var i = 0u; i < ${LONG_RUN / 4}u; i++) { four += data[id.x * ${LONG_RUN / 4}u + i]; }
  sums[id.x] = four.x + four.y + four.z + four.w;
}`;

/** A pass over data of 16 times the device's memory, against chunks by hand. */
export async function oversubscribed(pm) {
  const data = await filled(pm, LARGE, "data");
  const invocations = LARGE / 4 / LONG_RUN;
  const sums = await pm.mm.mmap({ length: invocations * 4, name: "sums" });
  const words = await wordsOf(data);

  // Two buffers, so that one is filled while the GPU works on the other.
  const chunk = SMALL_MEMORY / 2;
  const chunkSums = chunk / LONG_RUN;
  const sizes = [chunk, chunk, invocations * 4];
  const rival = await handWritten(pm.device.gpu, RAW_STREAM, sizes, invocations * 4);
  const chunks = async () => {
    for (let at = 0; at < LARGE; at += chunk) {
      const buffer = rival.buffers[(at / chunk) % 2];
      rival.device.queue.writeBuffer(buffer, 0, words, at / 4, chunk / 4);
      const offset = (at / chunk) * chunkSums;
      const bound = rival.group([
        [0, { buffer }],
        [1, { buffer: rival.buffers[2], offset, size: chunkSums }],
      ]);
      rival.submit(bound, chunkSums / 4 / WORKGROUP);
    }
    return rival.sums(rival.buffers[2]);
  };
  const expected = await chunks();
  const kernel = await pm.device.kernel(STREAM, { name: "stream" });
  const params = { data: data.svmAddress, sums: sums.svmAddress };
  const dispatch = () => kernel.dispatch({ mm: pm.mm, params, workgroups: invocations / WORKGROUP });
  await dispatch();
  same(await wordsOf(sums), expected, "oversubscribed");
  const moved = [];
  const figures = await interleaved(ROUNDS, {
    chunks: () => milliseconds(chunks),
    svm: () => milliseconds(async () => moved.push((await dispatch()).bytesToDevice)),
  });
  rival.end();
  return { ...figures, bytesOverMinimum: median(moved) / LARGE };
}
