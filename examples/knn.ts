/**
 * Finds the vectors nearest to four queries in a file that is several times as large as the device's memory, and checks
 * the answers against the CPU.
 *
 *     npx tsx examples/knn.ts [SIZE] [DEVICE_MEMORY] [FILE]
 *
 * SIZE (default 64M) is the size of the file of vectors to make, DEVICE_MEMORY (default 8M) the most that may be allocated
 * on the device. FILE keeps the vectors for another time; one that is there is used as it is.
 */
import { readFile } from "node:fs/promises";
import { open } from "../src/node.ts"; // in your own code: from "pagemirror/node"
import "./one-line.ts";
import { makeFile, mix, readArguments, report } from "./svm-example.ts";

const DIMS = 64;
const VECTOR_BYTES = DIMS * 4;
const QUERIES = 4;
const K = 8;
const WORKGROUP = 64;
const CENTRES = 1000;

interface Candidate {
  readonly number: number;
  readonly distance: number;
}

/** One component of a vector: its cluster's centre and some noise, all whole numbers, so that distances are exact. */
function component(vector: number, dim: number): number {
  const centre = mix(vector) % CENTRES;
  return (mix(centre * DIMS + dim + 1_000_000_007) % 16) + (mix(vector * DIMS + dim) % 4);
}

function vectorsFrom(first: number, count: number): Float32Array<ArrayBuffer> {
  return Float32Array.from({ length: count * DIMS }, (_, i) => component(first + Math.floor(i / DIMS), i % DIMS));
}

function closest(candidates: readonly Candidate[]): Candidate[] {
  return [...candidates].sort((a, b) => a.distance - b.distance || a.number - b.number).slice(0, K);
}

function nearestOnCpu(vectors: Float32Array, query: Float32Array): Candidate[] {
  let best: Candidate[] = [];
  for (let number = 0; number < vectors.length / DIMS; number++) {
    let distance = 0;
    for (let dim = 0; dim < DIMS; dim++) {
      const difference = vectors[number * DIMS + dim] - query[dim];
      distance += difference * difference;
    }
    if (best.length < K || distance < best[K - 1].distance) {
      best = closest([...best, { number, distance }]);
    }
  }
  return best;
}

await using args = await readArguments();
await makeFile(args.file, Math.floor(args.size / VECTOR_BYTES) * VECTOR_BYTES, (chunk, offset) =>
  chunk.set(new Uint8Array(vectorsFrom(offset / VECTOR_BYTES, chunk.length / VECTOR_BYTES).buffer)),
);

await using pm = await open({ deviceMemory: args.deviceMemory });
const object = await pm.openFile(args.file);
const bytes = object.length;
const count = Math.floor(bytes / VECTOR_BYTES);
const groups = Math.ceil(count / WORKGROUP);
const vectors = await pm.mm.mmap({ length: bytes, object, shared: true, prot: "r", name: "vectors" });
await object.put();
const queries = await pm.mm.mmap({ length: QUERIES * VECTOR_BYTES, name: "queries" });
const best = await pm.mm.mmap({ length: groups * QUERIES * K * 8, name: "best" });
const asked = vectorsFrom(count, QUERIES);
await queries.write(0, new Uint8Array(asked.buffer));

const kernel = await pm.device.kernel(await readFile(new URL("knn.wgsl", import.meta.url), "utf8"), { name: "knn" });
const started = performance.now();
const stats = await kernel.dispatch({
  mm: pm.mm,
  params: { vectors: vectors.svmAddress, bytes, dims: DIMS, queries: queries.svmAddress, best: best.svmAddress },
  workgroups: groups,
});
const found: Candidate[][] = [];
{
  using result = await best.lease("r");
  for (let query = 0; query < QUERIES; query++) {
    const candidates: Candidate[] = [];
    for (let place = 0; place < groups * K; place++) {
      const at = ((Math.floor(place / K) * QUERIES + query) * K + (place % K)) * 2;
      candidates.push({ number: result.u32[at], distance: result.f32[at + 1] });
    }
    found.push(closest(candidates));
  }
}
const ms = performance.now() - started;

const file = await readFile(args.file);
const all = new Float32Array(file.buffer, file.byteOffset, count * DIMS);
const expected = Array.from({ length: QUERIES }, (_, query) =>
  nearestOnCpu(all, asked.subarray(query * DIMS, (query + 1) * DIMS)),
);
found.forEach((list, query) => {
  console.log(`query ${query}: ${list.map(({ number, distance }) => `${number} (${distance})`).join(", ")}`);
});
report(
  `${QUERIES} queries over ${count} vectors of ${DIMS} numbers, on ${pm.adapter.name}`,
  { dataBytes: bytes, deviceMemory: args.deviceMemory, neededBytes: bytes, ms },
  stats,
  JSON.stringify(found) === JSON.stringify(expected),
);
