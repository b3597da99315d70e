/**
 * Finds how far each node of a graph is from the first one, in a file that is several times as large as the device's
 * memory, and checks the distances against the CPU.
 *
 *     npx tsx examples/bfs.ts [SIZE] [DEVICE_MEMORY] [FILE]
 *
 * SIZE (default 64M) is the size of the graph to make, DEVICE_MEMORY (default 16M) the most that may be allocated on the
 * device: the distances, a sixteenth of SIZE, should fit. FILE keeps the graph for another time; one that is there is used
 * as it is. examples/bfs.wgsl describes the file.
 */
import { readFile } from "node:fs/promises";
import { open } from "../src/node.ts"; // in your own code: from "pagemirror/node"
import "./one-line.ts";
import { type Figures, makeFile, mix, readArguments, report } from "./svm-example.ts";

const HEADER = 2;
const EDGES_A_NODE = 15;
const UNSEEN = 0xffff_ffff;
const WORKGROUP = 64;

/** Nodes with 4 to 26 edges, half of them to nodes nearby, the others anywhere. */
function makeGraph(bytes: number): Uint32Array<ArrayBuffer> {
  const nodes = Math.floor(bytes / 4 / (EDGES_A_NODE + 1)) - 1;
  const degree = (node: number) => 4 + (mix(node) % 23);
  const begins = new Uint32Array(nodes + 1);
  for (let node = 0; node < nodes; node++) {
    begins[node + 1] = begins[node] + degree(node);
  }
  const graph = new Uint32Array(HEADER + begins.length + begins[nodes]);
  graph.set([nodes, begins[nodes]]);
  graph.set(begins, HEADER);
  let at = HEADER + begins.length;
  for (let node = 0; node < nodes; node++) {
    for (let edge = 0; edge < degree(node); edge++) {
      const h = mix(node * 32 + edge);
      graph[at++] = h % 2 === 0 ? (h >>> 1) % nodes : (node + ((h >>> 1) % 1000)) % nodes;
    }
  }
  return graph;
}

function depthsOnCpu(graph: Uint32Array): Uint32Array {
  const [nodes] = graph;
  const depths = new Uint32Array(nodes).fill(UNSEEN);
  const edges = HEADER + nodes + 1;
  const queue = [0];
  depths[0] = 0;
  for (const node of queue) {
    for (let edge = graph[HEADER + node]; edge < graph[HEADER + node + 1]; edge++) {
      const target = graph[edges + edge];
      if (depths[target] === UNSEEN) {
        depths[target] = depths[node] + 1;
        queue.push(target);
      }
    }
  }
  return depths;
}

await using args = await readArguments("64M", "16M");
{
  const made = new Uint8Array(makeGraph(args.size).buffer);
  await makeFile(args.file, made.length, (chunk, offset) => {
    chunk.set(made.subarray(offset, offset + chunk.length));
  });
}
const file = await readFile(args.file);
const onCpu = new Uint32Array(file.buffer, file.byteOffset, file.length / 4);
const [nodes, edges] = onCpu;

await using pm = await open({ deviceMemory: args.deviceMemory });
const object = await pm.openFile(args.file);
const graph = await pm.mm.mmap({ length: file.length, object, shared: true, prot: "r", name: "graph" });
await object.put();
const depths = await pm.mm.mmap({ length: nodes * 4, name: "depths" });
const reached = await pm.mm.mmap({ length: 4, name: "reached" });
await depths.write(0, new Uint8Array(new Uint32Array(nodes).fill(UNSEEN).buffer));
await depths.write(0, new Uint8Array(4));

const kernel = await pm.device.kernel(await readFile(new URL("bfs.wgsl", import.meta.url), "utf8"), { name: "bfs" });
const started = performance.now();
const sum = { rounds: 0, bytesToDevice: 0, evictions: 0 };
const perLevel: number[] = [];
for (let before = -1, level = 0, total = 0; total > before; level++) {
  const stats: Figures = await kernel.dispatch({
    mm: pm.mm,
    params: { graph: graph.svmAddress, depths: depths.svmAddress, level, reached: reached.svmAddress },
    workgroups: Math.ceil(nodes / WORKGROUP),
  });
  sum.rounds += stats.rounds;
  sum.bytesToDevice += stats.bytesToDevice;
  sum.evictions += stats.evictions;
  before = total;
  [total] = new Uint32Array((await reached.read(0, 4)).buffer);
  perLevel.push(total - before);
}
const found = await depths.read(0, nodes * 4);
const ms = performance.now() - started;

const expected = depthsOnCpu(onCpu);
const result = new Uint32Array(found.buffer, found.byteOffset, nodes);
console.log(`nodes on each level: ${perLevel.filter((count) => count > 0).join(", ")}`);
report(
  `breadth-first search over ${nodes} nodes and ${edges} edges, on ${pm.adapter.name}`,
  { dataBytes: file.length, deviceMemory: args.deviceMemory, neededBytes: file.length + nodes * 4, ms },
  sum,
  result.every((depth, node) => depth === expected[node]),
);
