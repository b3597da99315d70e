/** The built command and bad input: one line that says what to do, and no file changed. */
import { copyFileSync, mkdirSync, readdirSync, writeFileSync } from "node:fs";
import { beforeEach, describe, expect, test } from "vitest";
import { pagemirror, runProgram } from "./support/built.ts";
import { useCliFolder } from "./support/cli-folder.ts";

const NOBODY = 65_534;
const isRoot = process.getuid?.() === 0;

/** What `--json` prints for an error line. */
function errorObject(line: string) {
  const [, op, code, why] = /^pagemirror: (.+?): ([A-Z]+): (.*)\n$/.exec(line) ?? [];
  return { ok: false, error: { op, code, why } };
}

const folder = useCliFolder();
const { at, run } = folder;

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
    const before = readdirSync(folder.path);
    // An output that must not appear, where the case brings none of its own.
    const out = args.includes("--out") || !args.join().includes("values=") ? [] : ["--out", "values=never.bin"];
    const ended = await run([...args, ...out]);
    expect(ended.stderr).toMatch(/^pagemirror: [^\n]+: [A-Z]+: [^\n]+\n$/);
    expect(ended.stderr).toMatch(line);
    expect(ended.status).toBe(status);
    expect(ended.stdout).toBe(args.includes("--json") ? `${JSON.stringify(errorObject(ended.stderr))}\n` : "");
    expect(readdirSync(folder.path)).toEqual(before);
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
    await runProgram("chmod", ["755", folder.path]);
    const ended = await run(["add.wgsl", "--map", "values=secret.bin:cow"], { uid: NOBODY });
    expect(ended.stderr).toMatch(/^pagemirror: map values: EACCES: secret\.bin: .*permissions.*\n$/);
    expect(ended.status).toBe(1);
  });

  test.skipIf(!isRoot)("a folder that may not be written", async () => {
    await runProgram("chmod", ["755", folder.path]);
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
