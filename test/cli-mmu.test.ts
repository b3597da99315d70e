/** `run --mmu`: the same command on both MMUs. */
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { loadTrace } from "../src/cli/inspect.ts";
import { kindOf } from "../src/inspect/index.ts";
import { probeUserfaultfd } from "../src/node.ts";
import { ensureBuilt, pagemirror } from "./support/built.ts";

const report = probeUserfaultfd();
if (!report.works) {
  console.warn(`run --mmu userfaultfd is skipped: ${report.why}`);
}

const ADD = `
@group(0) @binding(0) var<storage, read> data: array<u32>;
@group(0) @binding(1) var<storage, read_write> result: array<u32>;
@compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3u) {
  if (id.x < arrayLength(&data)) { result[id.x] = data[id.x] + 1; }
}`;
const SVM = `
struct Params { data: u32, bytes: u32, sum: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3u) {
  if (id.x < params.bytes / 16384) { pm_atomic_add_u32(params.sum, pm_load_u32(params.data + id.x * 4096)); }
}`;
const FOREVER = `
@group(0) @binding(0) var<storage, read_write> result: array<u32>;
@compute @workgroup_size(1) fn main() {
  for (var i = 0u; i < 4000000000u; i++) { result[i % 4] += i * result[(i + 1) % 4] + 1; }
}`;
const BYTES = 2 ** 20;

describe("run --mmu", () => {
  let folder: string;
  const at = (name: string) => path.join(folder, name);
  const run = (args: readonly string[], options = {}) => pagemirror(["run", ...args], { cwd: folder, ...options });
  const add = (...args: readonly string[]) => run(["add.wgsl", "--map", "data=data.bin", ...args]);

  beforeAll(async () => {
    await ensureBuilt();
    folder = mkdtempSync(path.join(tmpdir(), "pagemirror-mmu-"));
    writeFileSync(at("add.wgsl"), ADD);
    writeFileSync(at("svm.wgsl"), SVM);
    writeFileSync(at("forever.wgsl"), FOREVER);
    writeFileSync(
      at("data.bin"),
      Uint32Array.from({ length: BYTES / 4 }, (_, i) => i),
    );
  }, 180_000);
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  test.skipIf(!report.works)(
    "gives the same object and the same outputs on userfaultfd, which auto takes",
    async () => {
      const objects = [];
      for (const mmu of ["software", "userfaultfd", "auto"]) {
        const { status, stdout, stderr } = await add("--map", `result=new:${BYTES}`, "--mmu", mmu, ...outputOf(mmu));
        expect([status, stderr]).toEqual([0, ""]);
        objects.push(JSON.parse(stdout));
      }
      const [software, userfaultfd, auto] = objects;
      expect([software.mmu, userfaultfd.mmu, auto.mmu]).toEqual(["software", "userfaultfd", "userfaultfd"]);
      expect(Object.keys(userfaultfd)).toEqual(Object.keys(software));
      expect(userfaultfd.outputs.result).toEqual(software.outputs.result);
      expect(userfaultfd.faults.cpu).toBeGreaterThan(0);
      const bytes = readFileSync(at("userfaultfd.bin"));
      expect(new Uint32Array(bytes.buffer, bytes.byteOffset, 3)).toEqual(Uint32Array.of(1, 2, 3));
    },
  );

  const outputOf = (mmu: string) => ["--out", `result=${mmu}.bin`, "--json"];

  test.skipIf(!report.works)(
    "a file is written back, and its trace and maps are those of the other thread",
    async () => {
      writeFileSync(at("rw.bin"), new Uint8Array(BYTES));
      const args = ["--map", "result=rw.bin:rw", "--mmu", "userfaultfd", "--maps", "--trace", "trace.json"];
      const { status, stdout, stderr } = await add(...args);
      expect([status, stderr]).toEqual([0, ""]);
      expect(readFileSync(at("rw.bin")).readUInt32LE(4000)).toBe(1001);
      expect(stdout).toMatch(/ r--s 00000000 data\nSize: +1024 kB\n/);
      const { columns, count } = await loadTrace(at("trace.json"));
      const kinds = new Set(columns.kind.subarray(0, count));
      const names = ["mm.map", "gpu.upload", "gpu.dispatch"] as const;
      expect(names.map((name) => kinds.has(kindOf(name)))).toEqual([true, true, true]);
    },
  );

  test.skipIf(!report.works)("kernels that follow addresses run too, on less memory than the data has", async () => {
    const { status, stdout, stderr } = await run([
      ...["svm.wgsl", "--map", "data=data.bin", "--map", "sum=new:4", "--set", "data=@data", "--set", "bytes=#data"],
      ...["--set", "sum=@sum", "--workgroups", "1", "--device-memory", "512K", "--mmu", "userfaultfd"],
      ...["--out", "sum=sum.bin", "--json"],
    ]);
    expect([status, stderr]).toEqual([0, ""]);
    expect(JSON.parse(stdout)).toMatchObject({ mode: "svm", mmu: "userfaultfd" });
    expect(readFileSync(at("sum.bin")).readUInt32LE(0)).toBe((4096 * 63 * 64) / 2);
  });

  test.skipIf(!report.works)("Ctrl-C ends it at once and leaves no output", async () => {
    const before = readdirSync(folder);
    const args = ["forever.wgsl", "--map", "result=new:64", "--workgroups", "1", "--mmu", "userfaultfd", "--stats"];
    const { status, stderr } = await run([...args, "--out", "result=never.bin"], {
      started: (child: import("node:child_process").ChildProcess) => {
        setTimeout(() => child.kill("SIGINT"), 2500);
      },
    });
    expect([status, stderr]).toEqual([130, expect.stringMatching(/^pagemirror: run: EINTR: [^\n]+\n$/)]);
    expect(readdirSync(folder)).toEqual(before);
  });

  test("where it is turned off, it is an error with the remedy, and auto goes on with software and says so", async () => {
    const env = { PAGEMIRROR_MMU: "software" };
    const args = ["add.wgsl", "--map", "data=data.bin", "--map", `result=new:${BYTES}`, "--json"];
    const asked = await run([...args, "--mmu", "userfaultfd"], { env });
    expect([asked.status, asked.stderr]).toEqual([
      1,
      expect.stringMatching(/^pagemirror: open: ENOTSUP: turned off by PAGEMIRROR_MMU=software: unset it\n$/),
    ]);
    const auto = await run([...args, "--mmu", "auto"], { env });
    expect([auto.status, JSON.parse(auto.stdout).mmu]).toEqual([0, "software"]);
    expect(auto.stderr).toMatch(/^pagemirror: note: --mmu auto uses software: turned off [^\n]+\n$/);
  });
});
