/**
 * Plain arrays where the process is at its limits, or ends in parts: no descriptor is left, there are many mappings, the thread
 * that opened a service is ended from outside. Each program is a process of its own.
 */
import { describe, expect, test } from "vitest";
import { probeUserfaultfd } from "../src/node.ts";
import { runProgram } from "./support/built.ts";

const report = probeUserfaultfd();
if (!report.works) {
  console.warn(`tests of a process at its limits are skipped: ${report.why}`);
}

/** What programs use. `useUp()` opens all descriptors that are left; what it returns gives some of them back, or all. */
const PRELUDE = `
import assert from "node:assert/strict";
import { closeSync, openSync, readdirSync, readFileSync } from "node:fs";
import { Worker } from "node:worker_threads";
import { openShared, POISON_WORD, probeUserfaultfd } from "./src/node.ts";
const options = { mmu: "userfaultfd", device: false };
const maps = () => readFileSync("/proc/self/maps", "latin1").split("\\n").length;
const descriptors = () => readdirSync("/proc/self/fd").length;
const useUp = () => {
  const opened = [];
  try { for (;;) opened.push(openSync("/dev/null")); } catch {}
  return (count = opened.length) => opened.splice(0, count).forEach((fd) => closeSync(fd));
};`;

/** Runs a program under the shell's limits. */
const runLimited = (limits: string, program: string) => {
  const node = [
    process.execPath,
    "--import",
    "tsx",
    "--input-type=module",
    "-e",
    `${PRELUDE}${program}process.exit(7);`,
  ];
  return runProgram("sh", ["-c", `${limits} && exec "$@"`, "sh", ...node]);
};
const WELL = { status: 7, signal: null, stdout: "", stderr: "" };

describe.skipIf(!report.works)("a process at its limits", () => {
  test("with no descriptor left, memory is given back with its bytes, and a dead service's is poisoned", async () => {
    const program = `
      const pm = await openShared({ ...options });
      pm.addEventListener("error", () => undefined);
      const data = await pm.mm.mmap({ length: 1 << 20 });
      data.u32[0] = 1;
      const heap = new WebAssembly.Memory({ initial: 4, maximum: 8, shared: true });
      const words = new Uint32Array(heap.buffer);
      words[70] = 7;
      const giveBack = useUp();
      const mapped = await pm.mm.adopt(heap, { maximum: 8 * 65536 });
      assert.equal(words[70], 7);
      await mapped.munmap();
      assert.equal(words[70], 7);
      await pm.mm.adopt(heap, { maximum: 8 * 65536 });
      await pm.provoke("die");
      assert.deepEqual([data.u32[0], data.u32[5000], words[70]], [POISON_WORD, POISON_WORD, POISON_WORD]);`;
    expect(await runLimited("ulimit -n 256", program)).toEqual(WELL);
  });

  test("an opening that finds too few descriptors leaves none behind, and says what to do", async () => {
    const program = `
      await (await openShared(options)).close();
      const before = descriptors();
      const codes = [];
      for (let left = 0; codes.at(-1) !== "opened"; left++) {
        const giveBack = useUp();
        giveBack(left);
        if (left === 0) assert.match(probeUserfaultfd().why, /no descriptor is left, so close some/);
        const opening = openShared(options).then((pm) => pm.close()).then(() => "opened", ({ code }) => code);
        codes.push(await opening);
        giveBack();
        assert.equal(descriptors(), before);
      }
      assert.deepEqual([codes[0], new Set(codes)], ["ENOTSUP", new Set(["ENOTSUP", "ENOMEM", "opened"])]);
      // A further thread has to be started, which opens many files.
      await openShared(options);
      useUp()(12);
      await assert.rejects(openShared(options), /ended at once \\(EMFILE.*put that right/);`;
    expect(await runLimited("ulimit -n 256", program)).toEqual(WELL);
  });

  test("files of limited length only are a reason to use the software MMU", async () => {
    const program = `assert.match(probeUserfaultfd().why, /errno 27.*ulimit -f unlimited/);`;
    expect(await runLimited("ulimit -f 100000", program)).toEqual(WELL);
  });

  test("small mappings that go leave the memory they shared in one piece, and arrays over them see zeros", async () => {
    const program = `
      const pm = await openShared(options);
      const mappings = [];
      for (let i = 0; i < 1000; i++) mappings.push(await pm.mm.mmap({ length: 4096 }));
      for (const { u32 } of mappings) u32[1] = 7;
      const before = maps();
      for (let i = 0; i < 1000; i += 2) await mappings[i].munmap();
      assert(maps() - before < 100);
      const values = () => new Set(mappings.map(({ u32 }, i) => i % 2 * 10 + u32[1]));
      assert.deepEqual(values(), new Set([0, 17]));
      mappings[0].u32[2] = 3;
      assert.deepEqual([pm.faultErrorCount, mappings[0].u32[2]], [0, 3]);
      for (let i = 1; i < 1000; i += 2) await mappings[i].munmap();
      await pm.close();
      assert.deepEqual(values(), new Set([0, 10]));`;
    expect(await runLimited("true", program)).toEqual(WELL);
  });

  test("a dead service poisons more memory than a process may have pieces of", async () => {
    const program = `
      const pm = await openShared(options);
      pm.addEventListener("error", () => undefined);
      const mappings = [];
      for (let i = 0; i < 40; i++) mappings.push(await pm.mm.mmap({ length: 2 ** 32 }));
      for (const { u32 } of mappings) u32[0] = 1;
      await pm.provoke("die");
      assert(maps() < 10_000);
      for (const { u32 } of mappings) assert.deepEqual([u32[0], u32[2 ** 30 - 1]], [POISON_WORD, POISON_WORD]);`;
    expect(await runLimited("true", program)).toEqual(WELL);
  });

  test("an adopted memory that grows after its service was given up is zeros there, and nobody waits", async () => {
    const program = `
      const pm = await openShared({ ...options, stuckMs: 400 });
      pm.addEventListener("error", () => undefined);
      const heap = new WebAssembly.Memory({ initial: 4, maximum: 8, shared: true });
      const mapped = await pm.mm.adopt(heap, { maximum: 8 * 65536 });
      const poisoned = pm.provoke("stick");
      Atomics.load(mapped.u32, 5);
      await poisoned;
      heap.grow(2);
      const words = new Uint32Array(heap.buffer);
      assert.deepEqual([words[5], words[5 * 16384]], [POISON_WORD, 0]);`;
    expect(await runLimited("true", program)).toEqual(WELL);
  });

  test("the thread that opened a service is ended from outside: who uses the memory goes on", async () => {
    const program = `
      const owner = new Worker(\`
        const { parentPort } = require("node:worker_threads");
        import("tsx/esm/api").then((tsx) => tsx.register() && import(\${JSON.stringify(new URL("./src/node.ts", import.meta.url).href)})).then(async ({ openShared }) => {
          const pm = await openShared({ mmu: "userfaultfd", device: false });
          const data = await pm.mm.mmap({ length: 1 << 20 });
          data.u32[0] = 5;
          setTimeout(() => parentPort.postMessage(data.buffer), 200);
          setInterval(() => undefined, 1000);
        });\`, { eval: true, execArgv: [] });
      const buffer = await new Promise((resolve) => owner.once("message", resolve));
      const before = descriptors();
      await owner.terminate();
      assert(descriptors() < before - 8);
      const words = new Uint32Array(buffer);
      assert.deepEqual([words[0], words[200_000]], [5, 0]);`;
    expect(await runLimited("true", program)).toEqual(WELL);
  });
});
