import { createHash } from "node:crypto";
import {
  chmodSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, test } from "vitest";
import { OutputFiles } from "./output.ts";

let folder: string;
const at = (name: string) => path.join(folder, name);
const bytes = (text: string) => new TextEncoder().encode(text);

beforeEach(() => {
  folder = mkdtempSync(path.join(tmpdir(), "pagemirror-output-"));
});

afterEach(() => {
  rmSync(folder, { recursive: true, force: true });
});

describe("OutputFiles", () => {
  test("shows nothing under the target's name before the commit", async () => {
    using outputs = await OutputFiles.create([{ name: "a", path: at("a.bin") }]);
    await outputs.write("a", bytes("one "));
    await outputs.write("a", bytes("two"));
    expect(readdirSync(folder)).not.toContain("a.bin");
    const report = await outputs.commit();
    expect(readdirSync(folder)).toEqual(["a.bin"]);
    expect(readFileSync(at("a.bin"), "utf8")).toBe("one two");
    expect(report).toEqual({ a: { bytes: 7, sha256: createHash("sha256").update("one two").digest("hex") } });
  });

  test("leaves the old file and no other when it is disposed without a commit", async () => {
    writeFileSync(at("a.bin"), "old");
    {
      using outputs = await OutputFiles.create([{ name: "a", path: at("a.bin") }]);
      await outputs.write("a", bytes("new"));
    }
    expect(readdirSync(folder)).toEqual(["a.bin"]);
    expect(readFileSync(at("a.bin"), "utf8")).toBe("old");
  });

  test("can be discarded twice", async () => {
    const outputs = await OutputFiles.create([{ name: "a", path: at("a.bin") }]);
    outputs.discardSync();
    outputs.discardSync();
    expect(readdirSync(folder)).toEqual([]);
  });

  test("keeps the permissions of a file that it replaces", async () => {
    writeFileSync(at("a.bin"), "old");
    chmodSync(at("a.bin"), 0o640);
    using outputs = await OutputFiles.create([{ name: "a", path: at("a.bin") }]);
    await outputs.commit();
    expect(statSync(at("a.bin")).mode & 0o777).toBe(0o640);
  });

  test("writes to where a link leads", async () => {
    writeFileSync(at("real.bin"), "old");
    symlinkSync("real.bin", at("link.bin"));
    using outputs = await OutputFiles.create([{ name: "a", path: at("link.bin") }]);
    await outputs.write("a", bytes("new"));
    await outputs.commit();
    expect(readFileSync(at("real.bin"), "utf8")).toBe("new");
    expect(readdirSync(folder)).toEqual(["link.bin", "real.bin"]);
  });

  test("writes straight to a device, which cannot be replaced", async () => {
    using outputs = await OutputFiles.create([{ name: "a", path: "/dev/null" }]);
    await outputs.write("a", bytes("gone"));
    expect(await outputs.commit()).toMatchObject({ a: { bytes: 4 } });
    expect(statSync("/dev/null").isCharacterDevice()).toBe(true);
  });

  test.each([
    ["a folder", "sub", "EISDIR"],
    ["a path with a slash at its end", "new/", "EISDIR"],
    ["a folder that is not there", "gone/a.bin", "ENOENT"],
    ["a file as folder", "file/a.bin", "ENOENT"],
  ])("refuses %s and leaves nothing behind", async (_, name, code) => {
    mkdirSync(at("sub"));
    writeFileSync(at("file"), "");
    const targets = [
      { name: "good", path: at("good.bin") },
      { name: "bad", path: path.join(folder, "/") + name },
    ];
    await expect(OutputFiles.create(targets)).rejects.toMatchObject({ code, op: "out bad" });
    expect(readdirSync(folder)).toEqual(["file", "sub"]);
  });

  test.each([
    ["one path", () => at("a.bin")],
    ["two spellings of it", () => `${folder}/./a.bin`],
    ["a hard link to it", () => at("hard.bin")],
    ["a symbolic link to it", () => at("soft.bin")],
  ])("refuses two names that write %s", async (_, other) => {
    writeFileSync(at("a.bin"), "old");
    linkSync(at("a.bin"), at("hard.bin"));
    symlinkSync("a.bin", at("soft.bin"));
    const targets = [
      { name: "one", path: at("a.bin") },
      { name: "two", path: other() },
    ];
    await expect(OutputFiles.create(targets)).rejects.toMatchObject({ code: "EINVAL", op: "out two" });
  });
});
