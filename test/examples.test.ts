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

test("the demo is right and says so with figures", async () => {
  const { status, stdout, stderr } = await runProgram(process.execPath, ["dist/cli/demo.js"]);
  expect([status, stderr]).toEqual([0, ""]);
  expect(stdout).toMatch(/histogram +\d+ ms, [\d.]+ GB\/s, [\d.]+ MiB sent/);
  expect(stdout).not.toContain("FAILED");
  expect(stdout.trimEnd().split("\n").at(-1)).toBe("OK");
}, 120_000);
