/** 1 % of a large mapping, in clusters, against sending all of it. */
import { interleaved, median, milliseconds } from "./measure.mjs";
import { filled, forget, handWritten, MIB, PARAMS, same, WORKGROUP, wordsOf } from "./svm-parts.mjs";

const ROUNDS = 14;
const LARGE = 256 * MIB;
/** 1 % of {@link LARGE}, in pieces that begin anywhere in the first MiB of 16 MiB. */
const CLUSTERS = 16;
const CLUSTER = 41 * 4096;
/** Words that an invocation sums. */
const RUN = 32;

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

/** 1 % of a large mapping, in clusters, against sending all of it: pages that the CPU wrote since, and others each time. */
export async function gather(pm) {
  const data = await filled(pm, LARGE, "data");
  const invocations = (CLUSTERS * CLUSTER) / 4 / RUN;
  const workgroups = invocations / WORKGROUP;
  const clusters = Array.from({ length: CLUSTERS }, (_, i) => ({
    offset: (Math.floor((i * LARGE) / CLUSTERS / 4096) + ((i * 37) % 61)) * 4096,
    length: CLUSTER,
  }));
  const placesFrom = (byte) =>
    Uint32Array.from({ length: invocations }, (_, i) => {
      const word = i * RUN;
      const { offset } = clusters[Math.floor((word * 4) / CLUSTER)];
      return (offset + byte) / 4 + (word % (CLUSTER / 4));
    });
  const places = await pm.mm.mmap({ length: invocations * 4, name: "places" });
  const sums = await pm.mm.mmap({ length: invocations * 4, name: "sums" });
  const placeWords = placesFrom(0);
  await places.write(0, new Uint8Array(placeWords.buffer));

  // Dawn copies forwards or backwards, by which of the two lies lower, and takes 1.8 times as long for one as for the other.
  const older = await wordsOf(data);
  const sizes = [LARGE, invocations * 4, invocations * 4];
  const rival = await handWritten(pm.device.gpu, RAW_GATHER, sizes, invocations * 4);
  const younger = older.slice();
  const bound = rival.group(rival.buffers.map((buffer, binding) => [binding, { buffer }]));
  const full = async (words) => {
    rival.device.queue.writeBuffer(rival.buffers[0], 0, words);
    rival.device.queue.writeBuffer(rival.buffers[2], 0, placeWords);
    rival.submit(bound, workgroups);
    return rival.sums(rival.buffers[1]);
  };
  const expected = await full(older);
  const params = { data: data.svmAddress, places: places.svmAddress, sums: sums.svmAddress };
  const gathering = async () => {
    const kernel = await pm.device.kernel(GATHER, { name: "gather" });
    return () => kernel.dispatch({ mm: pm.mm, params, workgroups });
  };
  const dispatch = await gathering();
  const cold = async () => {
    await forget(data, clusters);
  };
  await dispatch();
  same(await wordsOf(sums), expected, "gather");
  // Pages that no dispatch has used, each time: what the kernel needed before is of no use.
  const dispatchElsewhere = await gathering();
  let elsewhere = 0;
  const goElsewhere = async () => {
    elsewhere += MIB;
    const from = placesFrom(elsewhere);
    await places.write(0, new Uint8Array(from.buffer));
    return from;
  };
  const from = await goElsewhere();
  await dispatchElsewhere();
  same(
    await wordsOf(sums),
    from.map((first) => older.subarray(first, first + RUN).reduce((sum, word) => (sum + word) >>> 0, 0)),
    "gather elsewhere",
  );
  const moved = [];
  const movedElsewhere = [];
  const figures = await interleaved(ROUNDS, {
    older: () => milliseconds(() => full(older)),
    younger: () => milliseconds(() => full(younger)),
    svm: async () => {
      await cold();
      await places.write(0, new Uint8Array(placeWords.buffer));
      return milliseconds(async () => moved.push((await dispatch()).bytesToDevice));
    },
    other: async () => {
      await goElsewhere();
      return milliseconds(async () => movedElsewhere.push((await dispatchElsewhere()).bytesToDevice));
    },
  });
  rival.end();
  const needed = CLUSTERS * CLUSTER + placeWords.byteLength;
  return { ...figures, bytesOverNeeded: median(moved) / needed, bytesElsewhere: median(movedElsewhere) / needed };
}
