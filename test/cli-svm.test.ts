/** The built command with kernels that follow addresses: data larger than the device's memory, pointers, errors, signals. */
import type { ChildProcess } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeAll, beforeEach, describe, expect, test } from "vitest";
import { ensureBuilt, pagemirror } from "./support/built.ts";

const DEVICE_PAGE = 16_384;

/** Adds 1 to each word, and counts the odd words that it finds. */
const ADD = `
struct Params { values: u32, bytes: u32, odd: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@compute @workgroup_size(64) fn add(@builtin(global_invocation_id) id: vec3u) {
  if (id.x >= params.bytes / 4) { return; }
  let value = pm_load_u32(params.values + id.x);
  pm_store_u32(params.values + id.x, value + 1);
  if (value % 2 == 1) { pm_atomic_add_u32(params.odd, 1u); }
}`;
/** Follows a list of pages, each of which begins with the place of the next, and sums what is beside it. */
const CHASE = `
struct Params { list: u32, sum: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@compute @workgroup_size(1) fn chase() {
  var sum = 0u;
  var at = params.list;
  loop {
    sum += pm_load_u32(at + 1);
    let next = pm_load_u32(at);
    if (next == 0) { break; }
    at = params.list + next;
  }
  pm_store_u32(params.sum, sum);
}`;
/** Folds all words of a file into one, in their order: a single invocation that needs all of it. */
const FOLD = `
struct Params { data: u32, bytes: u32, fold: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@compute @workgroup_size(1) fn fold() {
  var folded = 0u;
  for (var i = 0u; i < params.bytes / 4; i += 4) {
    let words = pm_load_vec4u(params.data + i);
    for (var k = 0u; k < 4; k++) { folded = folded * 31 + words[k]; }
  }
  pm_store_u32(params.fold, folded);
}`;
const STORE = `
struct Params { to: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@compute @workgroup_size(1) fn poke() { pm_store_u32(params.to, 7u); }`;
const LOAD = `
struct Params { place: u32, sum: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@compute @workgroup_size(1) fn peek() { pm_store_u32(params.sum, pm_load_u32(params.place)); }`;
/** Counts the words of each value that an address leads to, in a variable of its own. */
const COUNT = `
struct Params { data: u32, bytes: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@group(0) @binding(1) var<storage, read_write> counts: array<atomic<u32>, 16>;
@compute @workgroup_size(64) fn count(@builtin(global_invocation_id) id: vec3u) {
  if (id.x < params.bytes / 4) { atomicAdd(&counts[pm_load_u32(params.data + id.x) % 16], 1u); }
}`;
const BIND = `
@group(0) @binding(0) var<storage, read_write> values: array<u32>;
@compute @workgroup_size(1) fn bound() { values[0] = 1; }`;
/** Reads page after page, round after round: nothing fits for long. */
const FOREVER = `
struct Params { data: u32, bytes: u32, sum: u32 }
@group(0) @binding(0) var<uniform> params: Params;
@compute @workgroup_size(64) fn forever(@builtin(global_invocation_id) id: vec3u) {
  let words = params.bytes / 4;
  let page = (id.x * 7919u) % (words / 4096u);
  pm_store_u32(params.sum + id.x % 16, pm_load_u32(params.data + page * 4096u));
}`;

let folder: string;
const at = (name: string) => path.join(folder, name);
const run = (args: readonly string[], options = {}) => pagemirror(["run", ...args], { cwd: folder, ...options });
const wordsOf = (name: string) => {
  const bytes = readFileSync(at(name));
  return new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length / 4);
};

beforeAll(ensureBuilt, 180_000);

beforeEach(() => {
  folder = mkdtempSync(path.join(tmpdir(), "pagemirror-svm-"));
  writeFileSync(at("add.wgsl"), ADD);
  writeFileSync(at("chase.wgsl"), CHASE);
  writeFileSync(at("fold.wgsl"), FOLD);
  writeFileSync(at("store.wgsl"), STORE);
  writeFileSync(at("load.wgsl"), LOAD);
  writeFileSync(at("bind.wgsl"), BIND);
  writeFileSync(at("count.wgsl"), COUNT);
  writeFileSync(at("forever.wgsl"), FOREVER);
  writeFileSync(at("data.bin"), new Uint32Array(100).fill(5));
});

afterEach(() => {
  rmSync(folder, { recursive: true, force: true });
});

const BYTES = 64 * DEVICE_PAGE + 20;
const original = Uint32Array.from({ length: BYTES / 4 }, (_, i) => i * 2654435761);
const added = original.map((value) => value + 1);
const addArgs = (map: string) => [
  ...["add.wgsl", "--map", `values=${map}`, "--map", "odd=new:4", "--device-memory", "128K"],
  ...["--set", "values=@values", "--set", "bytes=#values", "--set", "odd=@odd", "--out", "odd=odd.bin"],
  ...["--workgroups", String(Math.ceil(BYTES / 256))],
];

describe("data of 8 times the device's memory", () => {
  beforeEach(() => writeFileSync(at("big.bin"), original));

  test("is written through :cow into an output, in full length, with figures of the rounds", async () => {
    const ended = await run([...addArgs("big.bin:cow"), "--out", "values=out.bin", "--json"]);
    expect([ended.status, ended.stderr]).toEqual([0, ""]);
    expect(wordsOf("out.bin")).toEqual(added);
    expect(wordsOf("big.bin")).toEqual(original);
    expect([...wordsOf("odd.bin")]).toEqual([original.filter((value) => value % 2 === 1).length]);
    const report = JSON.parse(ended.stdout);
    expect(report).toMatchObject({ ok: true, mode: "svm", outputs: { values: { bytes: BYTES }, odd: { bytes: 4 } } });
    expect(report.rounds).toBeGreaterThan(8);
    // A stream: most pages are predicted, and come before a round misses them.
    expect(report.faults.device).toBeGreaterThan(0);
    expect(report.bytes.evicted).toBeGreaterThan(BYTES / 2);
    expect(report.pages.evicted).toBeGreaterThan(32);
    expect(report.bytes.toDevice).toBeGreaterThanOrEqual(BYTES);
  });

  test("is written back to a file mapped :rw", async () => {
    const { status, stderr } = await run(addArgs("big.bin:rw"));
    expect([status, stderr]).toEqual([0, ""]);
    expect(wordsOf("big.bin")).toEqual(added);
  });

  test("gives --stats in words", async () => {
    const { status, stdout } = await run([...addArgs("big.bin:cow"), "--stats"]);
    expect(status).toBe(0);
    expect(stdout).toMatch(/^mode +svm/m);
    expect(stdout).toMatch(/^evicted +.* device pages\)$/m);
    expect(stdout).toMatch(/^prefetched +\d/m);
  });
});

test("a mapping with the name of one of the kernel's variables is bound to it", async () => {
  writeFileSync(at("big.bin"), original);
  const data = ["--map", "data=big.bin", "--set", "data=@data", "--set", "bytes=#data", "--device-memory", "256K"];
  const groups = ["--workgroups", String(Math.ceil(BYTES / 256))];
  const ended = await run(["count.wgsl", ...data, ...groups, "--map", "counts=new:64", "--out", "counts=counts.bin"]);
  expect([ended.status, ended.stderr]).toEqual([0, ""]);
  const counts = new Uint32Array(16);
  for (const word of original) {
    counts[word % 16]++;
  }
  expect(wordsOf("counts.bin")).toEqual(counts);
  const without = await run(["count.wgsl", ...data, ...groups]);
  expect([without.status, without.stderr]).toEqual([
    1,
    expect.stringMatching(
      /^pagemirror: run: EINVAL: the kernel's variable counts \(.*\) has no mapping: add --map counts=/,
    ),
  ]);
});

test("a list is followed by its pointers through pages in any order", async () => {
  const pages = 40;
  const list = new Uint32Array((pages * DEVICE_PAGE) / 4);
  // Page 7 i comes after page 7 (i - 1), modulo a number that 7 does not divide.
  for (let i = 0; i < pages - 1; i++) {
    const from = ((i * 7) % (pages - 1)) * (DEVICE_PAGE / 4);
    const to = (((i + 1) * 7) % (pages - 1)) * (DEVICE_PAGE / 4);
    list.set([to, i + 1], from);
  }
  writeFileSync(at("list.bin"), list);
  const ended = await run([
    ...["chase.wgsl", "--mode", "svm", "--map", "pointers=list.bin", "--map", "sum=new:4", "--device-memory", "1M"],
    ...["--set", "list=@pointers", "--set", "sum=@sum", "--workgroups", "1", "--out", "sum=sum.bin"],
  ]);
  expect([ended.status, ended.stderr]).toEqual([0, ""]);
  expect([...wordsOf("sum.bin")]).toEqual([((pages - 1) * pages) / 2]);
});

test("one invocation goes through a file of eight times the device's memory", async () => {
  const words = new Uint32Array(2 ** 19).map((_, i) => Math.imul(i, 2_654_435_761) >>> 3);
  writeFileSync(at("words.bin"), words);
  const ended = await run([
    ...["fold.wgsl", "--map", "words=words.bin", "--map", "result=new:4", "--device-memory", "256K", "--json"],
    ...["--set", "data=@words", "--set", "bytes=#words", "--set", "fold=@result", "--workgroups", "1"],
    ...["--out", "result=result.bin"],
  ]);
  expect([ended.status, ended.stderr]).toEqual([0, ""]);
  expect([...wordsOf("result.bin")]).toEqual([words.reduce((folded, word) => (Math.imul(folded, 31) + word) >>> 0, 0)]);
  const { rounds, bytes } = JSON.parse(ended.stdout);
  expect(rounds).toBeGreaterThan(8);
  expect(bytes.toDevice).toBeLessThan(1.1 * words.byteLength);
});

describe("bad input", () => {
  const good = ["--map", "data=data.bin:cow"];
  const cases: readonly [name: string, args: readonly string[], status: number, line: RegExp][] = [
    [
      "a load outside every mapping",
      ["load.wgsl", ...good, "--set", "place=0", "--set", "sum=@data", "--workgroups", "1"],
      1,
      /kernel load\.wgsl: EFAULT: peek, .*reads svm address 0 \(0x[\da-f_]+\), outside every mapping: /,
    ],
    [
      "a store outside every mapping",
      ["store.wgsl", ...good, "--set", "to=0x40000000", "--workgroups", "1"],
      1,
      /kernel store\.wgsl: EFAULT: poke, .*writes svm address 1073741824 .*outside every mapping: /,
    ],
    [
      "a store to a file mapped :r",
      ["store.wgsl", "--map", "data=data.bin", "--set", "to=@data", "--workgroups", "1"],
      1,
      /kernel store\.wgsl: EPERM: poke, .*writes svm address \d+ .*in data, which is mapped read-only: /,
    ],
    [
      "a member without --set",
      ["load.wgsl", ...good, "--set", "place=@data", "--workgroups", "1"],
      1,
      /EINVAL: params needs a value for "sum"/,
    ],
    ["no workgroups", ["store.wgsl", ...good, "--set", "to=@data"], 1, /run: EINVAL: .*give --workgroups/],
    [
      "the address of nothing that is mapped",
      ["store.wgsl", ...good, "--set", "to=@dat", "--workgroups", "1"],
      2,
      /usage: EINVAL: --set to names @dat, which is not mapped: add --map dat=/,
    ],
    [
      "the length of nothing that is mapped",
      ["store.wgsl", ...good, "--set", "to=#x", "--workgroups", "1"],
      2,
      /usage: EINVAL: --set to names #x, which is not mapped/,
    ],
    ["an address of no name", ["store.wgsl", ...good, "--set", "to=@"], 2, /usage: EINVAL: --set "to=@": /],
    [
      "--mode bind for a kernel that follows addresses",
      ["store.wgsl", ...good, "--set", "to=@data", "--workgroups", "1", "--mode", "bind"],
      1,
      /run: EINVAL: --mode bind: .*leave --mode out/,
    ],
    [
      "--mode svm for a kernel that binds",
      ["bind.wgsl", "--map", "values=data.bin:cow", "--mode", "svm"],
      1,
      /run: EINVAL: --mode svm: .*leave --mode out/,
    ],
    ["a mode of another name", ["store.wgsl", "--mode", "fast"], 2, /usage: EINVAL: --mode "fast": .*bind or svm/],
    [
      "an address for a kernel that binds",
      ["bind.wgsl", "--map", "values=data.bin:cow", "--set", "x=@values"],
      1,
      /set x: EINVAL: .*give a number/,
    ],
    [
      "a device memory that holds no page",
      ["store.wgsl", ...good, "--set", "to=@data", "--workgroups", "1", "--device-memory", "4K"],
      1,
      /ENOMEM: .*deviceMemory/,
    ],
  ];

  test.each(cases)("%s", async (_, args, status, line) => {
    const before = readdirSync(folder);
    const data = readFileSync(at("data.bin"));
    const out = args.includes("data=data.bin:cow") ? ["--out", "data=never.bin"] : [];
    const ended = await run([...args, ...out]);
    expect(ended.stderr).toMatch(/^pagemirror: [^\n]+: [A-Z]+: [^\n]+\n$/);
    expect(ended.stderr).toMatch(line);
    expect([ended.status, ended.stdout]).toEqual([status, ""]);
    expect(readdirSync(folder)).toEqual(before);
    expect(readFileSync(at("data.bin"))).toEqual(data);
  });
});

test("SIGINT during the rounds leaves no partial output and exits 130", async () => {
  writeFileSync(at("big.bin"), new Uint8Array(512 * DEVICE_PAGE).fill(3));
  const before = readdirSync(folder);
  const ended = await run(
    [
      ...["forever.wgsl", "--json", "--map", "data=big.bin", "--map", "sum=new:64", "--device-memory", "128K"],
      ...["--set", "data=@data", "--set", "bytes=#data", "--set", "sum=@sum"],
      ...["--workgroups", "65535", "--out", "sum=out.bin"],
    ],
    {
      env: { PAGEMIRROR_DEBUG: "1" },
      started: (child: ChildProcess) => {
        child.stderr?.on("data", (bytes) => {
          if (String(bytes).includes("debug: running")) {
            setTimeout(() => child.kill("SIGINT"), 500);
          }
        });
      },
    },
  );
  expect(ended.stderr).toContain("ended by SIGINT");
  expect(JSON.parse(ended.stdout)).toMatchObject({ ok: false, error: { op: "run", code: "EINTR" } });
  expect([ended.status, ended.signal]).toEqual([130, null]);
  expect(readdirSync(folder)).toEqual(before);
});
