/**
 * y = a * x + y from TypeScript: the CPU fills x and y, the GPU works on them, the CPU reads y. No copy is written by hand,
 * and on the second dispatch only the page of x that changed travels.
 *
 *     npx tsx examples/saxpy.ts [ELEMENTS]
 */
import { readFile } from "node:fs/promises";
import { open } from "../src/node.ts"; // in your own code: from "pagemirror/node"
import "./one-line.ts";

const elements = Number(process.argv[2] ?? 1_000_000);
const a = 2.5;

await using pm = await open();
const kernel = await pm.device.kernel(await readFile(new URL("saxpy.wgsl", import.meta.url), "utf8"));
const x = await pm.mm.mmap({ length: elements * 4, name: "x" });
const y = await pm.mm.mmap({ length: elements * 4, name: "y" });
{
  using xs = await x.lease("rw");
  using ys = await y.lease("rw");
  for (let i = 0; i < elements; i++) {
    xs.f32[i] = i % 1000;
    ys.f32[i] = 1;
  }
}

const run = () =>
  kernel.dispatch({ bind: { x, y }, params: { a }, workgroups: Math.min(1024, Math.ceil(elements / 64)) });
const first = await run();
{
  using xs = await x.lease("rw", { offset: 0, length: 4 });
  xs.f32[0] = 7;
}
const second = await run();

using ys = await y.lease("r");
let wrong = 0;
for (let i = 0; i < elements; i++) {
  const before = i === 0 ? 0 : i % 1000;
  const after = i === 0 ? 7 : i % 1000;
  wrong += ys.f32[i] === Math.fround(a * after + Math.fround(a * before + 1)) ? 0 : 1;
}

console.log(`${elements} elements on ${pm.adapter.name}`);
console.log(`first dispatch: ${first.bytesToDevice} bytes to the device; second: ${second.bytesToDevice}`);
console.log(wrong === 0 ? "OK" : `FAILED: ${wrong} elements are wrong`);
process.exitCode = wrong === 0 ? 0 : 1;
