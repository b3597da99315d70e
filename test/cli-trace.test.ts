/** `run --trace`, `--maps`, `--inspect` and `inspect`, as a user has them. */
import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { loadTrace } from "../src/cli/inspect.ts";
import { kindOf } from "../src/inspect/index.ts";
import { ensureBuilt, pagemirror } from "./support/built.ts";

const ADD = `
@group(0) @binding(0) var<storage, read> data: array<u32>;
@group(0) @binding(1) var<storage, read_write> sums: array<atomic<u32>, 16>;
@compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3u) {
  if (id.x < arrayLength(&data)) { atomicAdd(&sums[id.x % 16], data[id.x]); }
}`;
const BYTES = 40_960;

describe("seeing what a run does", () => {
  let folder: string;
  const at = (name: string) => path.join(folder, name);
  const run = (...args: readonly string[]) =>
    pagemirror(["run", "add.wgsl", "--map", "data=data.bin", "--map", "sums=new:64", ...args], { cwd: folder });

  beforeAll(async () => {
    await ensureBuilt();
    folder = mkdtempSync(path.join(tmpdir(), "pagemirror-trace-"));
    writeFileSync(at("add.wgsl"), ADD);
    writeFileSync(at("data.bin"), new Uint8Array(BYTES).fill(1));
    writeFileSync(at("notes.txt"), "not a trace\n");
  }, 180_000);
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  test("--trace writes a file whose uploads are those of --json", async () => {
    const { status, stdout, stderr } = await run("--json", "--trace", "run.json");
    expect([status, stderr]).toEqual([0, ""]);
    const { bytes } = JSON.parse(stdout) as { bytes: { toDevice: number } };
    expect(Array.isArray(JSON.parse(readFileSync(at("run.json"), "utf8")))).toBe(true);
    const store = await loadTrace(at("run.json"));
    const { kind, value } = store.columns;
    let sent = 0;
    for (let row = 0; row < store.count; row++) {
      sent += kind[row] === kindOf("gpu.upload") ? value[row] : 0;
    }
    expect([sent, store.samples.at(-1)?.toDevice]).toEqual([BYTES, bytes.toDevice]);
  });

  test("writeTrace works in a program that is given by --input-type, whose thread is a file all the same", () => {
    const main = JSON.stringify(new URL("../dist/node.js", import.meta.url).href);
    const program = `const { writeTrace } = await import(${main}); await writeTrace("typed.json").close();`;
    const { status, stderr } = spawnSync(process.execPath, ["--input-type=module", "-e", program], {
      cwd: folder,
      encoding: "utf8",
    });
    expect([status, stderr]).toEqual([0, ""]);
    expect(Array.isArray(JSON.parse(readFileSync(at("typed.json"), "utf8")))).toBe(true);
  });

  test("--maps prints each mapping and where its pages are", async () => {
    const { status, stdout } = await run("--maps");
    expect(status).toBe(0);
    expect(stdout).toMatch(/ r--s 00000000 data\nSize: +40 kB\nPresent: +40 kB\n/);
    expect(stdout).toMatch(/ rw-p 00000000 sums\nSize: +4 kB\n(.*\n){2}Device: +4 kB\n/);
  });

  test("maps prints where the pages of a trace were after its last dispatch", async () => {
    const { status, stdout, stderr } = await pagemirror(["maps", at("run.json")]);
    expect([status, stderr]).toEqual([0, ""]);
    expect(stdout).toMatch(
      /^[0-9a-f]{12}-[0-9a-f]{12} data\nSize: +40 kB\nCopied: +40 kB\n[0-9a-f]{12}-[0-9a-f]{12} sums\nSize: +4 kB\nDevice: +4 kB\n$/,
    );
    const wrong = await pagemirror(["maps", at("notes.txt")]);
    expect([wrong.status, wrong.stderr]).toEqual([
      1,
      expect.stringMatching(/^pagemirror: maps: EINVAL: .*notes\.txt is no trace/),
    ]);
  });

  test("a trace over a file that the run uses, and a path that cannot be written, are refused", async () => {
    const over = await run("--stats", "--trace", "data.bin");
    expect([over.status, over.stderr]).toEqual([
      1,
      expect.stringMatching(/^pagemirror: trace: EINVAL: data\.bin is used/),
    ]);
    expect(readFileSync(at("data.bin"))).toHaveLength(BYTES);
    const nowhere = await run("--stats", "--trace", "no/run.json");
    expect([nowhere.status, nowhere.stderr]).toEqual([1, expect.stringMatching(/^pagemirror: trace: ENOENT: /)]);
  });

  test("a trace that does not fit its disk fails the run before its outputs appear, with one object", async () => {
    const { status, stdout, stderr } = await run("--json", "--trace", "/dev/full", "--out", "sums=late.bin");
    expect([status, stderr]).toEqual([
      1,
      expect.stringMatching(/^pagemirror: trace: ENOSPC: \/dev\/full does not fit/),
    ]);
    expect(JSON.parse(stdout)).toMatchObject({ ok: false, error: { op: "trace", code: "ENOSPC" } });
    expect(existsSync(at("late.bin"))).toBe(false);
  });

  test("inspect prints the address of a page until Ctrl-C, and says so when a file is no trace", async () => {
    let asked: Promise<Response> | undefined;
    const { status, stdout } = await pagemirror(["inspect", at("run.json")], {
      started: (child) =>
        child.stdout?.once("data", (text) => {
          asked = fetch(String(text).trim());
          asked.finally(() => child.kill("SIGINT")).catch(() => undefined);
        }),
    });
    expect(stdout).toMatch(/^http:\/\/127\.0\.0\.1:\d+\/\?token=[\w-]{24}\n$/);
    expect([status, (await asked)?.status]).toEqual([0, 200]);
    const wrong = await pagemirror(["inspect", "notes.txt"], { cwd: folder });
    expect([wrong.status, wrong.stderr]).toEqual([
      1,
      "pagemirror: inspect: EINVAL: notes.txt is no trace: make one with pagemirror run … --trace FILE\n",
    ]);
  });

  test("run --inspect serves the run's events, also when it is over, until Ctrl-C", async () => {
    let said = "";
    let events: Promise<number> | undefined;
    const { status, stdout } = await pagemirror(
      ["run", "add.wgsl", "--map", "data=data.bin", "--map", "sums=new:64", "--json", "--inspect"],
      {
        cwd: folder,
        started: (child) =>
          child.stderr?.on("data", (text) => {
            said += String(text);
            const url = /http:\S+/.exec(said)?.[0];
            if (said.includes("the run is over") && url !== undefined && events === undefined) {
              events = fetch(url.replace("/?", "/events?")).then(
                async (answer) => (await answer.arrayBuffer()).byteLength,
              );
              events.finally(() => child.kill("SIGINT")).catch(() => undefined);
            }
          }),
      },
    );
    expect([status, (JSON.parse(stdout) as { ok: boolean }).ok]).toEqual([0, true]);
    expect(await events).toBeGreaterThan(500);
  });
});
