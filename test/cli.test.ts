/** The built command from end to end: good runs, signals, memory. */
import type { ChildProcess } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import {
  closeSync,
  existsSync,
  ftruncateSync,
  openSync,
  readdirSync,
  readFileSync,
  writeFileSync,
  writeSync,
} from "node:fs";
import path from "node:path";
import { describe, expect, test } from "vitest";
import { COMMAND, pagemirror, ROOT, runProgram } from "./support/built.ts";
import { ADD, useCliFolder } from "./support/cli-folder.ts";

const sha256 = (bytes: Uint8Array) => createHash("sha256").update(bytes).digest("hex");

const FIXED = (words: number) => `
@group(0) @binding(0) var<storage, read> data: array<u32, ${words}>;
@group(0) @binding(1) var<storage, read_write> sum: array<u32, 4>;
@compute @workgroup_size(1) fn fixed() { sum[0] = data[0] + data[${words - 1}]; }`;

const folder = useCliFolder();
const { at, run } = folder;

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
      deviceMemory: { used: expect.any(Number), limit: expect.any(Number), beside: expect.any(Number) },
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
    expect(readdirSync(folder.path).filter((name) => name.startsWith("."))).toEqual([]);
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

describe("a signal", () => {
  test.each([
    ["SIGINT", 130],
    ["SIGTERM", 143],
  ] as const)("%s while the kernel runs leaves no partial output and exits %i", async (signal, status) => {
    writeFileSync(at("out.bin"), "old");
    const before = readdirSync(folder.path);
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
    expect(readdirSync(folder.path)).toEqual(before);
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
        cwd: folder.path,
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
