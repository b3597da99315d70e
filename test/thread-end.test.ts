/** Workers that opened a device of their own and end in the middle of its work. The program is a process of its own. */
import { expect, test } from "vitest";
import { runProgram } from "./support/built.ts";

const BUSY = /* wgsl */ `
@group(0) @binding(0) var<storage, read_write> data: array<u32>;
@compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3u) {
  for (var i = 0u; i < 1000u; i++) { data[id.x * 1024u] += 1u; }
}`;

const WORKER = `
const { workerData: { module, kernel, options, end } } = require("node:worker_threads");
const setImmediateBefore = setImmediate;
import("tsx/esm/api").then((tsx) => tsx.register() && import(module)).then(async ({ open }) => {
  const pm = await open(options);
  const data = await pm.mm.mmap({ length: 1 << 20, name: "data" });
  const busy = await pm.device.kernel(kernel);
  if (end === "close") {
    await pm.close();
    process.exit(setImmediate === setImmediateBefore ? 3 : 4);
  }
  for (let i = 0; i < 200; i++) busy.dispatch({ bind: { data }, workgroups: 4 }).catch(() => undefined);
  setTimeout(() => { if (end === "throw") throw new Error("boom"); process.exit(3); }, 20);
});`;

test("a worker that opened a device ends by itself while the GPU works, and nobody else does", async () => {
  const program = `
    import { Worker } from "node:worker_threads";
    const module = new URL("./src/node.ts", import.meta.url).href;
    const ended = [];
    for (const [end, options] of [["exit", {}], ["throw", { mmu: "software" }], ["close", {}]]) {
      const workerData = { module, kernel: ${JSON.stringify(BUSY)}, options, end };
      const worker = new Worker(${JSON.stringify(WORKER)}, { eval: true, execArgv: [], workerData });
      worker.on("error", ({ message }) => ended.push(message));
      ended.push(await new Promise((resolve) => worker.once("exit", resolve)));
    }
    console.log(ended.join());`;
  const { status, signal, stdout } = await runProgram(process.execPath, ["--input-type=module", "-e", program]);
  expect([status, signal, stdout]).toEqual([0, null, "3,boom,1,3\n"]);
});
