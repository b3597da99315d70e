/** Ends of services: death and closing under threads that use the memory, ends of processes, and many openings. */
import { readdirSync, readFileSync } from "node:fs";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { describe, expect, test } from "vitest";
import { type KernelError, PAGE_SIZE } from "../src/base/index.ts";
import { openShared, POISON_WORD, probeUserfaultfd, type SharedMapping } from "../src/node.ts";
import { PlainThread, WORDS } from "../src/testing/plain-thread.ts";
import { runProgram } from "./support/built.ts";

/** Runs a program's text, which may import this project's source. */
const runSource = (program: string) =>
  runProgram(process.execPath, ["--import", "tsx", "--input-type=module", "-e", program]);

const report = probeUserfaultfd();
if (!report.works) {
  console.warn(`tests of ends of services are skipped: ${report.why}`);
}
const THREADS = 4;

const viewOf = ({ buffer, byteOffset, length }: SharedMapping) => ({ buffer, byteOffset, byteLength: length });

/** Adds 1 to word 8 of each page, and leaves the rest alone. */
const BUMP = /* wgsl */ `
@group(0) @binding(0) var<storage, read_write> data: array<u32>;
@compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3u) {
  if (id.x * 1024u + 8u < arrayLength(&data)) { data[id.x * 1024u + 8u] += 1u; }
}`;

const mapsOf = () => readFileSync("/proc/self/maps", "latin1").split("\n").length;
const descriptorsOf = () => readdirSync("/proc/self/fd").length;
const threadsOf = () => readdirSync("/proc/self/task").length;

describe.skipIf(!report.works)("ends of services", () => {
  test("the service dies under four threads: all go on, and see poison or what was there", async () => {
    const pm = await openShared({ mmu: "userfaultfd", device: false });
    const data = await pm.mm.mmap({ length: 4096 * PAGE_SIZE, name: "data" });
    const threads = Array.from({ length: THREADS }, () => new PlainThread());
    const body = `${WORDS} const log = new Int32Array(args.log); let odd = 0;
      for (let n = 0; Atomics.load(log, 0) === 0 || n < 4096; n++) {
        const word = Atomics.load(u32, (n * 61 % 4096) * 1024);
        if (word !== 0 && word !== ${POISON_WORD}) odd++;
        if (word === ${POISON_WORD} && Atomics.load(log, 0) === 0) odd++;
      }
      // The error is reported first, then the pattern comes: until then a page is what it was.
      const until = Date.now() + 20_000;
      while (Atomics.load(u32, 77 * 1024 + 3) !== ${POISON_WORD} && Date.now() < until);
      return [odd, Atomics.load(u32, 77 * 1024 + 3)];`;
    const done = Promise.all(threads.map((thread) => thread.run(body, { ...viewOf(data), log: pm.faultLog.buffer })));
    await new Promise((resolve) => setTimeout(resolve, 100));
    await pm.provoke("die");
    expect(await done).toEqual(threads.map(() => [0, POISON_WORD]));
    for (const thread of threads) {
      await thread[Symbol.asyncDispose]();
    }
  });

  test("closing during faults releases everybody", async () => {
    for (let i = 0; i < 3; i++) {
      const pm = await openShared({ mmu: "userfaultfd", device: false, faultAround: 1 });
      const data = await pm.mm.mmap({ length: 20_000 * PAGE_SIZE });
      await using thread = new PlainThread();
      const sum = thread.run(
        `${WORDS} let sum = 0; for (let i = 0; i < u32.length; i += 1024) sum += Atomics.load(u32, i); return sum;`,
        viewOf(data),
      );
      await pm.close();
      expect(await sum).toBe(0);
    }
  });

  test("opening and closing leaks no descriptor, no thread, and no mapping", async () => {
    const cycle = async () => {
      const pm = await openShared({ mmu: "userfaultfd", device: false });
      const data = await pm.mm.mmap({ length: 5 * 2 ** 20 });
      data.u32[0] = 1;
      await pm.close();
    };
    await cycle();
    await cycle();
    const before = [descriptorsOf(), threadsOf()];
    const maps = mapsOf();
    const cycles = Number(process.env.PAGEMIRROR_STRESS_CYCLES ?? 1000);
    for (let i = 0; i < cycles; i++) {
      await cycle();
    }
    setFlagsFromString("--expose-gc");
    (runInNewContext("gc") as () => void)();
    expect([descriptorsOf(), threadsOf()]).toEqual(before);
    // Each cycle maps six; the engine gives them back some time.
    expect(mapsOf() - maps).toBeLessThan(600);
  }, 600_000);

  test("a process ends with its own status although the service hangs and a thread waits for it", async () => {
    const program = `
      import { Worker } from "node:worker_threads";
      import { openShared } from "./src/node.ts";
      const pm = await openShared({ mmu: "userfaultfd", device: false, faultAround: 1, stuckMs: Infinity });
      const data = await pm.mm.mmap({ length: 1 << 20 });
      void pm.provoke("hang");
      const words = new Int32Array(new SharedArrayBuffer(4));
      new Worker(\`
        const { workerData: { buffer, byteOffset, words } } = require("node:worker_threads");
        Atomics.store(words, 0, 1);
        Atomics.notify(words, 0);
        Atomics.load(new Uint32Array(buffer, byteOffset, 1), 0);\`,
        { eval: true, execArgv: [], workerData: { buffer: data.buffer, byteOffset: data.byteOffset, words } });
      await Atomics.waitAsync(words, 0, 0).value;
      process.exit(3);`;
    const { status, signal, stderr } = await runSource(program);
    expect([status, signal, stderr]).toEqual([3, null, ""]);
  });

  test("a process ends with its own status although a service that was given up hangs in a fault", async () => {
    const program = `
      import { Worker } from "node:worker_threads";
      import { openShared } from "./src/node.ts";
      const pm = await openShared({ mmu: "userfaultfd", device: false, stuckMs: 400 });
      pm.addEventListener("error", () => undefined);
      const data = await pm.mm.mmap({ length: 1 << 20 });
      const poisoned = pm.provoke("stick");
      new Worker(
        "const { workerData } = require('node:worker_threads'); Atomics.load(new Uint32Array(workerData), 0);",
        { eval: true, execArgv: [], workerData: data.buffer });
      await poisoned;
      await data.read();`;
    const { status, signal, stderr } = await runSource(program);
    expect([status, signal]).toEqual([1, null]);
    expect(stderr).toContain("read: ESRCH: the service thread failed (it did not answer for too long)");
  });

  test("a service dies while its GPU works: the process goes on", async () => {
    const pm = await openShared({ mmu: "userfaultfd" });
    const data = await pm.mm.mmap({ length: 4 * 2 ** 20, name: "data" });
    const bump = await pm.device.kernel(BUMP);
    const heard: string[] = [];
    pm.addEventListener("error", ({ error }) => heard.push(error.code));
    let failed = "";
    const working = (async () => {
      while (failed === "") {
        await bump.dispatch({ bind: { data }, workgroups: 1 }).catch(({ code }: KernelError) => {
          failed = code;
        });
      }
    })();
    await new Promise((resolve) => setTimeout(resolve, 50));
    await pm.provoke("die");
    await working;
    expect(["ESRCH", "ENODEV"]).toContain(failed);
    expect([data.u32[77], heard]).toEqual([POISON_WORD, ["ESRCH"]]);
  });

  test("a thread that opened a service ends while the GPU works, and nobody else does", async () => {
    const program = `
      import { Worker } from "node:worker_threads";
      const worker = new Worker(\`
        const { workerData } = require("node:worker_threads");
        import("tsx/esm/api").then((tsx) => tsx.register() && import(${JSON.stringify(new URL("../src/node.ts", import.meta.url).href)})).then(async ({ open }) => {
          const pm = await open({ mmu: "userfaultfd" });
          const data = await pm.mm.mmap({ length: 4 << 20, name: "data" });
          const kernel = await pm.device.kernel(workerData);
          for (let i = 0; i < 1000; i++) kernel.dispatch({ bind: { data }, workgroups: 1 }).catch(() => undefined);
          setTimeout(() => { throw new Error("boom"); }, 20);
        });\`, { eval: true, execArgv: [], workerData: ${JSON.stringify(BUMP)} });
      worker.on("error", ({ message }) => console.log(message));
      worker.on("exit", () => process.exit(3));`;
    const { status, signal, stdout } = await runProgram(process.execPath, ["--input-type=module", "-e", program]);
    expect([status, signal, stdout]).toEqual([3, null, "boom\n"]);
  });
});
