/**
 * Looks keys up in a B+tree in a file that is several times as large as the device's memory, and checks the values against
 * the CPU. A lookup touches one node a level, so that little of the file is read at all.
 *
 *     npx tsx examples/btree.ts [SIZE] [DEVICE_MEMORY] [FILE]
 *
 * SIZE (default 64M) is the size of the tree to make, DEVICE_MEMORY (default 8M) the most that may be allocated on the
 * device. FILE keeps the tree for another time; one that is there is used as it is. examples/btree.wgsl describes the
 * nodes.
 */
import { open as openHandle, readFile } from "node:fs/promises";
import { open } from "../src/node.ts"; // in your own code: from "pagemirror/node"
import "./one-line.ts";
import { makeFile, mix, readArguments, report } from "./svm-example.ts";

const NODE = 4096;
const NODE_WORDS = NODE / 4;
const FIRST_KEY = 2;
const FIRST_CHILD = 512;
/** Keys a leaf, and children of any other node: not as many as fit, as in a tree that has grown. */
const FILL = 400;
const LOOKUPS = 1024;
const NONE = 0xffff_ffff;
const DEVICE_PAGE = 16_384;
const MAGIC = 0x504d_4254;

/** The key number `i` of the tree; every 16 numbers there is one. */
const keyAt = (i: number) => i * 16 + (mix(i) % 16);
const valueFor = (key: number) => mix(key) >>> 1;

/** Nodes of each level, leaves first, for a tree of at most `nodes`. */
function levelsOf(nodes: number): number[] {
  for (let leaves = nodes; leaves > 0; leaves--) {
    const levels = [leaves];
    while (levels[levels.length - 1] > 1) {
      levels.push(Math.ceil(levels[levels.length - 1] / FILL));
    }
    if (levels.reduce((sum, count) => sum + count) < nodes || leaves === 1) {
      return levels;
    }
  }
  return [1];
}

/** Fills in node `node` of the file: the header, then the levels from the leaves to the root. */
function fillNode(words: Uint32Array, node: number, levels: readonly number[]): void {
  if (node === 0) {
    const nodes = levels.reduce((sum, count) => sum + count);
    words.set([MAGIC, levels.length, nodes * NODE_WORDS]);
    return;
  }
  let level = 0;
  let firstOfLevel = 1;
  let firstBelow = 0;
  /** Keys below one node of the level. */
  let reach = FILL;
  for (; node >= firstOfLevel + levels[level]; level++) {
    firstBelow = firstOfLevel;
    firstOfLevel += levels[level];
    reach *= FILL;
  }
  const place = node - firstOfLevel;
  if (level === 0) {
    words.set([FILL, 1]);
    for (let i = 0; i < FILL; i++) {
      const key = keyAt(place * FILL + i);
      words[FIRST_KEY + i] = key;
      words[FIRST_CHILD + i] = valueFor(key);
    }
    return;
  }
  const children = Math.min(FILL, levels[level - 1] - place * FILL);
  words.set([children - 1, 0]);
  for (let i = 0; i < children; i++) {
    words[FIRST_CHILD + i] = (firstBelow + place * FILL + i) * NODE_WORDS;
    if (i > 0) {
      words[FIRST_KEY + i - 1] = keyAt((place * FILL + i) * (reach / FILL));
    }
  }
}

/** The values, by the same nodes on the CPU, and the bytes of device pages with a node that was looked at. */
async function lookUpOnCpu(file: string, keys: Uint32Array): Promise<{ values: Uint32Array; neededBytes: number }> {
  await using handle = await openHandle(file);
  const nodes = new Map<number, Uint32Array>();
  const nodeAt = async (word: number) => {
    const found = nodes.get(word);
    if (found !== undefined) {
      return found;
    }
    const words = new Uint32Array(NODE_WORDS);
    await handle.read(words, 0, NODE, word * 4);
    nodes.set(word, words);
    return words;
  };
  const [, , root] = await nodeAt(0);
  const values = new Uint32Array(keys.length);
  for (const [i, key] of keys.entries()) {
    let node = await nodeAt(root);
    for (;;) {
      const nodeKeys = node.subarray(FIRST_KEY, FIRST_KEY + node[0]);
      if (node[1] === 1) {
        const at = nodeKeys.indexOf(key);
        values[i] = at < 0 ? NONE : node[FIRST_CHILD + at];
        break;
      }
      const above = nodeKeys.findIndex((other) => other > key);
      node = await nodeAt(node[FIRST_CHILD + (above < 0 ? node[0] : above)]);
    }
  }
  const pages = new Set([...nodes.keys()].map((word) => Math.floor((word * 4) / DEVICE_PAGE)));
  return { values, neededBytes: pages.size * DEVICE_PAGE };
}

await using args = await readArguments();
const levels = levelsOf(Math.floor(args.size / NODE));
const fileNodes = levels.reduce((sum, count) => sum + count) + 1;
await makeFile(args.file, fileNodes * NODE, (chunk, offset) => {
  for (let at = 0; at < chunk.length; at += NODE) {
    fillNode(new Uint32Array(chunk.buffer, at, NODE_WORDS), (offset + at) / NODE, levels);
  }
});

await using pm = await open({ deviceMemory: args.deviceMemory });
const object = await pm.openFile(args.file);
const dataBytes = object.length;
const tree = await pm.mm.mmap({ length: dataBytes, object, shared: true, prot: "r", name: "tree" });
await object.put();
const bytes = LOOKUPS * 4;
const keys = await pm.mm.mmap({ length: bytes, name: "keys" });
const values = await pm.mm.mmap({ length: bytes, name: "values" });
// Every other key is in the tree. In order, so that invocations that run together want the same nodes.
const asked = Uint32Array.from({ length: LOOKUPS }, (_, i) => {
  const key = keyAt(mix(i) % (levels[0] * FILL));
  return i % 2 === 0 ? key : key + 16;
}).sort();
await keys.write(0, new Uint8Array(asked.buffer));

const kernel = await pm.device.kernel(await readFile(new URL("btree.wgsl", import.meta.url), "utf8"), {
  name: "btree",
});
const started = performance.now();
const stats = await kernel.dispatch({
  mm: pm.mm,
  params: { tree: tree.svmAddress, keys: keys.svmAddress, bytes, values: values.svmAddress },
  workgroups: LOOKUPS / 64,
});
const answer = await values.read(0, bytes);
const ms = performance.now() - started;

const found = new Uint32Array(answer.buffer, answer.byteOffset, LOOKUPS);
const expected = await lookUpOnCpu(args.file, asked);
const known = found.filter((value) => value !== NONE).length;
report(
  `${LOOKUPS} lookups, ${known} found, in a tree of ${levels.length} levels, on ${pm.adapter.name}`,
  { dataBytes, deviceMemory: args.deviceMemory, neededBytes: expected.neededBytes + 2 * bytes, ms },
  stats,
  known > 0 && found.every((value, i) => value === expected.values[i]),
);
