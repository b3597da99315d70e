import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { trace } from "../../base/index.ts";
import { writeTrace } from "./trace-file.ts";

describe("a trace file", () => {
  let folder: string;
  beforeAll(() => {
    folder = mkdtempSync(path.join(tmpdir(), "pagemirror-trace-file-"));
  });
  afterAll(() => rmSync(folder, { recursive: true, force: true }));

  const starts = (file: string) =>
    (JSON.parse(readFileSync(file, "utf8")) as { name: string; args: { start?: number } }[])
      .filter(({ name }) => name === "mm.unmap")
      .map(({ args }) => args.start);

  test("has every event in order when it is closed, also those of many chunks", async () => {
    const file = path.join(folder, "many.json");
    const out = writeTrace(file);
    for (let i = 0; i < 40_000; i++) {
      trace("mm.unmap", { space: 1, start: i * 4096, end: (i + 1) * 4096 });
    }
    await out.close();
    trace("mm.unmap", { space: 1, start: -1, end: 0 });
    await out.close();
    expect(starts(file)).toEqual(Array.from({ length: 40_000 }, (_, i) => i * 4096));
  });

  test("has the texts of every event, also where each chunk brings new ones", async () => {
    const file = path.join(folder, "texts.json");
    const out = writeTrace(file);
    const lock = (i: number) => `lock ${i >> 10}`;
    for (let i = 0; i < 20_000; i++) {
      trace("sync.wait", { lock: lock(i), mode: "read" });
      if (i % 7000 === 0) {
        // Meanwhile the thread looks for what is there.
        await new Promise((resolve) => setTimeout(resolve, 30));
      }
    }
    await out.close();
    const locks = (JSON.parse(readFileSync(file, "utf8")) as { name: string; args: { lock?: string } }[])
      .filter(({ name }) => name === "sync.wait")
      .map(({ args }) => args.lock);
    expect(locks).toEqual(Array.from({ length: 20_000 }, (_, i) => lock(i)));
  });

  test("is whole although the process ends without closing it", () => {
    const file = path.join(folder, "exit.json");
    const script = path.join(folder, "exit.ts");
    const here = (name: string) => JSON.stringify(new URL(name, import.meta.url).href);
    writeFileSync(
      script,
      `import { trace } from ${here("../../base/index.ts")};
import { writeTrace } from ${here("./trace-file.ts")};
writeTrace(${JSON.stringify(file)});
trace("mm.unmap", { space: 1, start: 4096, end: 8192 });
process.exit(3);`,
    );
    const { status, stderr } = spawnSync(process.execPath, ["--import", "tsx", script], { encoding: "utf8" });
    expect([status, stderr]).toEqual([3, ""]);
    expect(starts(file)).toEqual([4096]);
  });

  test("ENOENT, EISDIR: a file that cannot be written is refused before anything is traced", () => {
    expect(() => writeTrace(path.join(folder, "no", "run.json"))).toThrow(
      expect.objectContaining({ code: "ENOENT", op: "trace" }) as Error,
    );
    expect(() => writeTrace(folder)).toThrow(expect.objectContaining({ code: "EISDIR", op: "trace" }) as Error);
  });

  test("ENOSPC: a full disk is reported when the file is closed", async () => {
    const out = writeTrace("/dev/full");
    trace("mm.unmap", { space: 1, start: 0, end: 4096 });
    await expect(out.close()).rejects.toMatchObject({ code: "ENOSPC", op: "trace" });
  });
});
