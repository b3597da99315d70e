/** Kernels that follow addresses, against hand-written WebGPU over the same data on the same device. */
import { open } from "../dist/node.js";
import { interleaved, median, milliseconds } from "./measure.mjs";

const MIB = 2 ** 20;
const DEVICE_PAGE = 16_384;
const PAGE_WORDS = DEVICE_PAGE / 4;
const ROUNDS = 15;
/** Of subjects that take long. */
const LONG_ROUNDS = 7;

const RESIDENT = 32 * MIB;
/** Words that an invocation sums. */
const RUN = 32;
const WORKGROUP = 64;

const LARGE = 256 * MIB;
const SMALL_MEMORY = 16 * MIB;
/** 1 % of {@link LARGE}, in pieces that begin anywhere. */
const CLUSTERS = 16;
const CLUSTER = 41 * 4096;
/** Words that an invocation sums of the large data. */
const LONG_RUN = 1024;

const STRAGGLER_INVOCATIONS = 2 ** 20;
const STRAGGLER_PAGES = 64;
const STRAGGLER_APART = 4 * MIB;
const CHASE_PAGES = 1024;

const PARAMS = "@group(0) @binding(0) var<uniform> params: Params;";
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

const GATHER = `
struct Params { data: u32, places: u32, sums: u32 }
${PARAMS}
@compute @workgroup_size(${WORKGROUP}) fn main(@builtin(global_invocation_id) id: vec3u) {
  let first = params.data + pm_load_u32(params.places + id.x);
  var four = vec4u();
  for (var i = 0u; i < ${RUN}u; i += 4u) { four += pm_load_vec4u(first + i); }
  pm_store_u32(params.sums + id.x, four.x + four.y + four.z + four.w);
}`;
const RAW_GATHER = `
@group(0) @binding(0) var<storage, read> data: array<vec4u>;
@group(0) @binding(1) var<storage, read_write> sums: array<u32>;
@group(0) @binding(2) var<storage, read> places: array<u32>;
@compute @workgroup_size(${WORKGROUP}) fn main(@builtin(global_invocation_id) id: vec3u) {
  let first = places[id.x] / 4u;
  var four = vec4u();
  for (var i = 0u; i < ${RUN / 4}u; i++) { four += data[first + i]; }
  sums[id.x] = four.x + four.y + four.z + four.w;
}`;

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

const CHASE = `
struct Params { first: u32, sum: u32 }
${PARAMS}
@compute @workgroup_size(1) fn main() {
  var sum = 0u;
  for (var at = params.first; at != 0u; at = pm_load_u32(at)) { sum += 1u; }
  pm_store_u32(params.sum, sum);
}`;
const STRAGGLER = `
struct Params { first: u32, straggler: u32, sums: u32 }
${PARAMS}
@compute @workgroup_size(${WORKGROUP}) fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) groups: vec3u) {
  let i = id.y * groups.x * ${WORKGROUP}u + id.x;
  var sum = pm_load_u32(params.sums + i);
  if (i == params.straggler) {
    for (var at = params.first; at != 0u; at = pm_load_u32(at)) { sum += 1u; }
  }
  pm_store_u32(params.sums + i, sum);
}`;

const STORAGE = 0x80 | 0x8 | 0x4;
const READBACK = 0x1 | 0x8;
const MAP_READ = 1;

/** What `body` does with an address space and a device of its own. */
async function withOpen(options, body) {
  const pm = await open(options);
  try {
    return await body(pm);
  } finally {
    await pm.close();
  }
}

/** A mapping with words that are known. */
async function filled(pm, length, name) {
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
async function forget(mapping, pieces = [{ offset: 0, length: mapping.length }]) {
  for (const { offset, length } of pieces) {
    (await mapping.lease("rw", { offset, length })).release();
  }
}

/** What a person would write without PageMirror: buffers, one pipeline, a readback of the sums. */
async function handWritten(gpu, wgsl, sizes, sumBytes) {
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
  return { device, buffers, group, submit, sums, end };
}

function same(found, expected, what) {
  for (let i = 0; i < expected.length; i++) {
    if (found[i] !== expected[i]) {
      throw new Error(`${what}: sum ${i} is ${found[i]} and should be ${expected[i]}`);
    }
  }
}

async function wordsOf(mapping) {
  const lease = await mapping.lease("r");
  const words = lease.u32.slice();
  lease.release();
  return words;
}

/** Loads from memory that is all there, against the same loop over a bound buffer. */
async function resident(pm) {
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

/** 1 % of a large mapping, in clusters, against sending all of it. */
async function gather(pm) {
  const data = await filled(pm, LARGE, "data");
  const invocations = (CLUSTERS * CLUSTER) / 4 / RUN;
  const workgroups = invocations / WORKGROUP;
  const clusters = Array.from({ length: CLUSTERS }, (_, i) => ({
    offset: (Math.floor((i * LARGE) / CLUSTERS / 4096) + ((i * 37) % 61)) * 4096,
    length: CLUSTER,
  }));
  const places = await pm.mm.mmap({ length: invocations * 4, name: "places" });
  const sums = await pm.mm.mmap({ length: invocations * 4, name: "sums" });
  const placeWords = Uint32Array.from({ length: invocations }, (_, i) => {
    const word = i * RUN;
    const { offset } = clusters[Math.floor((word * 4) / CLUSTER)];
    return offset / 4 + (word % (CLUSTER / 4));
  });
  await places.write(0, new Uint8Array(placeWords.buffer));

  const words = await wordsOf(data);
  const sizes = [LARGE, invocations * 4, invocations * 4];
  const rival = await handWritten(pm.device.gpu, RAW_GATHER, sizes, invocations * 4);
  const bound = rival.group(rival.buffers.map((buffer, binding) => [binding, { buffer }]));
  const full = async () => {
    rival.device.queue.writeBuffer(rival.buffers[0], 0, words);
    rival.device.queue.writeBuffer(rival.buffers[2], 0, placeWords);
    rival.submit(bound, workgroups);
    return rival.sums(rival.buffers[1]);
  };
  const expected = await full();
  const kernel = await pm.device.kernel(GATHER, { name: "gather" });
  const params = { data: data.svmAddress, places: places.svmAddress, sums: sums.svmAddress };
  const dispatch = () => kernel.dispatch({ mm: pm.mm, params, workgroups });
  const cold = async () => {
    await forget(data, clusters);
    await forget(places);
  };
  await dispatch();
  same(await wordsOf(sums), expected, "gather");
  const moved = [];
  const figures = await interleaved(ROUNDS, {
    full: () => milliseconds(full),
    svm: async () => {
      await cold();
      return milliseconds(async () => moved.push((await dispatch()).bytesToDevice));
    },
  });
  rival.end();
  return { ...figures, bytesOverNeeded: median(moved) / (CLUSTERS * CLUSTER + placeWords.byteLength) };
}

/** A pass over data of 16 times the device's memory, against chunks by hand. */
async function oversubscribed(pm) {
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
  const figures = await interleaved(LONG_ROUNDS, {
    chunks: () => milliseconds(chunks),
    svm: () => milliseconds(async () => moved.push((await dispatch()).bytesToDevice)),
  });
  rival.end();
  return { ...figures, bytesOverMinimum: median(moved) / LARGE };
}

/** Writes a list through device pages: each begins with the address of the next. Returns the address of the first. */
async function link(mapping, pages) {
  const lease = await mapping.lease("rw");
  pages.forEach((page, i) => {
    const next = pages[i + 1];
    lease.u32[page * PAGE_WORDS] = next === undefined ? 0 : mapping.svmAddress + next * PAGE_WORDS;
  });
  lease.release();
  return mapping.svmAddress + pages[0] * PAGE_WORDS;
}

/** Pages that depend on each other, next to each other in memory: in order, and in any order. */
async function chase(pm, shuffled) {
  const list = await pm.mm.mmap({ length: CHASE_PAGES * DEVICE_PAGE, name: "list" });
  const sum = await pm.mm.mmap({ length: 4, name: "sum" });
  // 5 and 1024 have no divisor in common: the pages come in order of (421 i) modulo 1024, or of i.
  const pages = Array.from({ length: CHASE_PAGES }, (_, i) => (shuffled ? (i * 421) % CHASE_PAGES : i));
  const first = await link(list, pages);
  const kernel = await pm.device.kernel(CHASE, { name: "chase" });
  const { rounds } = await kernel.dispatch({ mm: pm.mm, params: { first, sum: sum.svmAddress }, workgroups: 1 });
  same(await wordsOf(sum), [CHASE_PAGES], "chase");
  return rounds;
}

/** One of a million invocations follows a list through pages that are far from each other. */
async function straggler(pm) {
  const list = await pm.mm.mmap({ length: STRAGGLER_PAGES * STRAGGLER_APART, name: "list" });
  const sums = await pm.mm.mmap({ length: STRAGGLER_INVOCATIONS * 4, name: "sums" });
  const pages = Array.from({ length: STRAGGLER_PAGES }, (_, i) => (i * STRAGGLER_APART) / DEVICE_PAGE);
  const first = await link(list, pages);
  const kernel = await pm.device.kernel(STRAGGLER, { name: "straggler" });
  const params = { first, straggler: Math.floor(STRAGGLER_INVOCATIONS / 3), sums: sums.svmAddress };
  const dispatch = () => kernel.dispatch({ mm: pm.mm, params, workgroups: [STRAGGLER_INVOCATIONS / WORKGROUP / 4, 4] });
  await dispatch();
  const pieces = pages.map((page) => ({ offset: page * DEVICE_PAGE, length: DEVICE_PAGE }));
  const { ms } = await interleaved(LONG_ROUNDS, {
    ms: async () => {
      await forget(list, pieces);
      return milliseconds(dispatch);
    },
  });
  const found = await wordsOf(sums);
  // Each dispatch adds to what the last one left.
  same([found[params.straggler]], [(1 + LONG_ROUNDS) * STRAGGLER_PAGES], "straggler");
  return ms;
}

export async function metrics() {
  const loads = await withOpen({}, resident);
  const gathered = await withOpen({}, gather);
  const streamed = await withOpen({ deviceMemory: SMALL_MEMORY }, oversubscribed);
  const stragglerMs = await withOpen({}, straggler);
  const inOrder = await withOpen({}, (pm) => chase(pm, false));
  const shuffled = await withOpen({}, (pm) => chase(pm, true));
  return [
    { name: "svm.span.vs_raw", value: loads.span / loads.raw, unit: "x", better: "lower" },
    { name: "svm.vec4.vs_raw_scalar", value: loads.vec4 / loads.raw, unit: "x", better: "lower" },
    { name: "svm.scalar.vs_raw", value: loads.scalar / loads.raw, unit: "x", better: "lower" },
    {
      name: "svm.scalar_writable.vs_raw",
      value: loads.writable.scalar / loads.writable.raw,
      unit: "x",
      better: "lower",
    },
    { name: "svm.span.vs_raw_known_length", value: loads.span / loads.rawKnown, unit: "x", better: "lower" },
    { name: "svm.vec4.vs_raw_known_length", value: loads.vec4 / loads.rawKnown, unit: "x", better: "lower" },
    { name: "svm.scalar.vs_raw_known_length", value: loads.scalar / loads.rawKnown, unit: "x", better: "lower" },
    { name: "svm.resident.rounds", value: loads.rounds, unit: "rounds", better: "lower" },
    { name: "svm.gather_1pct.bytes_over_needed", value: gathered.bytesOverNeeded, unit: "x", better: "lower" },
    { name: "svm.gather_1pct.vs_full_upload", value: gathered.full / gathered.svm, unit: "x", better: "higher" },
    { name: "svm.oversubscribed.bytes_over_minimum", value: streamed.bytesOverMinimum, unit: "x", better: "lower" },
    { name: "svm.oversubscribed.vs_hand_chunked", value: streamed.svm / streamed.chunks, unit: "x", better: "lower" },
    { name: "svm.straggler_ms", value: stragglerMs, unit: "ms", better: "lower" },
    { name: "svm.chase.rounds", value: inOrder, unit: "rounds", better: "lower" },
    { name: "svm.chase.shuffled_rounds", value: shuffled, unit: "rounds", better: "lower" },
  ];
}
