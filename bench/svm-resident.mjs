/** Loads from memory that is all there, against the same loop over a bound buffer. */
import { interleaved, milliseconds } from "./measure.mjs";
import { filled, handWritten, MIB, PARAMS, same, WORKGROUP, wordsOf } from "./svm-parts.mjs";

const ROUNDS = 15;
const RESIDENT = 32 * MIB;
/** Words that an invocation sums. */
const RUN = 32;

const sumKernel = (body) => `
struct Params { data: u32, sums: u32 }
${PARAMS}
@compute @workgroup_size(${WORKGROUP}) fn main(@builtin(global_invocation_id) id: vec3u) {
  let first = params.data + id.x * ${RUN}u;
  ${body}
  pm_store_u32(params.sums + id.x, sum);
}`;
const SCALAR = sumKernel(`var sum = 0u; for (var i = 0u; i < ${RUN}u; i++) { sum += pm_load_u32(first + i); }`);
const VEC4 = sumKernel(`var four = vec4u();
  for (var i = 0u; i < ${RUN}u; i += 4u) { four += pm_load_vec4u(first + i); }
  let sum = four.x + four.y + four.z + four.w;`);
const SPAN = sumKernel(`var sum = 0u;
  let words = pm_span(first, ${RUN}u);
  for (var i = 0u; i < ${RUN}u; i++) { sum += pm_span_load_u32(words, i); }`);
const rawSum = (head) => `
@group(0) @binding(0) var<storage, read> data: array<u32>;
@group(0) @binding(1) var<storage, read_write> sums: array<u32>;
@compute @workgroup_size(${WORKGROUP}) fn main(@builtin(global_invocation_id) id: vec3u) {
  ${head}
  let first = id.x * ${RUN}u;
  var sum = 0u;
  for (var i = 0u; i < ${RUN}u; i++) { sum += data[first + i]; }
  sums[id.x] = sum;
}`;
const RAW = rawSum("");
/** For drivers that work out an array's length, which clamps the index, in each turn of a loop: this one they know. */
const RAW_KNOWN = rawSum("if (arrayLength(&data) == 0u) { return; }");

/** Loads from memory that is all there, against the same loop over a bound buffer. */
export async function resident(pm) {
  const data = await filled(pm, RESIDENT, "data");
  const invocations = RESIDENT / 4 / RUN;
  const sums = await pm.mm.mmap({ length: invocations * 4, name: "sums" });
  const workgroups = invocations / WORKGROUP;
  const words = await wordsOf(data);
  const rivals = [];
  const rawBy = async (wgsl) => {
    const rival = await handWritten(pm.device.gpu, wgsl, [RESIDENT, invocations * 4], invocations * 4);
    rivals.push(rival);
    rival.device.queue.writeBuffer(rival.buffers[0], 0, words);
    const bound = rival.group(rival.buffers.map((buffer, binding) => [binding, { buffer }]));
    return async () => {
      rival.submit(bound, workgroups);
      return rival.sums(rival.buffers[1]);
    };
  };
  const raw = await rawBy(RAW);
  const rawKnown = await rawBy(RAW_KNOWN);
  const expected = await raw();
  same(await rawKnown(), expected, "raw");
  // The device need not own pages that nobody may write: once they are there, all is resident.
  await pm.mm.mprotect(data.start, data.length, "r");
  const params = { data: data.svmAddress, sums: sums.svmAddress };
  const subjects = { raw: () => milliseconds(raw), rawKnown: () => milliseconds(rawKnown) };
  let rounds = 0;
  for (const [name, wgsl] of Object.entries({ scalar: SCALAR, vec4: VEC4, span: SPAN })) {
    const kernel = await pm.device.kernel(wgsl, { name });
    const dispatch = () => kernel.dispatch({ mm: pm.mm, params, workgroups });
    await dispatch();
    same(await wordsOf(sums), expected, name);
    // The CPU looked at the sums: they have to be there again.
    await dispatch();
    subjects[name] = () =>
      milliseconds(async () => {
        rounds = Math.max(rounds, (await dispatch()).rounds);
      });
  }
  const figures = await interleaved(ROUNDS, subjects);
  const resident = { ...figures, rounds };
  // Nor pages that somebody may write, and that are only read; the first dispatch finds out what may be written now.
  await pm.mm.mprotect(data.start, data.length, "rw");
  await subjects.scalar();
  const writable = await interleaved(ROUNDS, { raw: subjects.raw, scalar: subjects.scalar });
  for (const rival of rivals) {
    rival.end();
  }
  return { ...resident, writable };
}
