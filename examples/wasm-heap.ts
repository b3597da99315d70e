/**
 * A WebAssembly program's heap on the GPU: the program builds a linked list with its own allocator, a kernel walks it by the
 * program's pointers and doubles the values, the program reads the results, and grows its heap meanwhile. Nothing is copied by
 * hand, and the program is not changed.
 *
 *     npx tsx examples/wasm-heap.ts [NODES]
 */
import { readFile } from "node:fs/promises";
import { open } from "../src/node.ts"; // in your own code: from "pagemirror/node"
import "./one-line.ts";
import { listProgram } from "./wasm-list.ts";

const PAGES = 1024; // of 64 KiB: what the heap may grow to
const nodes = Number(process.argv[2] ?? 5000);

const memory = new WebAssembly.Memory({ initial: 1, maximum: PAGES });
const program = listProgram(memory, PAGES);
const first = program.build(nodes, 64);

await using pm = await open({ mmu: "auto" });
const heap = await pm.mm.adopt(memory, { maximum: PAGES * 65_536, name: "heap" });
const sum = await pm.mm.mmap({ length: 4, name: "sum" });
const kernel = await pm.device.kernel(await readFile(new URL("wasm-heap.wgsl", import.meta.url), "utf8"));

const expected = (nodes * (nodes + 1)) / 2;
let wrong = 0;
for (const list of [first, 0]) {
  // Page faults are all that the program needs on userfaultfd; on the software MMU it says what it uses.
  const build = async () => {
    using _lease = await heap.lease("rw");
    return program.build(nodes, 64); // grows the heap
  };
  const node = list === 0 ? await build() : list;
  await kernel.dispatch({
    mm: pm.mm,
    params: { heap: heap.svmAddress, first: node, sum: sum.svmAddress },
    workgroups: 1,
  });
  using _lease = await heap.lease("r");
  using result = await sum.lease("r");
  wrong += result.u32[0] === expected && program.sum(node) === 2 * expected ? 0 : 1;
  console.log(`${nodes} nodes at ${node}: the kernel found ${result.u32[0]}, the program then ${program.sum(node)}`);
}
console.log(`a heap of ${memory.buffer.byteLength / 2 ** 20} MiB, on the ${pm.mmu.name} MMU`);
console.log(wrong === 0 ? "OK" : `FAILED: ${wrong} lists are wrong`);
process.exitCode = wrong === 0 ? 0 : 1;
