/** The built command from end to end: good runs, bad input, signals, memory. */
import type { ChildProcess } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import {
  closeSync,
  copyFileSync,
  existsSync,
  ftruncateSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { COMMAND, ensureBuilt, pagemirror, ROOT, runProgram } from "./support/built.ts";

const sha256 = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex");
const NOBODY = 65_534;
const isRoot = process.getuid?.() === 0;

/** Adds 1 to each word of `values`; `seen` gets what the first words of `data` are. */
const ADD = `
@group(0) @binding(0) var<storage, read_write> values: array<u32>;
@compute @workgroup_size(64) fn add(@builtin(global_invocation_id) id: vec3u) {
  if (id.x < arrayLength(&values)) { values[id.x] += 1; }
}`;
const COPY = `
struct Params { scale: u32, shift: vec2u }
@group(0) @binding(0) var<storage, read> data: array<u32>;
@group(0) @binding(1) var<storage, read_write> result: array<u32>;
@group(0) @binding(2) var<uniform> params: Params;
@compute @workgroup_size(64) fn copy(@builtin(global_invocation_id) id: vec3u) {
  if (id.x < min(arrayLength(&data), arrayLength(&result))) {
    result[id.x] = data[id.x] * params.scale + params.shift.x + params.shift.y;
  }
}`;
const FOREVER = `
@group(0) @binding(0) var<storage, read_write> values: array<u32>;
@compute @workgroup_size(1) fn forever() {
  for (var i = 0u; i < 4000000000u; i++) { values[i % 4] += i * values[(i + 1) % 4] + 1; }
}`;
const FIXED = (words: number) => `
@group(0) @binding(0) var<storage, read> data: array<u32, ${words}>;
@group(0) @binding(1) var<storage, read_write> sum: array<u32, 4>;
@compute @workgroup_size(1) fn fixed() { sum[0] = data[0] + data[${words - 1}]; }`;

/** What `--json` prints for an error line. */
function errorObject(line: string) {
  const [, op, code, why] = /^pagemirror: (.+?): ([A-Z]+): (.*)\n$/.exec(line) ?? [];
  return { ok: false, error: { op, code, why } };
}

let folder: string;
const at = (name: string) => path.join(folder, name);
const run = (args: readonly string[], options = {}) => pagemirror(["run", ...args], { cwd: folder, ...options });

beforeAll(ensureBuilt, 180_000);

beforeEach(() => {
  folder = mkdtempSync(path.join(tmpdir(), "pagemirror-cli-"));
  writeFileSync(at("add.wgsl"), ADD);
  writeFileSync(at("copy.wgsl"), COPY);
  writeFileSync(at("forever.wgsl"), FOREVER);
  writeFileSync(
    at("data.bin"),
    Uint32Array.from({ length: 100 }, (_, i) => i),
  );
});

afterEach(() => {
  rmSync(folder, { recursive: true, force: true });
});

describe("pagemirror", () => {
  test("--help, --version and the help of each command exit 0", async () => {
    for (const args of [["--help"], ["--version"], ["run", "--help"], ["info", "--help"], ["help", "run"]]) {
      const { status, stdout, stderr } = await pagemirror(args);
      expect([status, stderr]).toEqual([0, ""]);
      expect(stdout).not.toBe("");
    }
  });

  test("asking for help loads no GPU library", async () => {
    const librariesOf = async (args: readonly string[]) => {
      const meter = path.join(ROOT, "test/support/shared-objects.mjs");
      await runProgram(process.execPath, ["--import", meter, COMMAND, ...args], {
        env: { LIBRARIES_FILE: at("list") },
      });
      return readFileSync(at("list"), "utf8");
    };
    expect(await librariesOf(["run", "--help"])).not.toContain("dawn");
    expect(await librariesOf(["info"])).toContain("dawn");
  });

  test("info says which adapter was chosen and why", async () => {
    const { status, stdout, stderr } = await pagemirror(["info", "--json"]);
    const report = JSON.parse(stdout);
    expect([status, stderr]).toEqual([0, ""]);
    expect(report).toMatchObject({ ok: true, mmu: [{ name: "software", works: true }, { name: "userfaultfd" }] });
    expect(report.adapter.why).not.toBe("");
    const text = await pagemirror(["info"]);
    expect(text.status).toBe(0);
    expect(text.stdout).toContain(report.adapter.name);
    expect(text.stdout).toContain(report.cacheFolder);
  });

  test("an output that is cut off by its reader is no failure", async () => {
    const { status, stderr } = await runProgram("bash", ["-c", `set -o pipefail; node ${COMMAND} info | head -c 1`]);
    expect([status, stderr]).toEqual([0, ""]);
  });
});

describe("run", () => {
  test("--json prints the object of the contract and --out a file with that checksum", async () => {
    const { status, stdout, stderr } = await run([
      "copy.wgsl",
      ...["--map", "data=data.bin", "--map", "result=new:400", "--set", "scale=3", "--set", "shift=1,1"],
      ...["--out", "result=result.bin", "--json"],
    ]);
    expect([status, stderr]).toEqual([0, ""]);
    const expected = Uint32Array.from({ length: 100 }, (_, i) => 3 * i + 2);
    const written = readFileSync(at("result.bin"));
    expect(new Uint32Array(written.buffer, written.byteOffset, 100)).toEqual(expected);
    expect(JSON.parse(stdout)).toEqual({
      ok: true,
      adapter: expect.any(String),
      mode: "bind",
      mmu: "software",
      wallMs: expect.any(Number),
      rounds: expect.any(Number),
      faults: { device: expect.any(Number), cpu: expect.any(Number) },
      bytes: { toDevice: expect.any(Number), toHost: expect.any(Number), evicted: expect.any(Number) },
      pages: expect.any(Object),
      outputs: { result: { bytes: 400, sha256: sha256(written) } },
    });
  });

  test("--stats prints figures for people", async () => {
    const args = ["add.wgsl", "--map", "values=data.bin:cow", "--out", "values=out.bin", "--stats"];
    const { status, stdout, stderr } = await run(args);
    expect([status, stderr]).toEqual([0, ""]);
    expect(stdout).toMatch(/^adapter +\S/m);
    expect(stdout).toContain(sha256(readFileSync(at("out.bin"))));
  });

  test("without an output it says how to get one", async () => {
    const { status, stdout, stderr } = await run(["add.wgsl", "--map", "values=new:64"]);
    expect([status, stdout]).toEqual([0, ""]);
    expect(stderr).toMatch(/^pagemirror: note: .*--out NAME=PATH.*\n$/);
  });

  test(":rw writes the file back when the run succeeds", async () => {
    const { status, stderr } = await run(["add.wgsl", "--map", "values=data.bin:rw"]);
    expect([status, stderr]).toEqual([0, ""]);
    const bytes = readFileSync(at("data.bin"));
    expect([...new Uint32Array(bytes.buffer, bytes.byteOffset, 100)]).toEqual(
      Array.from({ length: 100 }, (_, i) => i + 1),
    );
  });

  test(":rw leaves the file untouched when the run fails", async () => {
    const before = readFileSync(at("data.bin"));
    const { status, stderr } = await run(["add.wgsl", "--map", "values=data.bin:rw", "--workgroups", "70000"]);
    expect(status).toBe(1);
    expect(stderr).toContain("65535");
    expect(readFileSync(at("data.bin"))).toEqual(before);
    expect(readdirSync(folder).filter((name) => name.startsWith("."))).toEqual([]);
  });

  test(":cow leaves the file untouched", async () => {
    const before = readFileSync(at("data.bin"));
    const { status } = await run(["add.wgsl", "--map", "values=data.bin:cow", "--out", "values=out.bin"]);
    expect(status).toBe(0);
    expect(readFileSync(at("data.bin"))).toEqual(before);
    expect(readFileSync(at("out.bin"))).not.toEqual(before);
  });

  test.each([1, 3, 15, 16, 17, 4095, 4096, 4097, 20_001])(
    "a file of %i bytes is seen with zeros behind it",
    async (length) => {
      const bytes = randomBytes(length);
      writeFileSync(at("odd.bin"), bytes);
      const visible = Math.ceil(length / 16) * 16;
      const { status, stderr } = await run([
        "copy.wgsl",
        ...["--map", "data=odd.bin", "--map", `result=new:${visible + 16}`, "--set", "scale=1", "--set", "shift=0,0"],
        ...["--out", "result=seen.bin", "--out", "data=same.bin"],
      ]);
      expect([status, stderr]).toEqual([0, ""]);
      expect(readFileSync(at("same.bin"))).toEqual(bytes);
      const seen = readFileSync(at("seen.bin"));
      expect(seen.length).toBe(visible + 16);
      expect(seen.subarray(0, length)).toEqual(bytes);
      expect(seen.subarray(length).every((byte) => byte === 0)).toBe(true);
    },
  );

  test("finds the entry point by itself, and by --entry when there are several", async () => {
    writeFileSync(at("two.wgsl"), `${ADD}\n@compute @workgroup_size(1) fn first_only() { values[0] = 77; }`);
    const several = await run(["two.wgsl", "--map", "values=new:16"]);
    expect(several.status).toBe(1);
    expect(several.stderr).toMatch(/add, first_only/);
    const args = ["two.wgsl", "--entry", "first_only", "--map", "values=new:16", "--out", "values=out.bin"];
    const named = await run(args);
    expect([named.status, named.stderr]).toEqual([0, ""]);
    expect(readFileSync(at("out.bin")).readUInt32LE(0)).toBe(77);
  });

  test("binds a fixed-size array to the part of the file that it covers", async () => {
    writeFileSync(at("fixed.wgsl"), FIXED(4));
    const args = ["fixed.wgsl", "--map", "data=data.bin", "--map", "sum=new:16", "--out", "sum=out.bin"];
    const { status, stderr } = await run(args);
    expect([status, stderr]).toEqual([0, ""]);
    expect(readFileSync(at("out.bin")).readUInt32LE(0)).toBe(3);
  });

  test("an output of a partly bound file has all of it", async () => {
    writeFileSync(at("part.wgsl"), ADD.replace("array<u32>", "array<u32, 4>").replace("arrayLength(&values)", "4"));
    const { status, stderr } = await run(["part.wgsl", "--map", "values=data.bin:rw"]);
    expect([status, stderr]).toEqual([0, ""]);
    const bytes = readFileSync(at("data.bin"));
    const expected = Array.from({ length: 100 }, (_, i) => (i < 4 ? i + 1 : i));
    expect([...new Uint32Array(bytes.buffer, bytes.byteOffset, 100)]).toEqual(expected);
  });
});

describe("bad input", () => {
  const good = ["--map", "values=data.bin:cow"];
  const cases: readonly [name: string, args: readonly string[], status: number, line: RegExp][] = [
    ["a kernel that is not there", ["gone.wgsl"], 1, /kernel: ENOENT: gone\.wgsl: .*check the path/],
    ["a folder as kernel", [".", ...good], 1, /kernel: EISDIR: \.: .*name a file/],
    ["a binary file as kernel", ["binary.wgsl", ...good], 1, /kernel: EINVAL: binary\.wgsl is not UTF-8.*WGSL source/],
    ["a file that is not there", ["add.wgsl", "--map", "values=gone.bin"], 1, /map values: ENOENT: gone\.bin/],
    ["a folder as file", ["add.wgsl", "--map", "values=."], 1, /map values: EISDIR: \.: .*name a file/],
    [
      "an empty file",
      ["add.wgsl", "--map", "values=empty.bin"],
      1,
      /map values: EINVAL: empty\.bin: .*at least 1 byte/,
    ],
    [
      "a mapping of size 0",
      ["add.wgsl", "--map", "values=new:0"],
      2,
      /usage: EINVAL: --map values=new:0: .*at least 1/,
    ],
    [
      "more zeros than there are addresses",
      ["add.wgsl", "--map", "values=new:900T", "--workgroups", "1"],
      1,
      /map values: ENOMEM: no free range/,
    ],
    ["one name twice", ["add.wgsl", ...good, ...good], 2, /usage: EINVAL: --map names values twice/],
    [
      "a name not in the kernel",
      ["add.wgsl", ...good, "--map", "other=new:4"],
      1,
      /map other: EINVAL: .*"other".*values/,
    ],
    ["a variable without a mapping", ["add.wgsl"], 1, /run: EINVAL: .*values.*add --map values=/],
    ["a write to a file mapped :r", ["add.wgsl", "--map", "values=data.bin"], 1, /map values: EACCES: .*:cow.*:rw/],
    ["a kernel without entry point", ["none.wgsl"], 1, /EINVAL: .*@compute/],
    ["an entry point of another name", ["add.wgsl", ...good, "--entry", "sub"], 1, /EINVAL: .*"sub".*add/],
    ["a WGSL error", ["wrong.wgsl", ...good], 1, /EINVAL: .*3:\d+/],
    ["0 workgroups", ["add.wgsl", ...good, "--workgroups", "0"], 2, /usage: EINVAL: --workgroups "0"/],
    [
      "too many workgroups",
      ["add.wgsl", ...good, "--workgroups", "1,65536"],
      1,
      /run: EINVAL: --workgroups 1,65536.*: .*65535/,
    ],
    [
      "an output in no folder",
      ["add.wgsl", ...good, "--out", "values=gone/out.bin"],
      1,
      /out values: ENOENT: gone\/out\.bin/,
    ],
    ["a folder as output", ["add.wgsl", ...good, "--out", "values=folder"], 1, /out values: EISDIR: folder/],
    [
      "a full disk",
      ["add.wgsl", ...good, "--out", "values=/dev/full"],
      1,
      /out values: ENOSPC: \/dev\/full: .*free some space/,
    ],
    ["an output of no mapping", ["add.wgsl", ...good, "--out", "x=out.bin"], 2, /usage: EINVAL: --out names x/],
    [
      "an output over its input",
      ["add.wgsl", ...good, "--out", "values=./data.bin"],
      1,
      /out values: EINVAL: .*mapped as values/,
    ],
    [
      "an unknown flag",
      ["add.wgsl", ...good, "--fast"],
      2,
      /usage: EINVAL: unknown option '--fast'; see pagemirror run --help/,
    ],
    ["a misspelt flag", ["add.wgsl", ...good, "--stat"], 2, /usage: EINVAL: .*--stats/],
    ["a --set that is no number", ["copy.wgsl", "--set", "scale=big"], 2, /usage: EINVAL: --set "scale=big"/],
    ["a --set of no member", ["add.wgsl", ...good, "--set", "scale=1"], 1, /EINVAL: .*"scale"/],
    ["an adapter that is not there", ["add.wgsl", ...good, "--adapter", "voodoo"], 1, /adapter: ENODEV: .*"voodoo"/],
    ["a device memory of nothing", ["add.wgsl", ...good, "--device-memory", "0"], 2, /usage: EINVAL: --device-memory/],
    ["--json with --stats", ["add.wgsl", ...good, "--json", "--stats"], 2, /usage: EINVAL: --stats and --json/],
    ["svm mode", ["add.wgsl", ...good, "--mode", "svm"], 1, /run: EINVAL: --mode svm: .*leave --mode out/],
    ["an MMU of no name", ["add.wgsl", ...good, "--mmu", "fast"], 2, /usage: EINVAL: --mmu "fast"/],
    ["a URL of no server", ["add.wgsl", "--map", "values=http://127.0.0.1:2/x"], 1, /map values: EIO: .*check the URL/],
    ["a trace over an input", ["add.wgsl", ...good, "--trace", "data.bin"], 1, /trace: EINVAL: .*data\.bin/],
  ];

  beforeEach(() => {
    mkdirSync(at("folder"));
    writeFileSync(at("empty.bin"), "");
    writeFileSync(at("binary.wgsl"), Uint8Array.of(0xff, 0xfe, 0x80));
    writeFileSync(at("none.wgsl"), "fn helper() {}");
    writeFileSync(at("wrong.wgsl"), "\n\n@compute @workgroup_size(1) fn main() { let a: u32 = 1.5; }\n");
  });

  test.each(cases)("%s", async (_, args, status, line) => {
    const before = readdirSync(folder);
    // An output that must not appear, where the case brings none of its own.
    const out = args.includes("--out") || !args.join().includes("values=") ? [] : ["--out", "values=never.bin"];
    const ended = await run([...args, ...out]);
    expect(ended.stderr).toMatch(/^pagemirror: [^\n]+: [A-Z]+: [^\n]+\n$/);
    expect(ended.stderr).toMatch(line);
    expect(ended.status).toBe(status);
    expect(ended.stdout).toBe(args.includes("--json") ? `${JSON.stringify(errorObject(ended.stderr))}\n` : "");
    expect(readdirSync(folder)).toEqual(before);
  });

  test.each([
    ["no command", [], /usage: EINVAL: name a command/],
    ["an unknown command", ["profile"], /usage: EINVAL: unknown command 'profile'/],
    ["a trace to inspect that is not named", ["inspect"], /usage: EINVAL: missing required argument 'TRACE'/],
    ["run without a kernel", ["run"], /usage: EINVAL: missing required argument 'KERNEL.wgsl'/],
    ["info with an argument", ["info", "x"], /usage: EINVAL: too many arguments/],
  ])("%s", async (_, args, line) => {
    const { status, stdout, stderr } = await pagemirror(args);
    expect(stderr).toMatch(line);
    expect(stderr.trimEnd()).not.toContain("\n");
    expect([status, stdout]).toEqual([2, ""]);
  });

  test("with --json the failure is an object as well", async () => {
    const { status, stdout } = await run(["add.wgsl", "--map", "values=gone.bin", "--json"]);
    expect(status).toBe(1);
    expect(JSON.parse(stdout)).toEqual({
      ok: false,
      error: { op: "map values", code: "ENOENT", why: expect.stringContaining("gone.bin") },
    });
  });

  test("a stack trace is shown to who asks for it", async () => {
    const { stderr } = await run(["add.wgsl", "--map", "values=gone.bin"], { env: { PAGEMIRROR_DEBUG: "1" } });
    expect(stderr).toMatch(/^ {4}at /m);
  });

  // As root, every file can be read: these run as another user.
  test.skipIf(!isRoot)("a file that may not be read", async () => {
    writeFileSync(at("secret.bin"), "secret", { mode: 0o600 });
    await runProgram("chmod", ["755", folder]);
    const ended = await run(["add.wgsl", "--map", "values=secret.bin:cow"], { uid: NOBODY });
    expect(ended.stderr).toMatch(/^pagemirror: map values: EACCES: secret\.bin: .*permissions.*\n$/);
    expect(ended.status).toBe(1);
  });

  test.skipIf(!isRoot)("a folder that may not be written", async () => {
    await runProgram("chmod", ["755", folder]);
    const args = ["add.wgsl", "--map", "values=data.bin:cow", "--out", "values=out.bin"];
    const ended = await run(args, { uid: NOBODY });
    expect(ended.stderr).toMatch(/^pagemirror: out values: EACCES: out\.bin: you may not write in its folder.*\n$/);
    expect(ended.status).toBe(1);
  });

  test("two names that write one file", async () => {
    copyFileSync(at("copy.wgsl"), at("k.wgsl"));
    const ended = await run([
      "k.wgsl",
      "--map",
      "data=data.bin:rw",
      "--map",
      "result=new:400",
      "--out",
      "result=data.bin",
    ]);
    expect(ended.stderr).toMatch(/^pagemirror: .*: EINVAL: .*data\.bin is written by result too.*\n$/);
    expect(ended.status).toBe(1);
  });
});

describe("a signal", () => {
  test.each([
    ["SIGINT", 130],
    ["SIGTERM", 143],
  ] as const)("%s while the kernel runs leaves no partial output and exits %i", async (signal, status) => {
    writeFileSync(at("out.bin"), "old");
    const before = readdirSync(folder);
    const args = ["forever.wgsl", "--map", "values=new:16", "--workgroups", "1", "--out", "values=out.bin"];
    const ended = await run(args, {
      env: { PAGEMIRROR_DEBUG: "1" },
      started: (child: ChildProcess) => {
        child.stderr?.on("data", (bytes) => {
          if (String(bytes).includes("debug: running")) {
            // Later, when the GPU is at work; sooner would have to do as well.
            setTimeout(() => child.kill(signal), 500);
          }
        });
      },
    });
    expect(ended.stderr).toContain(`ended by ${signal}`);
    expect([ended.status, ended.signal]).toEqual([status, null]);
    expect(readdirSync(folder)).toEqual(before);
    expect(readFileSync(at("out.bin"), "utf8")).toBe("old");
  });
});

describe("memory", () => {
  const MIB = 2 ** 20;

  test.skipIf(!existsSync("/proc/self/status"))(
    "a 1 GiB file bound in part costs the part and 256 MiB at most",
    async () => {
      const part = 64 * MIB;
      const file = openSync(at("huge.bin"), "w");
      ftruncateSync(file, 1024 * MIB);
      writeSync(file, Uint8Array.of(5, 0, 0, 0), 0, 4, 0);
      writeSync(file, Uint8Array.of(6, 0, 0, 0), 0, 4, part - 4);
      closeSync(file);
      writeFileSync(at("fixed.wgsl"), FIXED(part / 4));
      const args = ["run", "fixed.wgsl", "--map", "data=huge.bin:r", "--map", "sum=new:16", "--out", "sum=out.bin"];
      const peakFile = at("peak");
      const meter = path.join(ROOT, "test/support/peak-memory.mjs");
      const { status, stderr } = await runProgram(process.execPath, ["--import", meter, COMMAND, ...args], {
        cwd: folder,
        env: { PEAK_MEMORY_FILE: peakFile },
      });
      expect([status, stderr]).toEqual([0, ""]);
      expect(readFileSync(at("out.bin")).readUInt32LE(0)).toBe(11);
      const peak = Number(readFileSync(peakFile, "utf8")) * 1024;
      expect(peak).toBeGreaterThan(0);
      expect(peak).toBeLessThan(part + 256 * MIB);
    },
  );
});
