/** Each example runs as its first lines say, and is right. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import path from "node:path";
import { PNG } from "pngjs";
import { afterEach, beforeAll, beforeEach, expect, test } from "vitest";
import { ensureBuilt, pagemirror, ROOT, runProgram } from "./support/built.ts";

const tsx = createRequire(import.meta.url).resolve("tsx/cli");
const example = (name: string) => path.join(ROOT, "examples", name);
const runExample = (name: string, ...args: string[]) =>
  runProgram(process.execPath, [tsx, example(name), ...args], { cwd: folder });

let folder: string;
const at = (name: string) => path.join(folder, name);

beforeAll(ensureBuilt, 180_000);

beforeEach(() => {
  folder = mkdtempSync(path.join(tmpdir(), "pagemirror-examples-"));
});

afterEach(() => {
  rmSync(folder, { recursive: true, force: true });
});

test("saxpy.ts computes what the CPU computes and sends one page the second time", async () => {
  const { status, stdout, stderr } = await runExample("saxpy.ts", "100000");
  expect([status, stderr]).toEqual([0, ""]);
  expect(stdout).toMatch(/^OK$/m);
  const [, first, second] = /first dispatch: (\d+) bytes .* second: (\d+)/.exec(stdout) ?? [];
  expect(Number(first)).toBeGreaterThan(100_000 * 4);
  expect(Number(second)).toBeGreaterThan(0);
  expect(Number(second)).toBeLessThanOrEqual(16_384);
});

test.each(["", "software"])("wasm-heap.ts: a kernel walks a heap that grows (PAGEMIRROR_MMU=%s)", async (mmu) => {
  const { status, stdout, stderr } = await runProgram(process.execPath, [tsx, example("wasm-heap.ts"), "5000"], {
    cwd: folder,
    env: { PAGEMIRROR_MMU: mmu },
  });
  expect([status, stdout], stderr).toEqual([0, expect.stringMatching(/^OK$/m)]);
});

test("blur.ts blurs a PNG file as the CPU does", async () => {
  const png = new PNG({ width: 33, height: 17 });
  for (let i = 0; i < png.data.length; i++) {
    png.data[i] = (i * 7919) % 256;
  }
  writeFileSync(at("in.png"), PNG.sync.write(png));
  const { status, stdout, stderr } = await runExample("blur.ts", at("in.png"), at("out.png"), "2");
  expect([status, stderr]).toEqual([0, ""]);
  expect(stdout).toMatch(/^OK/m);
  const blurred = PNG.sync.read(readFileSync(at("out.png")));
  expect([blurred.width, blurred.height]).toEqual([33, 17]);
  expect(blurred.data.equals(png.data)).toBe(false);
});

test.each([
  ["saxpy.ts", ["many"], "saxpy.ts: mmap: EINVAL: a length of NaN bytes"],
  ["blur.ts", ["none.png", "out.png"], "blur.ts: ENOENT: no such file"],
  ["grep.ts", ["none"], 'grep.ts: "none" is not a size'],
  ["grep.ts", ["64K", "1"], "grep.ts: "],
])("%s %j: what is wrong is one line", async (name, args, line) => {
  const { status, stderr } = await runExample(name, ...args);
  expect(stderr.trimEnd().split("\n")).toEqual([expect.stringContaining(line)]);
  expect(status).toBe(1);
});

test("histogram.wgsl counts the bytes of a file of odd length", async () => {
  const bytes = Uint8Array.from({ length: 100_003 }, (_, i) => (i * i) % 251);
  writeFileSync(at("data.bin"), bytes);
  const args = [
    "--map",
    "data=data.bin",
    "--map",
    "counts=new:1K",
    "--set",
    `bytes=${bytes.length}`,
    "--workgroups",
    "7",
  ];
  const ended = await pagemirror(["run", example("histogram.wgsl"), ...args, "--out", "counts=counts.bin"], {
    cwd: folder,
  });
  expect([ended.status, ended.stderr]).toEqual([0, ""]);
  const written = readFileSync(at("counts.bin"));
  const expected = new Uint32Array(256);
  for (const byte of bytes) {
    expected[byte] = (expected[byte] ?? 0) + 1;
  }
  expect([...new Uint32Array(written.buffer, written.byteOffset, 256)]).toEqual([...expected]);
});

test("search.wgsl finds every match, overlapping ones and those at both ends", async () => {
  const text = `abaabaXYZ${"-".repeat(5000)}aba.bab${"ab".repeat(20)}\n..aba`;
  const needle = "aba";
  writeFileSync(at("data.bin"), text);
  writeFileSync(at("needle.bin"), needle);
  const { status, stderr } = await pagemirror(
    [
      ...[
        "run",
        example("search.wgsl"),
        "--map",
        "data=data.bin",
        "--map",
        "needle=needle.bin",
        "--map",
        "found=new:4K",
      ],
      ...["--set", `bytes=${text.length}`, "--set", `needle_bytes=${needle.length}`, "--workgroups", "3"],
      ...["--out", "found=found.bin"],
    ],
    { cwd: folder },
  );
  expect([status, stderr]).toEqual([0, ""]);
  const written = readFileSync(at("found.bin"));
  const [count = 0, ...offsets] = new Uint32Array(written.buffer, written.byteOffset, written.length / 4);
  const expected: number[] = [];
  for (let i = text.indexOf(needle); i >= 0; i = text.indexOf(needle, i + 1)) {
    expected.push(i);
  }
  expect(count).toBe(expected.length);
  expect(offsets.slice(0, count).sort((a, b) => a - b)).toEqual(expected);
});

/** What an svm example says that it moved, in multiples of what it needed. */
const timesNeeded = (stdout: string) => Number(/^moved .* MiB, ([\d.]+) times the needed/m.exec(stdout)?.[1]);

test.each([
  ["knn", ["1M", "256K"], /^query 3: \d+ \(\d+\), /m],
  ["btree", ["2M", "256K"], /lookups, [1-9]\d* found, in a tree of 3 levels/],
  ["grep", ["1M", "256K"], /^\d+: .*page\s+fault/m],
  ["bfs", ["512K", "256K"], /^nodes on each level: 1, \d+, /m],
])("%s.ts answers as the CPU does, over data larger than the device's memory", async (name, sizes, answer) => {
  const { status, stdout, stderr } = await runExample(`${name}.ts`, ...sizes);
  expect([status, stderr]).toEqual([0, ""]);
  expect(stdout).toMatch(answer);
  expect(stdout).toMatch(/^\d+ rounds, [1-9]\d* pages evicted, /m);
  expect(timesNeeded(stdout)).toBeGreaterThanOrEqual(1);
  expect(stdout.trimEnd().split("\n").at(-1)).toBe("OK: equal to the CPU's result");
});

test("an svm example keeps its file for another time and uses it then", async () => {
  const first = await runExample("btree.ts", "1M", "256K", at("tree.bin"));
  const bytes = readFileSync(at("tree.bin"));
  const second = await runExample("btree.ts", "1M", "256K", at("tree.bin"));
  expect([first.status, second.status]).toEqual([0, 0]);
  expect(readFileSync(at("tree.bin"))).toEqual(bytes);
  expect(second.stdout.split("\n")[0]).toBe(first.stdout.split("\n")[0]);
});

test("grep.wgsl counts matches and lines through the command, across pieces and at both ends", async () => {
  const text = `fault\n${"x".repeat(246)}faultfault ${"line\n".repeat(8000)}.fault`;
  writeFileSync(at("text.txt"), text);
  writeFileSync(at("needle.bin"), "fault");
  const groups = Math.ceil(text.length / 16_384);
  const { status, stderr } = await pagemirror(
    [
      ...["run", example("grep.wgsl"), "--map", "text=text.txt", "--map", "needle=needle.bin", "--map", "total=new:4"],
      ...["--map", `pieces=new:${groups * 256}`, "--set", "text=@text", "--set", "bytes=#text"],
      ...["--set", "needle=@needle", "--set", "needle_bytes=#needle", "--set", "total=@total"],
      ...["--set", "pieces=@pieces", "--workgroups", String(groups)],
      ...["--out", "total=total.bin", "--out", "pieces=pieces.bin"],
    ],
    { cwd: folder },
  );
  expect([status, stderr]).toEqual([0, ""]);
  expect(readFileSync(at("total.bin")).readUInt32LE(0)).toBe(4);
  const written = readFileSync(at("pieces.bin"));
  const pieces = [...new Uint32Array(written.buffer, written.byteOffset, written.length / 4)];
  expect(pieces.reduce((sum, piece) => sum + (piece & 0xffff), 0)).toBe(text.split("\n").length - 1);
  // The second match begins in the first piece and ends in the second one.
  expect(pieces.slice(0, 2).map((piece) => piece >>> 16)).toEqual([2, 1]);
});

test("btree.wgsl looks keys up through the command", async () => {
  const made = await runExample("btree.ts", "1M", "256K", at("tree.bin"));
  expect(made.status).toBe(0);
  const tree = readFileSync(at("tree.bin"));
  const words = new Uint32Array(tree.buffer, tree.byteOffset, tree.length / 4);
  // The node after the header is the first leaf.
  const keys = Uint32Array.of(words[1024 + 2], words[1024 + 2] + 1, words[1024 + 2 + 399]);
  writeFileSync(at("keys.bin"), keys);
  const { status, stderr } = await pagemirror(
    [
      ...["run", example("btree.wgsl"), "--map", "tree=tree.bin", "--map", "keys=keys.bin", "--map", "values=new:12"],
      ...["--set", "tree=@tree", "--set", "keys=@keys", "--set", "bytes=#keys", "--set", "values=@values"],
      ...["--workgroups", "1", "--out", "values=values.bin"],
    ],
    { cwd: folder },
  );
  expect([status, stderr]).toEqual([0, ""]);
  const written = readFileSync(at("values.bin"));
  const expected = [words[1024 + 512], 0xffff_ffff, words[1024 + 512 + 399]];
  expect([...new Uint32Array(written.buffer, written.byteOffset, 3)]).toEqual(expected);
});

test("the demo is right and says so with figures", async () => {
  const { status, stdout, stderr } = await runProgram(process.execPath, ["dist/cli/demo.js"]);
  expect([status, stderr]).toEqual([0, ""]);
  expect(stdout).toMatch(/histogram +\d+ ms, [\d.]+ GB\/s, [\d.]+ MiB sent/);
  expect(stdout).not.toContain("FAILED");
  expect(stdout.trimEnd().split("\n").at(-1)).toBe("OK");
}, 120_000);
